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
# One color for each model and each KL coefficient, in every figure.
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
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(io.StringIO()):
        module.main(module.Config(out=str(out), **settings))
    if shown:
        print("".join(x for x in printed.getvalue().splitlines(True) if not x.startswith("wrote")))
    return out


def pieces(ids: list[int]) -> list[str]:
    """Each token as text."""
    from data.tokenizer import Tokenizer

    tokenizer = Tokenizer()
    special = {tokenizer.eos: "<EOS>", tokenizer.pad: "<PAD>"}
    return [special.get(i) or tokenizer.encoding.decode([i]) for i in ids]


def labels(ids: list[int]) -> list[str]:
    """Each token as a label in a figure: a full stop alone would not be seen, so it is quoted."""
    texts = [piece.strip(" ") for piece in pieces(ids)]
    return [t if t.strip("<>").isalnum() else repr(t) for t in texts]


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
    return [[abs(entry["value"] - entry[end]) for entry in entries] for end in ("low", "high")]


def show(fig, finding: str, columns: int = 4) -> None:
    """Shows a figure under the sentence that it proves: as text, which every screen can read.

    Its legend, of all panels' labels, stands below; a panel that has its own legend is left out.
    """
    import matplotlib.pyplot as plt
    from IPython.display import Markdown, display
    from PIL import Image

    display(Markdown(f"**{finding}**"))
    named = {}
    for axis in fig.axes:
        if not axis.get_legend():
            named.update({text: h for h, text in zip(*axis.get_legend_handles_labels())})
    if named:
        fig.legend(named.values(), named, loc="outside lower center", ncols=columns)
    drawn, small = io.BytesIO(), io.BytesIO()
    fig.savefig(drawn, dpi=STYLE["figure.dpi"])
    plt.close(fig)
    # A palette of 128 colors looks the same and takes a third of the bytes.
    Image.open(drawn).convert("RGB").quantize(128).save(small, "PNG", optimize=True)
    image = {"image/png": small.getvalue(), "text/plain": f"Figure: {finding}"}
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
    whole = "The whole way: from a language model over three steps to PPO"
    at = "You are here: " + ", ".join(names[name] for name in lit)
    show(fig, whole if len(lit) == len(names) else at)


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


