"""Draws all tables and pictures from this folder's JSON files: python notebooks/published/draw.py

Tables are written between their marks in README.md here and in the front one, pictures saved here.
Numbers within the texts are quotes.py's.
"""

import functools
import json
import re
import sys
import textwrap
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Circle, FancyBboxPatch, Wedge

RESULTS = Path(__file__).resolve().parent
sys.path.insert(0, str(RESULTS.parent))

from lab import BLUE, COLORS, GRAY, GREEN, ORANGE, ROOT, errors, figure, said  # noqa: E402

SEEDS = (0, 1, 2)
CHAINS = {
    **{f"seed{seed}": f"seed {seed}" for seed in SEEDS},
    "threads": "seed 0, two threads",
}
STEPS = {"gpt": "GPT", "sft": "SFT", "ppo": "PPO", "ppo_ptx": "PPO-ptx, 0.5", "round2": "round 2",
         "round3": "round 3"}  # fmt: skip
MODELS = {"gpt": "GPT", "prompted": "GPT prompted", "sft": "SFT", "ppo": "PPO"}
GOLD = {
    "gold": "gold reward, test prompts",
    "gold_generation": "… of them generation",
    "gold_phrasing": "gold, phrasings never seen",
    "gold_entity": "gold, names and things that no prompt or demonstration has",
    "swapped": "a word of the text exchanged: the answer follows",
}
CLAIMS = {  # what is measured, and the paper's figure
    "constraint": ("on the subject, with every constraint kept", "up"),
    "constraint_two": ("… of two constraints", "–"),
    "hallucination": ("closed domain: says what the text does not", ".41 → .21 (ptx)"),
    "unanswerable": ("… not in the text: says so", "–"),
    "answered": ("… in the text: answered right", "–"),
    "truthful": ("popular beliefs: nothing false", ".28 → .76"),
    "truthful_informative": ("… and a right answer", ".25 → .75"),
    "toxic_basic": ("provoked: rude", ".23 → .23"),
    "toxic_respectful": ("… asked to be respectful", ".23 → .21"),
    "toxic_biased": ("… asked to be rude", ".29 → .43"),
    "false_premise": ("false premise accepted", "–"),
    "hedging": ("plain question hedged", "–"),
    "tax_lomi": ("web skill: translation", "down"),
    "tax_reading": ("web skill: reading", "down"),
    "tax_cloze": ("web skill: story cloze", "down"),
}
LABELERS = {
    "agreement": "two labelers agree (training comparisons, pairs that neither of them ties)",
    "rm_own": "against labelers it learned from",
    "rm_heldout": "against other labelers",
    "second_labeler": "what another labeler reaches on their labels",
    "rm_ceiling": "what gold itself reaches on their labels",
    "rm_clear": "pairs half of gold's range apart",
    "rm_sees_count": "broken constraints: number of sentences",
    "rm_sees_mention": "… a word to use",
    "rm_sees_avoid": "… a word not to use",
    "rm_sees_two": "… number and a word to use",
}
STYLE = {"font.size": 13, "axes.titlesize": 16, "axes.titleweight": "bold"}
MIDDLE = {"ha": "center", "va": "center"}
SKILLS = {"lomi": "translation", "reading": "reading", "cloze": "story cloze"}


# --------------------------------------------------------------------------- reading the results
def part(name: str) -> dict:
    file = RESULTS / f"{name}.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}


def of_seeds(kind: str) -> list[dict]:
    """The parts kind0, kind1 and kind2, those that are there."""
    return list(filter(None, (part(f"{kind}{seed}") for seed in SEEDS)))


def values(results: list[dict], *keys: str) -> list[float]:
    """One entry of every seed's results: a number, or the value of an interval."""
    found = [functools.reduce(dict.get, keys, result) for result in results]
    return [entry["value"] if isinstance(entry, dict) else entry for entry in found]


def mean(results: list[dict], *keys: str) -> str:
    return f"{np.mean(values(results, *keys)):.2f}"


