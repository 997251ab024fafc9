"""What the notebooks share: the models they look at, figures, and small runs of the scripts.

They look at the models in published/chain, which come with the repository; with MODELS=out in the
environment at yours. With FAST=1 all experiments are tiny: everything runs, nothing is learned.
"""

import ast
import contextlib
import inspect
import io
import os
import shutil
import sys
import tempfile
import textwrap
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FAST = bool(os.environ.get("FAST"))
OUT = ROOT / os.environ.get("MODELS", "notebooks/published/chain")
MADE_BY = {"base": "pretrain", "sft": "sft", "reward": "reward", "ppo": "ppo"}
# Okabe and Ito's, told apart by everybody; the figures are white, on light and dark pages alike.
BLUE, ORANGE, GREEN, GRAY = "#0072b2", "#e69f00", "#009e73", "#777777"
RED, SKY, PURPLE, BLACK = "#d55e00", "#56b4e9", "#cc79a7", "#000000"
# One colour for each model and each KL coefficient, in every figure.
COLORS = {"GPT": GRAY, "GPT prompted": SKY, "SFT": ORANGE, "PPO": BLUE, "PPO-ptx": GREEN,
          "beta 0": RED, "beta 0.05": PURPLE, "beta 0.15": BLUE, "best of n": BLACK}  # fmt: skip
STYLE = {"font.size": 11, "axes.titlesize": 11, "axes.spines.top": False, "legend.frameon": False,
         "axes.spines.right": False, "figure.dpi": 120}  # fmt: skip
SCRATCH = tempfile.TemporaryDirectory()  # gone when the kernel ends

sys.path.insert(0, str(ROOT))
os.chdir(ROOT)  # the scripts' paths to data/ start here


def few(usual: int, fast: int) -> int:
    """How many of something: fewer with FAST=1."""
    return fast if FAST else usual


# ------------------------------------------------------------------------------ models and runs
def checkpoint(name: str, folder: Path = OUT):
    """A model in eval mode: "base", "sft", "reward", "ppo", or another of a run's folder."""
    from data.checkpoints import load
    from data.tokenizer import Tokenizer

    return load(folder / f"{name}.pt", f"python {MADE_BY.get(name, 'ppo')}.py", Tokenizer().size)[0]


def train(script: str, *start: str, folder: Path = OUT, shown: bool = False, **settings) -> Path:
    """Runs a script in a new folder that begins with copies of these models; returns the folder.

    shown prints what the script prints. The metrics are in the folder, in SCRIPT.jsonl.
    """
    module, out = import_module(script), Path(tempfile.mkdtemp(dir=SCRATCH.name))
    for name in start:
        shutil.copy(folder / f"{name}.pt", out)
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(io.StringIO()):
        module.main(module.Config(out=str(out), **settings))
    if shown:
        print("".join(x for x in said.getvalue().splitlines(True) if not x.startswith("wrote")))
    return out


def pieces(ids: list[int]) -> list[str]:
    """Each token as text."""
    from data.tokenizer import Tokenizer

    tokenizer = Tokenizer()
    special = {tokenizer.eos: "<EOS>", tokenizer.pad: "<PAD>"}
    return [special.get(i) or tokenizer.encoding.decode([i]) for i in ids]


def mean_gold(prompts: list[str], texts: list[str]) -> dict:
    """The mean of gold with its 95 % interval; prompts about the same thing are drawn together."""
    from data.judges import interval
    from data.labelers import gold
    from data.world import topic

    return interval(list(map(gold, prompts, texts)), topics=list(map(topic, prompts)))


def said(entry: dict) -> str:
    """A value with its 95 % interval, in words."""
    return f"{entry['value']:.2f} [{entry['low']:.2f}, {entry['high']:.2f}]"


# ----------------------------------------------------------------------------- figures and code
def figure(columns: int = 1, width: float = 8.0, height: float = 3.4):
    """A figure of some panels side by side, 8 inches wide in all: (figure, axes)."""
    import matplotlib.pyplot as plt

    plt.rcParams.update(STYLE)
    return plt.subplots(1, columns, figsize=(width, height), layout="constrained")


def errors(entries: list[dict]) -> list[list[float]]:
    """The lengths of error bars below and above, as matplotlib wants them."""
    ends = [[abs(entry["value"] - entry[end]) for entry in entries] for end in ("low", "high")]
    return ends


def show(fig, finding: str, columns: int = 4) -> None:
    """Shows a figure under the sentence that it proves, which is its alternative text as well.

    Its legend, of all panels' labels, stands below; a panel that has its own legend is left out.
    """
    import matplotlib.pyplot as plt
    from IPython.display import display

    fig.suptitle(textwrap.fill(finding, int(11 * fig.get_figwidth())), weight="bold", fontsize=12)
    named = {}
    for axis in fig.axes:
        if not axis.get_legend():
            named.update({text: h for h, text in zip(*axis.get_legend_handles_labels())})
    if named:
        fig.legend(named.values(), named, loc="outside lower center", ncols=columns)
    drawn = io.BytesIO()
    fig.savefig(drawn, dpi=STYLE["figure.dpi"])
    plt.close(fig)
    image = {"image/png": drawn.getvalue(), "text/plain": f"Figure: {finding}"}
    display(image, metadata={"image/png": {"alt": finding}}, raw=True)


def here(*lit: str) -> None:
    """Draws the three steps, with those of "gpt", "sft", "reward", "ppo" lit that are looked at."""
    from published.draw import flow

    fig, axis = figure(height=2.9)
    axis.set(xlim=(0, 8), ylim=(3.5, 6.1))
    axis.axis("off")
    flow(axis, lit)
    names = {"gpt": "the language model", "sft": "step 1, supervised fine-tuning",
             "reward": "step 2, the reward model", "ppo": "step 3, PPO"}  # fmt: skip
    show(fig, "You are here: " + ", ".join(names[name] for name in lit))


def source(function) -> None:
    """Shows a function of the scripts as it stands there, without its docstring."""
    from IPython.display import Markdown, display

    lines = textwrap.dedent(inspect.getsource(function)).splitlines()
    (tree,) = ast.parse("\n".join(lines)).body
    if ast.get_docstring(tree):
        del lines[tree.body[0].lineno - 1 : tree.body[0].end_lineno]
    file = Path(inspect.getsourcefile(function)).relative_to(ROOT)
    display(Markdown(f"From [{file}](../{file}):\n```python\n" + "\n".join(lines) + "\n```"))


def written(function) -> bool:
    """Whether an exercise's function has been written: its body is more than three dots."""
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(function))).body
    body = tree.body[bool(ast.get_docstring(tree)) :]
    empty = isinstance(body[0], ast.Expr) and getattr(body[0].value, "value", None) is ...
    if empty:
        print(f"{function.__name__} is not written yet: replace the dots, and run both cells again")
    return not empty
