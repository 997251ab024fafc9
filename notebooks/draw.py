"""Draws every table and picture of the README from notebooks/published/: python notebooks/draw.py

Tables are written into README.md between their marks, pictures beside the figures they show.
"""

import json
import math
import re

import matplotlib.pyplot as plt
import numpy as np
from lab import BLUE, GRAY, GREEN, ORANGE, ROOT

RESULTS = ROOT / "notebooks" / "published"
SEEDS = (0, 1, 2)
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
}
SKILLS = {"lomi": "translation", "reading": "reading", "cloze": "story cloze"}


def part(name: str) -> dict:
    file = RESULTS / f"{name}.json"
    return json.loads(file.read_text()) if file.exists() else {}


def of_seeds(kind: str) -> list[dict]:
    """The parts kind0, kind1 and kind2, those that are there."""
    return list(filter(None, (part(f"{kind}{seed}") for seed in SEEDS)))


def cell(entry: dict | None) -> str:
    return f"{entry['value']:.2f} [{entry['low']:.2f}, {entry['high']:.2f}]" if entry else "–"


def table(*rows: list) -> str:
    lines = ["| " + " | ".join(map(str, row)) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])


def judged(chain: dict) -> dict:
    """How well labelers are foretold: by reward.py, on more prompts, or else by evaluate.py."""
    return {**chain["labelers"], **chain["histories"]["reward"][-1]}


def spread(results: list[dict], *keys: str) -> str:
    """The mean over the seeds that there are, and the lowest and the highest."""
    found = values([result for result in results if result], *keys)
    return f"{np.mean(found):.2f} ({min(found):.2f} to {max(found):.2f})"


def further_tables() -> dict[str, str]:
    """What is repeated, mixed in, varied or broken: name -> Markdown, of the parts at hand."""
    found = {}
    rounds, ptx = ([part(f"{kind}{seed}") for seed in SEEDS] for kind in ("rounds", "ptx"))
    if any(rounds):
        names = {"sft": "SFT", "ppo": "round 1", "round2": "round 2", "round3": "round 3"}
        lines = []
        for name, label in names.items():
            gold = [spread(rounds, "models", name, m) for m in ("gold", "gold_phrasing")]
            wins = [spread(rounds, "wins", f"{name}/sft", *by) for by in ((), ("gold",))
                    if name != "sft"]  # fmt: skip
            lines.append([label, *gold, *(wins or "––")])
        found["rounds"] = table(["", "gold, test prompts", "gold, phrasings never seen",
                                 "preferred to SFT", "by gold"], *lines)  # fmt: skip
    if any(rounds) and (three := part("longer")):
        found["longer"] = longer(rounds, three, part("longer_rounds"))
    if controls := {seed: entry for seed in SEEDS if (entry := part(f"control{seed}"))}:
        lines = [[seed, label, *(cell(e[x]) for x in ("newest", "control", "gain",
                                                      "newest/control"))]
                 for seed, control in controls.items() for label, e in control.items()]  # fmt: skip
        found["control"] = table(["seed", "gold, test prompts", "newest policy's", "all of SFT",
                                  "difference", "the newest preferred"], *lines)  # fmt: skip
    if any(rounds) and any(ptx):
        skills = ("gold", *(f"tax_{skill}" for skill in SKILLS))
        names = {"gpt": "GPT", "sft": "SFT", "ppo": "PPO", "ppo_ptx": "PPO-ptx, coefficient 0.5"}
        lines = [[label, *(spread(rounds, "models", name, m) for m in skills)]
                 for name, label in names.items()]  # fmt: skip
        for coef in sorted(next(filter(None, ptx)), key=float):
            lines.append([f"PPO-ptx, {coef}", *(spread(ptx, coef, m) for m in skills)])
        found["ptx"] = table(["", "gold", *SKILLS.values()], *lines)
    if room := part("room"):
        lines = [[name, e["demonstrations"], *map(cell, (e["sft"], e["ppo"], e["ppo/sft"])),
                  f"{e['ppo/sft']['gold']:.2f}", cell(e["right/sft"])]
                 for name, e in room.items()]  # fmt: skip
        found["room"] = table(["demonstrations", "", "gold: SFT", "PPO", "PPO preferred to SFT",
                               "by gold", "right answers preferred to SFT"], *lines)  # fmt: skip
    if faults := part("faults"):
        keys = ("score", "kl", "entropy", "explained_variance", "length", "no_eos", "clipfrac")
        lines = [[name, *(f"{e[key]:.2f}" for key in keys), cell(e["gold"])]
                 for name, e in faults.items()]  # fmt: skip
        found["faults"] = table(["what is wrong", "score", "kl", "entropy", "ev", "length",
                                 "no eos", "clipfrac", "gold"], *lines)  # fmt: skip
    if optimum := part("optimum"):
        samples = optimum[min(optimum, key=int)]["samples 0.0"][:4]
        lines = [[e["prompt"], e["answer"].replace("\n", " ⏎ "), f"{e['gold']:.2f}"]
                 for e in samples]  # fmt: skip
        found["hacked"] = table(["prompt", "answer", "gold"], *lines)
    return found