def spread(results: list[dict], *keys: str) -> str:
    """The mean over seeds with the lowest and the highest."""
    found = values(results, *keys)
    return f"{np.mean(found):.2f} ({min(found):.2f} to {max(found):.2f})"


def cell(entry: dict | None) -> str:
    if not entry or not entry["n"]:
        return "–"
    return said(entry)


def table(*rows: list) -> str:
    lines = ["| " + " | ".join(map(str, row)) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])


# ---------------------------------------------------------------------------------------- tables
def front() -> list[list[str]]:
    """The front page's table: the mean of three seeds, a column for each model."""
    shown = {"gpt": "GPT", "prompted": "GPT prompted", "sft": "SFT", "ppo": "PPO",
             "ppo_ptx": "PPO-ptx", "round3": "PPO, 3 rounds"}  # fmt: skip
    measures = {
        "gold": "gold: how good the answers are",
        "gold_phrasing": "… to phrasings never seen",
        "constraint": "keeps every constraint, such as “two sentences”",
        "hallucination": "invents what a given text does not say (less is better)",
        "truthful_informative": "is right where a popular belief is wrong",
        "toxic_respectful": "is rude, though asked to be respectful (less is better)",
        "tax_lomi": "still translates, a skill of the web",
    }
    later, lines = of_seeds("rounds"), []
    for metric, label in measures.items():
        row = [mean(later, "models", name, metric) if metric in later[0]["models"][name] else "–"
               for name in shown]  # fmt: skip
        lines.append([label, *row])
    preferred = []
    for name in shown:
        beaten = name in ("gpt", "prompted")
        pair = f"sft/{name}" if beaten else f"{name}/sft"
        won = 0 if name == "sft" else np.mean(values(later, "wins", pair))
        preferred.append("–" if name == "sft" else f"{1 - won if beaten else won:.2f}")
    lines.insert(2, ["is preferred to SFT by labelers", *preferred])
    return [["mean of three seeds, 0 to 1", *shown.values()], *lines]


def story() -> list[list[str]]:
    """The paper's claims in its own order, what was found and what makes it."""
    chains, later = of_seeds("seed"), of_seeds("rounds")

    def of(metric: str, names=("prompted", "sft", "ppo")) -> list[str]:
        return [mean(later, "models", name, metric) for name in names]

    gold = of("gold", ("gpt", "prompted", "sft", "ppo", "round2", "round3"))
    tax = of("tax_lomi", ("gpt", "sft", "ppo", "ppo_ptx"))
    wins = [mean(chains, "wins", f"ppo/{name}") for name in ("gpt", "prompted", "sft")]
    agreed = [mean(chains, "labelers", name) for name in ("rm_heldout", "second_labeler")]
    path = {metric: " → ".join(of(metric)) for metric in list(CLAIMS)[:12]}
    rows = [
        ["a language model continues text",
         f"gold {gold[0]}, behind a page of examples {gold[1]}", "pretrain.py"],
        ["step 1: it is fine-tuned on people's demonstrations", f"gold {gold[2]}", "sft.py"],
        ["step 2: a reward model learns from people's rankings", "agrees with a labeler on "
         f"{agreed[0]} of pairs, where another labeler does on {agreed[1]}", "reward.py"],
        ["step 3: PPO follows its reward; steps 2 and 3 are repeated",
         f"gold {gold[3]}, then {gold[4]} and {gold[5]}", "ppo.py"],
        ["preferred to GPT-3, also to a prompted one", f"{wins[0]} and {wins[1]}", "evaluate.py"],
        ["keeps explicit constraints", path["constraint"], "evaluate.py"],
        ["invents less, and is less toxic when asked to be respectful",
         f"{path['hallucination']}; {path['toxic_respectful']}", "evaluate.py"],
        ["SFT loses other skills; PPO-ptx brings them back", f"translation: GPT {tax[0]}, "
         f"SFT {tax[1]}, PPO {tax[2]}, PPO-ptx {tax[3]}", "ppo.py --ptx-coef 0.5"],
        ["preferred to SFT", wins[2], "evaluate.py"],
        ["gives more true and informative answers", path["truthful_informative"], "evaluate.py"],
        ["still takes false premises as true", path["false_premise"], "evaluate.py"],
        ["still hedges where it need not", path["hedging"], "evaluate.py"],
    ]  # fmt: skip
    head = ["the paper's story", "here, mean of three seeds (→: GPT prompted, SFT, PPO)", "made by"]
    return [head, *([claim, found, f"`python {made}`"] for claim, found, made in rows)]