# ------------------------------------------------------------------------------------ of notebook 1
def head_grid(axis, table, name: str) -> None:
    """A number for every head, in a field of its own: table (L,H), colored from 0 to 1."""
    layers, heads = table.shape
    axis.imshow(table, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for i in range(layers):
        for j in range(heads):
            shade = "white" if table[i, j] > 0.6 else "black"
            # + 0.0: no minus sign before a zero
            text = f"{round(table[i, j].item(), 2) + 0.0:.2f}"
            axis.text(j, i, text, ha="center", va="center", color=shade)
    axis.set(title=name, xlabel="head", ylabel="layer", xticks=range(heads), yticks=range(layers))


# ------------------------------------------------------------------------------------ of notebook 2
def first_lines(texts: list[str]) -> dict[str, float]:
    """Which share of the texts begins with another user's request, with a reply, with nothing."""
    from data.world import parse

    lines = [text.split("\n")[0] for text in texts]
    kinds = ["request" if parse(line) else "reply" if line else "nothing" for line in lines]
    return {kind: kinds.count(kind) / len(kinds) for kind in ("request", "reply", "nothing")}


def token_table(tokens, mask, before, after, across: int = 14):
    """Draws tokens (B,T) as boxes, each with its loss in nats before and after SFT; the figure.

    The color says whether SFT made a token cheaper; a bar below says that it is in the loss.
    """
    from matplotlib.patches import Rectangle

    lines = [(row, at) for row in range(len(tokens)) for at in range(0, tokens.shape[1], across)
             if set(pieces(tokens[row, at : at + across].tolist())) != {"<PAD>"}]  # fmt: skip
    fig, axis = figure(height=0.5 + 1.05 * len(lines))
    for line, (row, at) in enumerate(lines):
        ids, y = tokens[row, at : at + across].tolist(), -1.3 * line
        for x, piece in enumerate(pieces(ids)):
            counts, old, new = mask[row, at + x], before[row, at + x], after[row, at + x]
            ink, changed = BLACK if counts else "#555555", float(new - old)
            color = RED if changed > 0.05 else BLUE if changed < -0.05 else GRAY
            alpha = 0.2 if color == GRAY else 0.25 + 0.5 * min(1, abs(changed))
            if piece != "<PAD>":
                axis.add_patch(Rectangle((x + 0.03, y), 0.94, 0.4, fc=color, alpha=alpha, lw=0))
            if counts:
                axis.plot([x + 0.03, x + 0.97], [y - 0.05, y - 0.05], color=BLACK, lw=3)
            label = piece.strip(" <>").replace("\n", "\\n")
            axis.text(x + 0.5, y + 0.2, label, ha="center", va="center", fontsize=10, color=ink)
            for value, place in ((old, -0.24), (new, -0.5)):
                if at + x and piece != "<PAD>":  # nothing stands before the first token
                    axis.text(x + 0.5, y + place, f"{abs(float(value)):.2f}", ha="center",
                              va="center", fontsize=10, color=ink)  # fmt: skip
        for name, place in (("token", 0.2), ("GPT", -0.24), ("SFT", -0.5)):
            axis.text(-0.1, y + place, name, ha="right", va="center", fontsize=10, weight="bold")
    for color, name in ((BLUE, "cheaper after SFT"), (RED, "dearer"), (GRAY, "as before")):
        axis.plot([], [], "s", markersize=10, color=color, alpha=0.6, label=name)
    axis.plot([], [], color=BLACK, lw=3, label="in the loss")
    axis.set(xlim=(-0.9, min(across, tokens.shape[1])), ylim=(-1.3 * len(lines) + 0.6, 0.5))
    axis.axis("off")
    return fig


def flaw_shares(pairs: list[tuple], flaws) -> list[dict]:
    """Of answers to prompts, which share has each flaw: the values with their 95 % intervals."""
    from data.judges import interval
    from data.labelers import features
    from data.world import topic

    seen, topics = [features(*pair) for pair in pairs], [topic(prompt) for prompt, _ in pairs]
    return [interval([float(s[flaw] < 1) for s in seen], topics=topics) for flaw in flaws]


# ------------------------------------------------------------------------------------ of notebook 3
def telling(comparisons: list[dict], model) -> dict:
    """A comparison to read: four short answers, a tie, and one pair that the labeler got wrong.

    The reward model has only that pair in another order, by the widest margin, and gold agrees.
    """
    import itertools

    from data.labelers import gold
    from data.tokenizer import Tokenizer
    from model import score_texts

    def short(c: dict) -> bool:
        texts = {text for text in c["completions"] if len(text) < 70 and "\n" not in text}
        few_words = len(c["prompt"]) < 70
        return few_words and len(texts) == len(c["ranks"]) == 4 > len(set(c["ranks"])) == 3

    def fit(case: tuple) -> tuple:
        c, scores = case
        worths = [gold(c["prompt"], text) for text in c["completions"]]
        ranks, every = c["ranks"], itertools.permutations(range(4), 2)
        pairs = [(i, j) for i, j in every if ranks[i] < ranks[j]]
        wrong = [(i, j) for i, j in pairs if scores[i] < scores[j]]
        slip = all(worths[i] < worths[j] for i, j in wrong)
        return len(wrong) != 1, not slip, min((scores[i] - scores[j] for i, j in wrong), default=0)

    some = list(filter(short, comparisons)) or [c for c in comparisons if len(c["ranks"]) == 4]
    asked = [c["prompt"] for c in some for _ in range(4)]
    scores = score_texts(model, Tokenizer(), asked, [t for c in some for t in c["completions"]])
    cases = zip(some, (scores[at : at + 4] for at in range(0, len(scores), 4)))
    return min(cases, key=fit)[0]


def break_constraint(request, good: str, rng) -> str:
    """The same answer with a constraint broken, by a word or a sentence; empty if there is none."""
    import re

    from data import world
    from data.labelers import sentences_of

    limits = request.limits
    if "count" in limits:
        return " ".join(sentences_of(good)[:-1])
    if "one_word" in limits:
        return world.answer(request, rng, keep=False)
    word = limits.get("mention") or limits.get("avoid")
    kinds = [world.SLOTS[kind] for kind in world.TABLES["USABLE"] if word in world.SLOTS[kind]]
    alike = [w for kind in kinds for w in kind if w not in (word, *request.slots.values())]
    if "mention" in limits:
        unsaid = [w for w in alike if not world.says(good, w)]
        old, new = word, rng.choice(unsaid or [word])
    else:  # "avoid": one word of its kind makes room for it
        old, new = next((w for w in alike if world.says(good, w)), None), word
    return re.sub(rf"\b{old}\b", new, good, count=1) if word and old else ""


def another_fact(request, good: str, rng) -> str:
    """The same sentence with another word in place of the true one; empty for texts and lists."""
    from data import world

    slots, truth = request.slots, request.task.truth(request.slots)
    for form in request.task.forms:
        if world.bind(form, {**slots, **truth}) == good and set(truth) - set(slots):
            return world.fill(form, rng, slots)
    return ""


# ------------------------------------------------------------------------------------ of notebook 4
def networks() -> None:
    """Draws which network of PPO feeds which tensor, up to the two losses."""
    from published.draw import box

    fig, axis = figure(height=4.5)
    axis.set(xlim=(0, 8), ylim=(0, 4.5))
    axis.axis("off")
    pale = "#d5ece5"  # of the reward model's green: the value network starts as its copy
    drawn = {
        "the answers": (0.75, 2.35, 1.3, 1.2, "white", "black", "written by\nthe policy"),
        "policy": (2.65, 4.05, 1.5, 0.7, BLUE, "white", "is trained"),
        "reference": (2.65, 3.0, 1.5, 0.7, ORANGE, "black", "SFT, frozen"),
        "reward model": (2.65, 1.95, 1.5, 0.7, GREEN, "white", "frozen"),
        "value network": (2.65, 0.5, 1.5, 0.7, pale, "black", "is trained"),
        "logp": (4.3, 4.05, 0.95, 0.7, "white", BLUE, "section 2"),
        "ref_logp": (4.3, 3.0, 0.95, 0.7, "white", ORANGE, "section 2"),
        "scores": (4.3, 1.95, 0.95, 0.7, "white", GREEN, "section 3"),
        "values": (4.3, 0.5, 0.95, 0.7, "white", GREEN, "section 4"),
        "rewards": (5.65, 3.0, 0.95, 0.7, "white", "black", "section 3"),
        "advantages": (7.15, 2.45, 1.4, 0.7, "white", "black", "sections 5 to 7"),
        "returns": (7.15, 1.6, 1.4, 0.7, "white", "black", "section 5"),
        "policy loss": (7.15, 4.05, 1.4, 0.7, "#222222", "white", "sections 8, 9"),
        "value loss": (7.15, 0.5, 1.4, 0.7, "#222222", "white", "section 10"),
    }
    for name, (x, y, wide, high, color, letters, below) in drawn.items():
        box(axis, x, y, wide, high, color, letters if color == "white" else color)
        letters = "black" if color == "white" else letters
        of = {"ha": "center", "va": "center", "color": letters}
        axis.text(x, y + high / 5, name, fontsize=11, weight="bold", **of)
        axis.text(x, y - high / 5, below, fontsize=10, **of)
    arrows = [((1.4, 2.35), (1.9, y)) for y in (4.05, 3.0, 1.95, 0.5)]
    arrows += [((3.4, y), (3.82, y)) for y in (4.05, 3.0, 1.95, 0.5)]
    arrows += [((4.78, 3.8), (5.17, 3.2)), ((4.78, 3.0), (5.17, 3.0)), ((4.78, 2.1), (5.17, 2.8)),
               ((6.13, 3.0), (6.45, 2.6)), ((6.13, 2.85), (6.45, 1.8)), ((4.78, 0.7), (6.45, 2.3)),
               ((4.78, 0.6), (6.45, 1.45)), ((4.78, 4.05), (6.45, 4.05)),
               ((4.78, 0.45), (6.45, 0.45)), ((7.15, 2.8), (7.15, 3.7)),
               ((7.15, 1.25), (7.15, 0.85))]  # fmt: skip
    for start, end in arrows:
        style = {"arrowstyle": "-|>", "color": "#555555", "linewidth": 1.3, "shrinkA": 0}
        axis.annotate("", end, start, arrowprops={**style, "shrinkB": 1})
    show(fig, "Four networks read the answers; all they say ends in two losses")


def heat(rows: dict, names: list[str], below: str, finding: str) -> None:
    """Draws an answer's tokens from left to right and a row for each of some quantities.

    rows maps names to lists of numbers. Each row has its own scale: dark is far from 0.
    """
    import numpy as np

    fig, axis = figure(height=2.7)
    grid = np.array(list(rows.values()))
    scaled = grid / np.abs(grid).max(axis=1, keepdims=True).clip(min=1e-6)
    axis.imshow(scaled, cmap="PuOr", vmin=-1.8, vmax=1.8, aspect="auto")
    for y, line in enumerate(grid):
        for x, value in enumerate(line):
            axis.text(x, y, f"{round(value, 1) + 0.0:.1f}", ha="center", va="center", fontsize=10)
    axis.set_yticks(range(len(rows)), list(rows))
    axis.set_xticks(range(len(names)), names, rotation=40, ha="right", rotation_mode="anchor")
    axis.set_xlabel(textwrap.shorten(below, 100))
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    show(fig, finding)


# ------------------------------------------------------------------------------------ of notebook 5
def practise(folder: Path = OUT, shown: bool = False, **settings) -> dict:
    """A small PPO run against a folder's reward model: its metrics, and its models on the way.

    "history" has a line of metrics for each iteration, "models" the average after each so many.
    """
    from data.forms import read_jsonl

    small = {"iterations": few(25, 2), "episodes": few(64, 16), "minibatch": few(32, 8),
             "value_warmup": few(3, 1), "warmup": few(5, 1), "snapshots": few(5, 1),
             "log": few(6, 1)}  # fmt: skip
    out = train("ppo", "sft", "reward", folder=folder, shown=shown, **small | settings)
    files = sorted((out / "snapshots").glob("*.pt"), key=lambda file: int(file.stem.split("_")[1]))
    models = {int(file.stem.split("_")[1]): checkpoint(file.stem, file.parent) for file in files}
    return {"history": read_jsonl(out / "ppo.jsonl"), "models": models}


def judged(model, judge, prompts: list[str]) -> dict:
    """A model's sampled answers; of each the judge's score, gold, and the KL to SFT in nats."""
    import numpy as np
    import torch

    from data.labelers import gold
    from data.tokenizer import Tokenizer
    from evaluate import answer_all
    from model import score_texts, tokens_and_mask

    torch.manual_seed(0)
    tokenizer, sft = Tokenizer(), checkpoint("sft")
    texts = answer_all(model, tokenizer, prompts, 64)
    rows = list(map(tokenizer.prompt, prompts)), list(map(tokenizer.response, texts))
    with torch.no_grad():
        batch = tokens_and_mask(*rows, tokenizer.pad, sft.config.context)
        kl = (model.logprobs(*batch) - sft.logprobs(*batch)).sum(dim=1).numpy()
    return {"texts": texts, "score": np.array(score_texts(judge, tokenizer, prompts, texts)),
            "gold": np.array(list(map(gold, prompts, texts))), "kl": kl}  # fmt: skip


def followed(models: dict, judge, prompts: list[str]) -> dict:
    """What the models of a run answer on its way, from the SFT model, 0, on."""
    models = {0: checkpoint("sft")} | models
    return {i: judged(model, judge, prompts) for i, model in models.items()}


def means(path: dict, what: str, prompts: list[str]) -> list[dict]:
    """The mean "score" or "gold" at each point of a path, with its interval."""
    from data.judges import interval
    from data.world import topic

    topics = list(map(topic, prompts))
    return [interval(at[what], topics=topics, signed=True) for at in path.values()]


def gained(path: dict, what: str, prompts: list[str]) -> dict:
    """What the end of a path has more than its start, prompt by prompt, with its interval."""
    last = list(path.values())[-1]
    return means({0: {what: last[what] - path[0][what]}}, what, prompts)[0]


def way(axis, path: dict, what: str, prompts: list[str], label: str, color: str) -> None:
    """Draws the mean "score" or "gold" along a path, with intervals."""
    entries = means(path, what, prompts)
    axis.errorbar(list(path), [entry["value"] for entry in entries], errors(entries), marker="o",
                  markersize=4, capsize=2, elinewidth=1, color=color, label=label)  # fmt: skip
    names = {"score": "reward model's score", "kl": "KL to SFT, nats"}
    axis.set(xlabel="iteration", ylabel=names.get(what, what))


def smooth(values: list[float], n: int = 5) -> list[float]:
    """The mean of a value and the n - 1 before it, of fewer at the start."""
    parts = [values[max(0, i + 1 - n) : i + 1] for i in range(len(values))]
    return [sum(part) / len(part) for part in parts]


def panel(axis, runs: dict, key: str, label: str) -> None:
    """Draws a curve of some runs: thin as measured, thick as a running mean that starts at 0."""
    for name, run in runs.items():
        lines = [line for line in run["history"] if key in line]
        x, y = [line["iteration"] for line in lines], [line[key] for line in lines]
        axis.plot(x, y, color=COLORS[name], alpha=0.35, linewidth=1)
        alone = sum(at < 0 for at in x)  # the iterations that train the value network alone
        axis.plot(x[alone:], smooth(y[alone:]), color=COLORS[name], linewidth=2, label=name)
    axis.axvline(0, color="black", linewidth=0.8, linestyle=":")
    axis.set(xlabel="iteration", ylabel=label)
    axis.locator_params(axis="y", nbins=4)  # a layout that chose the ticks might not settle


def final(run: dict, key: str, n: int = 5) -> float:
    """The mean of a metric over a run's last iterations."""
    values = [line[key] for line in run["history"] if key in line][-n:]
    return sum(values) / len(values)


def table(runs: dict, keys: tuple[str, ...]) -> None:
    """Prints the ends of some runs side by side."""
    print(f"{'mean of the last 5':19}" + "".join(f"{key[:11]:>12}" for key in keys))
    for name, run in runs.items():
        print(f"{name:19}" + "".join(f"{final(run, key):12.3f}" for key in keys))


def step(optimizer, loss) -> None:
    """A gradient step, with the gradient cut to norm 1 as in all scripts."""
    import torch

    optimizer.zero_grad()
    loss.backward()
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    torch.nn.utils.clip_grad_norm_(weights, 1.0)
    optimizer.step()


# ------------------------------------------------------------------------------------ of notebook 6
def show_table(*rows: list) -> None:
    """Shows a table, its head first."""
    from IPython.display import Markdown, display
    from published.draw import table

    display(Markdown(table(*rows)))


def draw_seeds(axis, x: float, entries: list[dict], color: str) -> None:
    """A value of each seed with its 95 % interval, side by side around x."""
    at = [x + 0.18 * (i - (len(entries) - 1) / 2) for i in range(len(entries))]
    shown = [entry["value"] for entry in entries]
    axis.errorbar(at, shown, errors(entries), fmt="o", color=color, markersize=5, capsize=2)


def draw_arrow(axis, start: float, end: float, y: float, color: str) -> None:
    """An arrow to the right or left, or a bar where nothing changes."""
    if abs(end - start) < 0.015:
        axis.plot(end, y, "|", color=color, markersize=9, markeredgewidth=2.5)
    else:
        axis.annotate("", (end, y), (start, y), arrowprops={"arrowstyle": "-|>", "color": color})


def beside_gpt(result: dict, metric: str) -> dict:
    """PPO minus prompted GPT, paired; minus GPT where a page of examples makes no sense."""
    gains = result["differences"]
    return gains.get(f"{metric} ppo-prompted") or gains[f"{metric} ppo-gpt"]


def preferred_to_sft(results: list[dict], pair: str) -> list[dict]:
    """How often a model is preferred to SFT, by seed: some pairs are stored the other way round."""
    wins = [result["wins"][pair] for result in results]
    if pair.startswith("sft/"):
        wins = [{"value": 1 - won["value"], "gold": 1 - won["gold"],
                 "low": 1 - won["high"], "high": 1 - won["low"]} for won in wins]  # fmt: skip
    return wins


def gain_over_root_kl(optimum: dict, count: str, way: str):
    """d, the root of the KL, and the gain in gold since the start, along a curve."""
    import numpy as np

    curves = optimum[count]
    start = curves["best_of_n"][0] if way == "best_of_n" else curves["start"]
    points = [point for point in curves[way] if point["kl"] > 0.02]
    gains = [point["gold"] - start["gold"] for point in points]
    return np.array([point["kl"] ** 0.5 for point in points]), np.array(gains)


def draw_over_kl(optimum: dict, key: str, label: str, since_start: bool = False):
    """Over-optimisation: a value against KL, a panel for each reward model, on the same scales."""
    ways = {"beta 0.0": "beta 0", "beta 0.05": "beta 0.05", "beta 0.15": "beta 0.15",
            "best_of_n": "best of n"}  # fmt: skip
    fig, axes = figure(columns=len(optimum), height=3.8)
    for axis, (count, curves) in zip(axes, optimum.items()):
        start = curves["start"][key] if since_start else 0.0
        for way, name in ways.items():
            points = [point for point in curves[way] if point["kl"] > 0.02]
            x, y = [point["kl"] for point in points], [point[key] - start for point in points]
            axis.plot(x, y, "o-", color=COLORS[name], markersize=4, label=name)
        axis.set(xscale="log", xlim=(0.04, 300), xlabel="KL to SFT, nats")
        axis.set_xticks([0.1, 1, 10, 100], ["0.1", "1", "10", "100"])
        axis.set_title(f"{int(count):,} comparisons")
        axis.sharey(axes[0])
    axes[0].set_ylabel(label)
    return fig, axes