def longer(less: list[dict], more: dict, later: dict) -> str:
    """Seeds with the default pretraining beside a chain with more of it and its later rounds."""
    names = {"sft": "SFT", "ppo": "PPO", "ppo_ptx": "PPO-ptx", "round2": "round 2",
             "round3": "round 3"}  # fmt: skip
    metrics = {"gold": "gold", "gold_phrasing": "phrasings never seen",
               "constraint": "every constraint kept", "unanswerable": "not in the text: says so",
               "answered": "in the text: answered right"}  # fmt: skip
    models, wins = ({**later.get(kind, {}), **more[kind]} for kind in ("models", "wins"))
    few, many = (f"{chain['histories']['pretrain'][-1]['tokens'] / 1e6:.1f} M"
                 for chain in (part("seed0"), more))  # fmt: skip
    lines = []
    for name, label in names.items():
        pair, shares = f"{name}/sft", [spread(less, "models", name, m) for m in metrics]
        against = [spread(less, "wins", pair, *by) for by in ((), ("gold",)) if name != "sft"]
        lines.append([label, few, *shares, *(against or "––")])
        if name in models:
            shares = [f"{models[name][m]['value']:.2f}" for m in metrics]
            against = [cell(wins[pair]), f"{wins[pair]['gold']:.2f}"] if pair in wins else "––"
            lines.append([label, many, *shares, *against])
    return table(["", "pretraining", *metrics.values(), "preferred to SFT", "by gold"], *lines)


def story(first: dict) -> str:
    """The paper's claims in its own order: what was measured, and what makes it."""

    def path(metric: str, *names: str) -> str:
        found = (first["models"][name][metric]["value"] for name in names or list(MODELS)[1:])
        return " → ".join(f"{value:.2f}" for value in found)

    def share(pair: str) -> str:
        return f"{first['wins'][pair]['value']:.2f}"

    again = [f"{np.mean(values(of_seeds('rounds'), 'models', name, 'gold')):.2f}"
             for name in ("ppo", "round2", "round3")]  # fmt: skip
    foretold, unprompted, ptx = judged(first), ("gpt", "sft", "ppo"), part("rounds0")
    restored = [f"{ptx['models']['ppo_ptx'][skill]['value']:.2f}" if ptx else "–"
                for skill in ("tax_lomi", "tax_reading")]  # fmt: skip
    lines = [
        ("a language model continues text", f"gold {path('gold', 'gpt')}, behind a page of "
         f"examples {path('gold', 'prompted')}", "pretrain.py"),
        ("step 1: it is fine-tuned on labelers' demonstrations", f"gold {path('gold', 'sft')}; "
         f"preferred to GPT in {share('sft/gpt')}", "sft.py"),
        ("step 2: a reward model learns from labelers' rankings", "orders a pair as another "
         f"labeler does in {foretold['rm_heldout']['value']:.2f}; two labelers agree in "
         f"{foretold['agreement']['value']:.2f} where neither ties", "reward.py"),
        ("step 3: PPO follows its reward", f"gold {path('gold', 'ppo')}; preferred to SFT in "
         f"{share('ppo/sft')}", "ppo.py"),
        ("steps 2 and 3 are repeated", f"gold {' → '.join(again)} (the mean of three seeds)",
         "reward.py --round 2 && python ppo.py --round 2"),
        ("preferred to GPT-3, also to a prompted one", f"{share('ppo/gpt')} and "
         f"{share('ppo/prompted')}", "evaluate.py"),
        ("keeps explicit constraints", path("constraint"), "evaluate.py"),
        ("invents less in a closed domain", path("hallucination"), "evaluate.py"),
        ("gives more true and informative answers", path("truthful_informative"), "evaluate.py"),
        ("is less toxic when asked to be respectful", path("toxic_respectful"), "evaluate.py"),
        ("may lose other skills: translation, reading",
         f"GPT → SFT → PPO: {path('tax_lomi', *unprompted)}, {path('tax_reading', *unprompted)}",
         "evaluate.py"),
        ("PPO-ptx brings most of it back", " and ".join(restored), "ppo.py --ptx-coef 0.5"),
        ("still takes false premises as true", path("false_premise"), "evaluate.py"),
        ("still hedges where it need not", path("hedging"), "evaluate.py"),
    ]  # fmt: skip
    head = ["the paper's story", "here: GPT prompted → SFT → PPO, if not said otherwise", "made by"]
    return table(head, *([claim, found, f"`python {script}`"] for claim, found, script in lines))