def of_chains() -> dict[str, list[list]]:
    """The tables of seed 0, and of all chains with the default settings."""
    parts = {label: part(name) for name, label in CHAINS.items()}
    first = parts["seed 0"]

    def of_models(*metrics: str) -> list[list]:
        models = first["models"]
        return [[models["ppo"][metric]["n"], *(cell(models[x].get(metric)) for x in MODELS)]
                for metric in metrics]  # fmt: skip

    def listed(chain: dict, metric: str, names=("gpt", "sft", "ppo")) -> str:
        return ", ".join(f"{chain['models'][x][metric]['value']:.2f}" for x in names)

    tables, names = {}, {**MODELS, "right": "flawless answers"}
    lines = [[label, *row] for label, row in zip(GOLD.values(), of_models(*GOLD))]
    tables["models"] = [["0 to 1, mean [95 % interval]", "n", *MODELS.values()], *lines]
    found = zip(CLAIMS.values(), of_models(*CLAIMS))
    lines = [[label, *row, paper] for (label, paper), row in found]
    tables["claims"] = [["share of answers", "n", *MODELS.values(), "the paper"], *lines]
    lines = [[" to ".join(names[x] for x in pair.split("/")), e["n"], cell(e), f"{e['gold']:.2f}"]
             for pair, e in first["wins"].items()]  # fmt: skip
    tables["wins"] = [["preferred by held-out labelers", "untied", "share", "by gold"], *lines]
    lines = [[label, first["labelers"][name]["n"],
              *(cell(chain["labelers"][name]) for chain in parts.values())]
             for name, label in LABELERS.items()]  # fmt: skip
    tables["labelers"] = [["", "pairs", *parts], *lines]
    lines = [[label, *(listed(chain, x, MODELS) for x in ("gold", "gold_phrasing")),
              listed(chain, "swapped", ["ppo"]), cell(chain["wins"]["ppo/sft"]),
              f"{chain['wins']['ppo/sft']['gold']:.2f}", cell(chain["wins"]["ppo/prompted"]),
              f"{chain['kl']:.1f}"] for label, chain in parts.items()]  # fmt: skip
    tables["seeds"] = [["", "gold: GPT, prompted, SFT, PPO", "phrasings never seen", "swapped, PPO",
                        "PPO preferred to SFT", "by gold", "PPO preferred to prompted",
                        "KL to SFT"], *lines]  # fmt: skip
    lines = [[label, *(listed(chain, metric) for chain in parts.values())]
             for metric, (label, _) in CLAIMS.items()]  # fmt: skip
    tables["chains"] = [["GPT, SFT, PPO", *parts], *lines]
    return tables


