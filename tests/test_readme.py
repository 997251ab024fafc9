"""What the front page says: its links, its map, and the trained models that come with it."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
CHAIN = ROOT / "notebooks" / "published" / "chain"


def anchors(file: Path) -> set[str]:
    """The links that a page's headings make: "Is my PPO working?" -> is-my-ppo-working"""
    headings = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", ["README.md", "data/README.md", "notebooks/published/README.md"])
def test_links_lead_somewhere(page):
    file = ROOT / page
    text = file.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)]+)\)", text) + re.findall(r'src="([^"]+)"', text):
        if not target.startswith("https://"):
            path, _, anchor = target.partition("#")
            linked = file.parent / path if path else file
            assert linked.exists(), target
            assert not anchor or anchor in anchors(linked), target


def test_the_map_tells_how_long_each_file_is():
    said = re.findall(r"\[(\S+)\]\([^)]*\), ([\d,]+) lines", README)
    assert len(said) == 8
    for name, lines in said:
        files = (ROOT / name).glob("*.py") if name.endswith("/") else [ROOT / name]
        count = sum(len(file.read_text(encoding="utf-8").splitlines()) for file in files)
        assert int(lines.replace(",", "")) == pytest.approx(count, rel=0.05), name


def test_the_shipped_models_answer_without_any_training():
    line = next(line for line in README.splitlines() if line.startswith("python evaluate.py --out"))
    done = subprocess.run([sys.executable, *shlex.split(line)[1:]], cwd=ROOT, capture_output=True,
                          text=True, check=True)  # fmt: skip
    names = [answer.split()[0] for answer in done.stdout.splitlines()]
    assert names == ["gpt", "prompted", "sft", "ppo"] and done.stdout.count("reward ") == 4


def test_the_shipped_models_are_small_and_of_one_run():
    made = {}
    for name in ("base", "sft", "reward", "ppo"):
        content = torch.load(CHAIN / f"{name}.pt", weights_only=True)
        assert all(w.dtype == torch.float16 for w in content["weights"].values())
        assert content["made_from"].items() <= made.items()
        made[name] = content["checksum"]
    assert sum(file.stat().st_size for file in CHAIN.glob("*.pt")) < 8.5e6
