"""What the notebooks share: the repository's root, the checkpoints they look at, and colours.

They need the chain's checkpoints in out/, made by the README's long command. With FAST=1 in the
environment they make their own in out/fast instead, with the one-minute preset: everything runs,
nothing is learned well.
"""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FAST = bool(os.environ.get("FAST"))
OUT = ROOT / "out" / "fast" if FAST else ROOT / "out"
MADE_BY = {"base": "pretrain", "sft": "sft", "reward": "reward", "ppo": "ppo"}
# Okabe and Ito's, told apart by everybody; the figures are white, on light and dark pages alike.
BLUE, ORANGE, GREEN, GRAY = "#0072b2", "#e69f00", "#009e73", "#777777"

sys.path.insert(0, str(ROOT))
os.chdir(ROOT)  # the scripts' paths to data/ start here


def checkpoint(name: str):
    """A model of the chain in eval mode: "base", "sft", "reward" or "ppo"."""
    from data.checkpoints import load
    from data.tokenizer import Tokenizer

    if FAST:
        for stem, script in MADE_BY.items():
            if not (OUT / f"{stem}.pt").exists():
                command = [sys.executable, f"{script}.py", "--fast", "--out", str(OUT)]
                subprocess.run(command, check=True, capture_output=True, cwd=ROOT)
            if stem == name:
                break
    return load(OUT / f"{name}.pt", f"python {MADE_BY[name]}.py", Tokenizer().size)[0]


def figure(title: str, columns: int = 1, width: float = 5.0, height: float = 3.4):
    """A figure whose title says what it shows: (figure, axes)."""
    import matplotlib.pyplot as plt
    import numpy as np

    fig, axes = plt.subplots(1, columns, figsize=(width * columns, height), layout="constrained")
    fig.suptitle(title, fontsize=11)
    for axis in np.atleast_1d(axes):
        axis.spines[["top", "right"]].set_visible(False)
    return fig, axes