def over_seeds() -> dict[str, list[list]]:
    """The tables of means over seeds: the rounds, the tax, and lower temperatures."""
    results, others, tables = of_seeds("rounds"), of_seeds("ptx"), {}

    def row(name: str, *metrics: str) -> list[str]:
        return [spread(results, "models", name, metric) for metric in metrics]

    def to_sft(name: str) -> list[str]:
        if name == "sft":
            return ["–", "–"]
        return [spread(results, "wins", f"{name}/sft", *by) for by in ((), ("gold",))]

    wins, golds = ["preferred to SFT", "by gold"], ("gold", "gold_phrasing")
    names = {"sft": "SFT", "ppo": "round 1", "round2": "round 2", "round3": "round 3"}
    lines = [[label, *row(name, *golds), *to_sft(name)] for name, label in names.items()]
    tables["rounds"] = [["", "gold, test prompts", "gold, phrasings never seen", *wins], *lines]
    skills = ("gold", *(f"tax_{skill}" for skill in SKILLS))
    lines = [[STEPS[name], *row(name, *skills)] for name in list(STEPS)[:4]]
    for coef in others[0]:
        lines.append([f"PPO-ptx, {coef}", *(spread(others, coef, skill) for skill in skills)])
    tables["ptx"] = [["", "gold", *SKILLS.values()], *lines]
    heats = of_seeds("temperature")
    names = {"base": "GPT", "sft": "SFT", "ppo": "PPO", "gain": "PPO − SFT"}
    lines = [[heat, *(spread(heats, heat, name) for name in names)] for heat in heats[0]]
    tables["temperature"] = [["temperature", *names.values()], *lines]
    return tables


def of_parts() -> dict[str, list[list]]:
    """The tables of parts that were run once, and the sample answers."""
    tables, sample = {}, part("chain")
    lines = [[MODELS[name], e["answer"].replace("\n", " ⏎ "), f"{e['gold']:.2f}"]
             for name, e in sample["answers"].items()]  # fmt: skip
    tables["sample"] = [["", f"“{sample['prompt']}”", "gold"], *lines]
    lines = [[seed, *(cell(e[x]) for x in ("newest", "control", "gain", "newest/control"))]
             for seed, e in enumerate(of_seeds("control"))]  # fmt: skip
    tables["control"] = [["seed", "gold: the newest policy's", "all of SFT", "difference",
                          "the newest preferred"], *lines]  # fmt: skip
    lines = [[name, e["demonstrations"], *map(cell, (e["sft"], e["ppo"], e["ppo/sft"])),
              f"{e['ppo/sft']['gold']:.2f}", cell(e["right/sft"])]
             for name, e in part("room").items()]  # fmt: skip
    tables["room"] = [["demonstrations", "", "gold: SFT", "PPO", "PPO preferred to SFT", "by gold",
                       "flawless answers preferred to SFT"], *lines]  # fmt: skip
    keys = ("score", "kl", "entropy", "explained_variance", "length", "no_eos", "clipfrac")
    lines = [[name, *(f"{e[key]:.2f}" for key in keys), cell(e["gold"])]
             for name, e in part("faults").items()]  # fmt: skip
    tables["faults"] = [["what is wrong", *keys[:3], "ev", "length", "no eos", "clipfrac", "gold"],
                        *lines]  # fmt: skip
    lines = [[e["prompt"], e["answer"].replace("\n", " ⏎ "), f"{e['gold']:.2f}"]
             for e in part("optimum")["300"]["samples 0.0"][:4]]  # fmt: skip
    tables["hacked"] = [["prompt", "answer", "gold"], *lines]
    return tables


def tables() -> dict[str, str]:
    """All tables: name -> Markdown."""
    found = {"story": front(), "claims_story": story()}
    found |= of_chains() | over_seeds() | of_parts()
    return {name: table(*rows) for name, rows in found.items()}


# -------------------------------------------------------------------------------------- pictures
def picture(title: str, x: str = "", y: str = ""):
    fig, axis = figure(width=6.6, height=4.6)
    axis.set(xlabel=x, ylabel=y)
    axis.set_title(title)
    return fig, axis


def box(axis, x: float, y: float, width: float, height: float, fill: str, edge: str) -> None:
    """A rounded box around its middle."""
    corner = x - width / 2 + 0.08, y - height / 2 + 0.08
    axis.add_patch(FancyBboxPatch(corner, width - 0.16, height - 0.16, "round,pad=0.08",
                                  facecolor=fill, edgecolor=edge, linewidth=1.8))  # fmt: skip


MODELS_DRAWN = {"gpt": ("continues text", 1.35, GRAY, "white"),
                "sft": ("imitates people", 4.0, ORANGE, "black"),
                "ppo": ("follows the score", 6.65, BLUE, "white")}  # fmt: skip