def tables() -> dict[str, str]:
    """The README's tables: name -> Markdown."""
    seeds = [part(f"seed{seed}") for seed in SEEDS]
    first = seeds[0]["models"]

    def rows(labels: dict) -> list[list]:
        return [[label, first["ppo"][metric]["n"],
                 *(cell(first[name].get(metric)) for name in MODELS)]
                for metric, label in labels.items()]  # fmt: skip

    def names(pair: str) -> str:
        return " to ".join({**MODELS, "right": "right answers"}[name] for name in pair.split("/"))

    foretold = judged(seeds[0])
    claims = rows({metric: label for metric, (label, _) in CLAIMS.items()})
    wins = seeds[0]["wins"].items()
    lines = []
    for seed, result in zip(SEEDS, seeds):
        models, against = result["models"], result["wins"]["ppo/sft"]
        seconds = result["step_seconds"]
        lines.append([
            seed,
            *(", ".join(f"{models[name][metric]['value']:.2f}" for name in MODELS)
              for metric in ("gold", "gold_phrasing")),
            f"{models['ppo']['swapped']['value']:.2f}", cell(against), f"{against['gold']:.2f}",
            cell(result["wins"]["ppo/prompted"]), f"{result['kl']:.1f}",
            f"{sum(seconds.values()):.0f} s",
        ])  # fmt: skip
    return {
        "story": story(seeds[0]),
        "models": table(["0 to 1, mean [95 % interval]", "n", *MODELS.values()], *rows(GOLD)),
        "wins": table(["preferred by held-out labelers, ties left out", "untied", "share",
                       "by gold"],
                      *([names(pair), e["n"], cell(e), f"{e['gold']:.2f}"] for pair, e in wins)),
        "labelers": table(["the reward model, on prompts it was not trained on", "pairs",
                           "accuracy"],
                          *([label, foretold[name]["n"], cell(foretold[name])]
                            for name, label in LABELERS.items() if name in foretold)),
        "claims": table(["share of answers", "n", *MODELS.values(), "the paper"],
                        *(row + [paper] for row, (_, paper) in zip(claims, CLAIMS.values()))),
        "seeds": table(["seed", "gold: GPT, prompted, SFT, PPO", "phrasings never seen",
                        "swapped, PPO", "PPO preferred to SFT", "by gold",
                        "PPO preferred to prompted", "KL to SFT", "time"], *lines),
    }  # fmt: skip


def values(results: list[dict], *keys: str) -> list[float]:
    """One entry of every seed's results: a number, or the value of an interval."""
    found = []
    for result in results:
        for key in keys:
            result = result[key]
        found.append(result["value"] if isinstance(result, dict) else result)
    return found


def picture(name: str, columns: int = 1):
    figure, axes = plt.subplots(1, columns, figsize=(4.4 * columns, 3.4), layout="constrained")
    for axis in np.atleast_1d(axes):
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes, RESULTS / f"{name}.png"


def draw_wins() -> None:
    """How often each model is preferred to SFT, as in the paper's Figure 1."""
    results = [part(f"rounds{seed}") or part(f"seed{seed}") for seed in SEEDS]
    figure, axis, file = picture("wins")
    shown = {
        "GPT": "sft/gpt",
        "prompted": "sft/prompted",
        "PPO": "ppo/sft",
        "PPO-ptx": "ppo_ptx/sft",
        "round 2": "round2/sft",
        "round 3": "round3/sft",
    }
    shown = {label: pair for label, pair in shown.items() if pair in results[0]["wins"]}
    for x, pair in enumerate(shown.values()):
        rates = np.array(values([r for r in results if pair in r["wins"]], "wins", pair))
        rates = 1 - rates if pair.startswith("sft/") else rates
        axis.bar(x, rates.mean(), color=GRAY if pair.startswith("sft/") else BLUE, width=0.65)
        axis.plot([x] * len(rates), rates, "o", color="black", markersize=3)
    axis.axhline(0.5, color="black", linewidth=0.8, linestyle="--")
    axis.set_xticks(range(len(shown)), shown, fontsize=8)
    axis.set_ylim(0, 1)
    axis.set_ylabel("preferred to SFT by held-out labelers")
    axis.set_title("PPO is preferred to SFT, and SFT to GPT", fontsize=10)
    figure.savefig(file, dpi=150)


def draw_rounds() -> None:
    """Gold after each round: every seed, and their mean."""
    figure, axis, file = picture("rounds")
    results = of_seeds("rounds")
    curves = np.array([values(results, "models", name, "gold")
                       for name in ("sft", "ppo", "round2", "round3")])  # fmt: skip
    axis.plot(range(4), curves, color=BLUE, alpha=0.3, linewidth=1)
    axis.plot(range(4), curves.mean(axis=1), "o-", color=BLUE)
    axis.set_xticks(range(4), ["SFT", "round 1", "round 2", "round 3"])
    axis.set_ylabel("gold, test prompts")
    axis.set_title("Most is gained in the first round", fontsize=10)
    figure.savefig(file, dpi=150)