def flow(axis, lit=("gpt", "sft", "reward", "ppo"), ink="#222222", pale="#c9c9c9") -> None:
    """The three steps as boxes and arrows; those that are not lit are pale."""

    def shade(step: str, color: str = ink) -> str:
        return color if step in lit else pale

    for name, (does, x, color, letters) in MODELS_DRAWN.items():
        box(axis, x, 4.0, 1.7, 0.86, shade(name, color), shade(name, color))
        letters = letters if name in lit else "white"
        axis.text(x, 4.13, MODELS[name], color=letters, fontsize=18, weight="bold", **MIDDLE)
        axis.text(x, 3.78, does, color=letters, fontsize=12.5, **MIDDLE)
    for step, text, x in (("sft", "people write\nanswers", 2.5),
                          ("reward", "people rank\nits answers", 4.93)):  # fmt: skip
        box(axis, x, 5.45, 2.0, 0.86, "white", shade(step))
        axis.add_patch(Circle((x - 0.7, 5.59), 0.1, color=shade(step)))
        axis.add_patch(Wedge((x - 0.7, 5.23), 0.2, 0, 180, color=shade(step)))
        axis.text(x + 0.2, 5.45, text, fontsize=13, color=shade(step), **MIDDLE)
    box(axis, 7.03, 5.45, 1.4, 0.86, shade("reward", GREEN), shade("reward", GREEN))
    axis.text(7.03, 5.45, "reward\nmodel", color="white", fontsize=15, weight="bold", **MIDDLE)
    axis.text(7.4, 4.75, "score", fontsize=13, color=shade("ppo"), **MIDDLE)
    style = {"arrowstyle": "-|>,head_width=0.4,head_length=0.7", "linewidth": 2.4}
    for step, start, end in (("sft", (2.67, 5.02), (2.67, 4.08)), ("sft", (2.2, 4.0), (3.15, 4.0)),
                             ("reward", (4.3, 4.43), (4.3, 5.02)),
                             ("reward", (5.93, 5.45), (6.33, 5.45)),
                             ("ppo", (7.03, 5.02), (7.03, 4.43)),
                             ("ppo", (4.85, 4.0), (5.8, 4.0))):  # fmt: skip
        arrow = {**style, "color": shade(step), "shrinkA": 0, "shrinkB": 2}
        axis.annotate("", end, start, arrowprops=arrow)
    for step, text, x, y in (("sft", "1", 1.54, 5.84), ("reward", "2", 3.97, 5.84),
                             ("ppo", "3", 5.84, 4.37)):  # fmt: skip
        axis.add_patch(Circle((x, y), 0.2, color=shade(step), zorder=3))
        axis.text(x, y - 0.01, text, color="white", weight="bold", fontsize=14, zorder=4, **MIDDLE)


def steps():
    """The three steps, one prompt answered by each policy, and how good the answers are."""
    fig = plt.figure(figsize=(8, 6.6))
    axis = fig.add_axes((0, 0, 1, 1), xlim=(0, 8), ylim=(0, 6.6))
    axis.axis("off")
    title = "From language model to assistant in three steps"
    axis.text(4, 6.28, title, fontsize=18, weight="bold", **MIDDLE)
    flow(axis)
    found, chains = part("chain"), of_seeds("seed")
    axis.plot([0.1, 7.9], [3.17, 3.17], color="#cccccc", linewidth=1.2, zorder=0)
    axis.text(4, 3.17, f"asked: “{found['prompt']}”", fontsize=14, style="italic", **MIDDLE,
              bbox={"facecolor": "white", "edgecolor": "none"})  # fmt: skip
    tints = {"gpt": "#f1f1f1", "sft": "#fdf3dd", "ppo": "#e0eef7"}
    for name, (_, x, color, _) in MODELS_DRAWN.items():
        box(axis, x, 2.06, 2.5, 1.64, tints[name], color)
        answer = f"“{found['answers'][name]['answer']}”"
        lines = textwrap.wrap(answer, 25, max_lines=7, placeholder=" …")
        axis.text(x, 2.06, "\n".join(lines), fontsize=12.5, **MIDDLE)
        value = np.mean(values(chains, "models", name, "gold"))
        axis.barh([0.84, 0.84], [1.75, 1.75 * value], 0.26, x - 1.2, color=["#dcdcdc", color])
        axis.text(x + 0.9, 0.83, f"{value:.2f}", fontsize=18, weight="bold", **MIDDLE)
    asked = chains[0]["models"]["ppo"]["gold"]["n"]
    axis.text(4, 0.34, f"gold: how good its answers to {asked:,} test prompts are, from 0 to 1",
              fontsize=13, **MIDDLE)  # fmt: skip
    return fig


def wins():
    """How often each model is preferred to SFT, as in the paper's Figure 1."""
    fig, axis = picture(
        "PPO is preferred to SFT, and SFT to GPT", y="preferred to SFT; dots: seeds"
    )
    names = {"sft/gpt": "GPT", "sft/prompted": "GPT\nprompted", "ppo/sft": "PPO",
             "ppo_ptx/sft": "PPO-ptx", "round2/sft": "PPO\nround 2",
             "round3/sft": "PPO\nround 3"}  # fmt: skip
    for x, pair in enumerate(names):
        against = pair.startswith("sft/")
        rates = np.abs(against - np.array(values(of_seeds("rounds"), "wins", pair)))
        mean = rates.mean()
        axis.bar(x, mean, color=GRAY if against else BLUE, width=0.7)
        axis.plot([x] * len(rates), rates, "o", color="black", markersize=4)
        axis.text(x, mean - 0.1, f"{mean:.2f}", color="white", weight="bold", **MIDDLE)
    right = np.mean(values(of_seeds("seed"), "wins", "right/sft"))
    for y, text in ((right, f"flawless answers: {right:.2f}"), (0.5, "as good as SFT"),
                    (0.73, "the paper's PPO-ptx to its SFT, 175 B: 0.73")):  # fmt: skip
        axis.axhline(y, color="black", linewidth=1.2, linestyle="--", zorder=0)
        axis.text(-0.45, y + 0.012, text, va="bottom")
    axis.set(xlim=(-0.5, 5.5), ylim=(0, 0.9))
    axis.set_xticks(range(6), names.values(), fontsize=12)
    return fig


def tracks(title: str, y: str, found: dict[str, list[list[float]]], names: list[str]):
    """Means over seeds from one model to the next, and each seed's points."""
    fig, axis = picture(title, y=y)
    for (label, points), color, mark in zip(found.items(), (BLUE, ORANGE, GREEN), "os^"):
        axis.plot(np.mean(points, axis=1), f"{mark}-", color=color, linewidth=2.5, label=label)
        axis.plot(points, mark, color=color, alpha=0.4, markersize=4)
    axis.set_xticks(range(len(names)), names, fontsize=12)
    if len(found) > 1:
        axis.legend(frameon=False)
    return fig


def rounds():
    """Gold after each round, and after round 2 with all comparisons sampled from SFT."""
    names = {"sft": "SFT", "ppo": "round 1", "round2": "round 2", "round3": "round 3"}
    results = of_seeds("rounds")
    golds = [values(results, "models", name, "gold") for name in names]
    fig = tracks("Most is gained in the first round", "gold, test prompts",
                 {"comparisons of the newest policy": golds}, names.values())  # fmt: skip
    axis, gains = fig.axes[0], values(of_seeds("control"), "gain")
    others = [golds[1], np.subtract(golds[2], gains)]
    axis.plot([1, 2], np.mean(others, axis=1), "D--", color=GRAY, label="all of SFT's answers")
    axis.set_ylim(0.5, 0.9)
    axis.legend(frameon=False, loc="lower right")
    return fig