def draw_tax() -> None:
    """The skills of the web before and after, by the coefficient of the pretraining gradient."""
    figure, axis, file = picture("tax")
    rounds, others = of_seeds("rounds"), of_seeds("ptx")
    coefs = sorted(others[0], key=float)
    for skill, color in zip(SKILLS, (BLUE, ORANGE, GREEN)):
        metric, marks = f"tax_{skill}", {}
        for name, label in (("gpt", "GPT"), ("sft", "SFT"), ("ppo", "PPO")):
            marks[label] = values(rounds, "models", name, metric)
        marks[f"ptx {coefs[0]}"] = values(others, coefs[0], metric)
        marks["ptx 0.5"] = values(rounds, "models", "ppo_ptx", metric)
        marks[f"ptx {coefs[1]}"] = values(others, coefs[1], metric)
        means = [np.mean(v) for v in marks.values()]
        axis.plot(range(6), means, "o-", color=color, label=SKILLS[skill])
        for x, seeds in enumerate(marks.values()):
            axis.plot([x] * len(seeds), seeds, ".", color=color, alpha=0.4)
    axis.set_xticks(range(6), marks, fontsize=8)
    axis.set_ylabel("share right")
    axis.set_title("What alignment costs, and PPO-ptx restores", fontsize=10)
    axis.legend(frameon=False, fontsize=8)
    figure.savefig(file, dpi=150)


def draw_optimum() -> None:
    """The reward model's score and gold against the square root of KL."""
    results = part("optimum")
    figure, axes, file = picture("optimum", columns=2)
    for axis, (count, curves) in zip(axes, sorted(results.items(), key=lambda x: int(x[0]))):
        second = axis.twinx()
        betas = [name for name in curves if name.startswith("beta")]
        for name, color in zip([*betas, "best_of_n"], (BLUE, ORANGE, GREEN, GRAY)):
            start = [] if name == "best_of_n" else [{"kl": 0.0, **curves["start"]}]
            points = [*start, *curves[name]]  # the best of 1 is a start of its own
            distance = [math.sqrt(max(0.0, point["kl"])) for point in points]
            label = name.replace("_", " ").replace("beta", "PPO, beta")
            axis.plot(distance, [p["gold"] for p in points], color=color, label=label)
            second.plot(distance, [p["score"] for p in points], color=color, linestyle=":")
        axis.set_xlabel("square root of KL to SFT, in nats")
        axis.set_ylabel("gold (lines)")
        second.set_ylabel("reward model's score (dots)")
        axis.set_title(f"reward model of {count} comparisons", fontsize=10)
    handles = axes[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    figure.savefig(file, dpi=150)


def draw_calibration() -> None:
    """How often held-out labelers preferred what the reward model preferred by so much."""
    figure, axis, file = picture("calibration")
    for seed, color in zip(SEEDS, (BLUE, ORANGE, GREEN)):
        points = part(f"seed{seed}").get("calibration", [])
        below = [p["value"] - p["low"] for p in points], [p["high"] - p["value"] for p in points]
        axis.errorbar([p["predicted"] for p in points], [p["value"] for p in points], below,
                      fmt="o-", color=color, markersize=3, label=f"seed {seed}")  # fmt: skip
    axis.plot([0, 1], [0, 1], color="black", linewidth=0.8, linestyle="--")
    axis.set_xlabel("preference that the reward model predicts")
    axis.set_ylabel("share of held-out labelers")
    axis.set_title("Nearly as right as it is sure; too sure at the ends", fontsize=10)
    axis.legend(frameon=False, fontsize=8)
    figure.savefig(file, dpi=150)


if __name__ == "__main__":
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for name, text in {**tables(), **further_tables()}.items():
        marks = rf"(<!-- table {name} -->\n).*?(<!-- end -->)"
        parts = re.split(marks, readme, flags=re.DOTALL)
        assert len(parts) == 4, f"README.md does not have one place for the table {name}"
        readme = parts[0] + parts[1] + text + "\n" + parts[2] + parts[3]
    (ROOT / "README.md").write_text(readme, encoding="utf-8")
    pictures = {
        draw_wins: ["seed0"], draw_calibration: ["seed0"], draw_rounds: ["rounds0"],
        draw_tax: ["rounds0", "ptx0"], draw_optimum: ["optimum"],
    }  # fmt: skip
    for draw, needs in pictures.items():
        if all(part(name) for name in needs):
            draw()