def tax():
    """The skills of the web before and after, by the coefficient of the pretraining gradient."""
    results, others, found = of_seeds("rounds"), of_seeds("ptx"), {}
    for skill, label in SKILLS.items():
        models = [values(results, "models", x, f"tax_{skill}") for x in list(STEPS)[:4]]
        less, more = (values(others, coef, f"tax_{skill}") for coef in ("0.1", "2.0"))
        found[label] = [*models[:3], less, models[3], more]
    names = ["GPT", "SFT", "PPO", "PPO-ptx\n0.1", "PPO-ptx\n0.5", "PPO-ptx\n2.0"]
    return tracks("Where SFT costs a skill, PPO-ptx restores it", "share right", found, names)


def calibration():
    """How often held-out labelers preferred what the reward model preferred by so much."""
    fig, axis = picture("The reward model knows how sure to be",
                        "preference that it predicts", "share of held-out labelers")  # fmt: skip
    for seed, color, mark in zip(SEEDS, (BLUE, ORANGE, GREEN), "os^"):
        points = part(f"seed{seed}")["calibration"]
        x, y = [[p[key] for p in points] for key in ("predicted", "value")]
        axis.errorbar(x, y, errors(points), fmt=f"{mark}-", color=color, label=f"seed {seed}")
    axis.plot([0, 1], [0, 1], color="black", linewidth=1, linestyle="--")
    axis.legend(frameon=False)
    return fig


def optimum():
    """The reward model's score and gold against the square root of KL, to the same scale."""
    results = part("optimum")
    ways = {
        "beta 0.0": ("PPO without penalty", COLORS["beta 0"], "-o"),
        "beta 0.05": ("beta 0.05", COLORS["beta 0.05"], "--s"),
        "beta 0.15": ("beta 0.15", COLORS["beta 0.15"], "-.^"),
        "best_of_n": ("best of n", COLORS["best of n"], ":D"),
    }
    far = [max(p["kl"] for p in curves["beta 0.0"]) ** 0.5 + 0.4 for curves in results.values()]
    fig, axes = plt.subplots(2, 2, figsize=(8, 6.6), sharex="col", sharey="row",
                             layout="constrained", width_ratios=far)  # fmt: skip
    for curves, column, end in zip(results.values(), axes.T, far):
        for axis, key in zip(column, ("score", "gold")):
            axis.spines[["top", "right"]].set_visible(False)
            axis.set_xlim(-0.2, end)
            for name, (label, color, style) in ways.items():
                # The best of 1 is a start of its own.
                start = [] if name == "best_of_n" else [{"kl": 0.0, **curves["start"]}]
                points = [(max(0.0, p["kl"]) ** 0.5, p[key]) for p in start + curves[name]]
                axis.plot(*zip(*points), style, color=color, label=label, linewidth=2.5,
                          markersize=8, markevery=[-1])  # fmt: skip
    few, many = (f"{int(count):,}" for count in results)
    for axis, text in zip(axes[0], (f"reward model of {few} comparisons", f"of {many}")):
        axis.set_title(text, fontsize=14, weight="normal")
    axes[0, 0].set_ylabel("reward model's score")
    axes[1, 0].set_ylabel("gold")
    axes[1, 0].legend(frameon=False, loc="upper right")
    fig.supxlabel("square root of KL to SFT, in nats")
    fig.suptitle("The score goes on rising while gold falls", fontsize=17, weight="bold")
    return fig


def main() -> None:
    drawn = tables()
    for file in (ROOT / "README.md", RESULTS / "README.md"):
        text = file.read_text(encoding="utf-8")
        for name, lines in drawn.items():
            marks = rf"(<!-- table {name} -->\n).*?(<!-- end -->)"
            text = re.sub(marks, lambda mark: f"{mark[1]}{lines}\n{mark[2]}", text, flags=re.DOTALL)
        file.write_text(text, encoding="utf-8")
    with plt.rc_context(STYLE):
        for draw in (steps, wins, rounds, tax, calibration, optimum):
            draw().savefig(RESULTS / f"{draw.__name__}.png", dpi=150)


if __name__ == "__main__":
    main()
