"""InstructGPT against GPT-3: the models side by side on prompts that none of them has seen.

    python evaluate.py                 about 65 s on two CPU cores
    python evaluate.py --prompt "..."  every model's answer to your own prompt

GPT is the base model with the bare prompt; "prompted" is the same model behind a page of examples,
in the best of three formats on validation prompts (with --prompt in the first); then come the SFT
and the PPO model. All answers are sampled at temperature 1; only the skills of the web are not.
`gold` is the labelers' mean taste without noise, from 0 to 1: no model was trained on it. Wins are
judged by labelers whose rankings trained nothing, one per pair, ties left out.

Differences from the paper
  1. Labelers and judges are programs, one labeler per pair; ties are left out of the win rates.
  2. The page of examples is chosen by gold; the paper's by its reward model's score.
  3. The paper's claims are about GPT-3 behind a prompt where it says so; here whether one holds is
     told by the difference to prompted GPT, and of the web's skills by the difference to GPT.

Reads out/*.pt, out/comparisons.jsonl, data/valid.jsonl, test*.jsonl and probes/; writes
out/evaluate.json. ppo_ptx.pt, ppo2.pt and ppo3.pt are evaluated where they are at hand.
"""

import json
import os
import random
import re
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from data import judges, world
from data.checkpoints import load, load_round, pick_device
from data.files import UserError, option, read_jsonl, run, write_text
from data.labelers import LABELERS, agreement, gold, interval, rate, report, sentences_of
from data.tokenizer import Tokenizer
from model import GPT, generate, join
from reward import sample_responses, score_texts


@dataclass
class Config:
    prompt: str = option("", "print every model's answer to this prompt, and nothing else")
    count: int = option(1200, "prompts of each test set and probe, at most")
    max_new: int = option(64, "longest response in tokens")
    samples: int = option(3, "prompts whose answers are printed side by side")
    out: str = option("out", "folder of checkpoints and results")
    device: str = option("auto", "auto, cpu, cuda, mps")
    seed: int = option(0, "of sampling")
    FAST = {"count": 40}


MODELS = {
    "gpt": ("base.pt", "python pretrain.py"),
    "sft": ("sft.pt", "python sft.py"),
    "ppo": ("ppo.pt", "python ppo.py"),
    # Evaluated where they are at hand.
    "ppo_ptx": ("ppo_ptx.pt", "python ppo.py --ptx-coef"),
    "round2": ("ppo2.pt", "python ppo.py --round 2"),
    "round3": ("ppo3.pt", "python ppo.py --round 3"),
}
REQUIRED = ("gpt", "sft", "ppo")
SETS = {"gold": "test", "gold_phrasing": "test_phrasing", "gold_entity": "test_entity"}
# "right" are a careful writer's right answers: the most that labelers who slip can give a model.
PAIRS = (("sft", "gpt"), ("sft", "prompted"), ("ppo", "gpt"), ("ppo", "prompted"), ("ppo", "sft"),
         ("ppo_ptx", "sft"), ("round2", "sft"), ("round3", "sft"),
         ("right", "gpt"), ("right", "prompted"), ("right", "sft"))  # fmt: skip
# Few-shot pages: what stands before an example's question, before its answer, and behind it.
FORMATS = (("Q: ", "\nA: ", "\n\n"), ("User: ", "\nReply: ", "\n\n"), ("", "\n", "\n\n"))
SHOTS = ("generation", "open_qa", "brainstorming", "chat")


def read_prompts(name: str) -> list[str]:
    return [record["prompt"] for record in read_jsonl(f"data/{name}.jsonl", "prompt")]


def few_shot_page(style: tuple[str, str, str], seed: int) -> str:
    """Right answers to training prompts of the most frequent uses, one below the other."""
    rng, page = random.Random(seed), ""
    for use in SHOTS:
        prompt = world.sample(rng, tasks=[t for t in world.TASKS if t.use == use], limits=())
        page += style[0] + prompt + style[1] + world.answer(world.parse(prompt), rng) + style[2]
    return page


def go_on(model, tokenizer, rows: list[list[int]], max_new: int, temperature=1.0) -> list[str]:
    """How the model goes on after each row of tokens, in batches."""
    texts: list[str] = []
    for at in range(0, len(rows), 256):
        responses = generate(model, rows[at : at + 256], max_new, tokenizer.eos, temperature)
        texts += [tokenizer.decode(r) for r in responses]
    return texts


def answer_all(
    model, tokenizer, prompts: list[str], max_new: int, style=None, page=""
) -> list[str]:
    """A sampled response to each prompt; with a style, as the next example of a few-shot page.

    A prompted model goes on with further examples: its answer is the first line.
    """
    if style is None:
        return go_on(model, tokenizer, [tokenizer.prompt(prompt) for prompt in prompts], max_new)
    pages = [page + style[0] + prompt + style[1].rstrip(" ") for prompt in prompts]
    texts = go_on(model, tokenizer, [tokenizer.open_document(p) for p in pages], max_new)
    return [text.strip().split("\n")[0] for text in texts]


def right_answers(prompts: list[str]) -> list[str]:
    return [world.answer(world.parse(p), random.Random(p)) for p in prompts]


@torch.no_grad()
def taxes(model, tokenizer, closed: list[str], count: int, max_new: int) -> dict[str, list[float]]:
    """Skills that alignment may cost, as on the pages of the web and greedily: 1.0 where right.

    tax_lomi     a sentence is translated without a mistake, after two examples
    tax_reading  a question on a text is answered right behind "Q:" and "A:"
    tax_cloze    of four ways for a story to go on, its own is the most probable
    """
    lomi = read_jsonl("data/probes/tax_lomi.jsonl", "prompt", "completion")[:count]
    cloze = read_jsonl("data/probes/tax_cloze.jsonl", "prompt", "completions", "ranks")[:count]
    cut = [sentences_of(prompt) for prompt in closed]
    reading = [" ".join(parts[:-1]) + f"\nQ: {parts[-1]}\nA:" for parts in cut]
    rows = [tokenizer.open_document(page) for page in [r["prompt"] for r in lomi] + reading]
    lines = [t.split("\n")[0].strip() for t in go_on(model, tokenizer, rows, max_new, 0.0)]
    fits = []
    for record in cloze:
        ways = [tokenizer.open_document(text) for text in record["completions"]]
        page = [tokenizer.open_document(record["prompt"])] * len(ways)
        logp = model.logprobs(
            *join(page, ways, tokenizer.pad, model.config.context, model.wte.weight.device)
        )
        fits.append(float(logp.sum(dim=1).argmax().item() == 0))
    return {"tax_lomi": [float(a == r["completion"]) for a, r in zip(lines, lomi)],
            "tax_reading": [float(judges.right(p, a)) for p, a in zip(closed, lines[len(lomi) :])],
            "tax_cloze": fits}  # fmt: skip


def win_rate(prompts: list[str], one: list[str], other: list[str], seed: int, first: int) -> dict:
    """How often a labeler prefers one answer, ties left out, and how often gold does.

    One labeler judges each pair, of the half of them that begins with `first`, knowing neither
    model; ratings do not depend on the order.
    """
    hits, counts, gold_hits, gold_counts = [], [], 0, 0
    for i, (prompt, a, b) in enumerate(zip(prompts, one, other)):
        labeler = first + i % (LABELERS // 2)
        x, y = rate(labeler, prompt, [a, b], seed)
        hits.append(x > y)
        counts.append(x != y)
        truth = gold(prompt, a) - gold(prompt, b)
        gold_hits, gold_counts = gold_hits + (truth > 0), gold_counts + (truth != 0)
    topics = list(map(world.topic, prompts))
    return {**interval(hits, counts, topics), "gold": gold_hits / max(1, gold_counts)}


def swapped(model, tokenizer, prompts: list[str], max_new: int) -> list[float]:
    """Closed-domain questions whose text is changed: 1.0 where the answer follows the change.

    The asked-for color, thing or person of the text is replaced by another one, and the answer to
    the new prompt must be right for the new text.
    """
    rng = random.Random(0)
    new = []
    for prompt in prompts:
        request = world.parse(prompt)
        key = {"read_what": "thing", "read_color": "color", "read_who": "name"}[request.task.name]
        old = request.slots[key]
        words = [w for w in world.FAMILIAR[key] if w not in request.slots.values()]
        changed = [re.sub(rf"\b{old}\b", word, prompt, count=1) for word in words]
        unseen = [p for p in changed if world.split(p) == "test"]
        new.append(rng.choice(unseen or changed))
    texts = answer_all(model, tokenizer, new, max_new)
    return [float(judges.right(p, t)) for p, t in zip(new, texts)]


def main(config: Config) -> dict:
    """Evaluates all models; prints the tables, writes and returns out/evaluate.json's content."""
    start = time.time()
    device, tokenizer = pick_device(config.device), Tokenizer.of(config.out)
    torch.manual_seed(config.seed)
    out = Path(config.out)
    models = {}
    for name, (file, command) in MODELS.items():
        path = out / file
        if not path.exists() and (config.prompt or name not in REQUIRED):
            continue
        sft = out / "sft.pt"
        extra = name not in REQUIRED and sft.exists()
        if extra and os.path.getmtime(path) < os.path.getmtime(sft):
            print(f"left out: {path} is older than {sft}; run {command} again")
            continue
        models[name], _ = load(path, command, tokenizer.size, device, GPT)
    names = list(models)
    if tokenizer.own and not config.prompt:
        raise UserError(f"{out} has a vocabulary of its own, the tests another: use --prompt")
    if "gpt" in models and not tokenizer.own:  # the page of examples is of the small world
        names.insert(1, "prompted")
    reward_model, _ = load_round(out, "reward", 1, tokenizer.size, device)
    # 1. The best few-shot format, chosen on validation prompts.
    valid = read_prompts("valid")[: min(300, config.count)]
    pages = [few_shot_page(style, config.seed) for style in FORMATS]

    def ask(name: str, prompts: list[str], style: int) -> list[str]:
        if name != "prompted":
            return answer_all(models[name], tokenizer, prompts, config.max_new)
        like, page = FORMATS[style], pages[style]
        return answer_all(models["gpt"], tokenizer, prompts, config.max_new, like, page)

    def golds(prompts: list[str], texts: list[str]) -> list[float]:
        return [gold(p, t) for p, t in zip(prompts, texts)]

    if config.prompt:
        for name in names:
            text = ask(name, [config.prompt], 0)[0]
            score = score_texts(reward_model, tokenizer, [config.prompt], [text])[0]
            print(f"{name:9} reward {score:6.2f} | {text!r}")
        return {}
    best = max(range(len(FORMATS)), key=lambda i: sum(golds(valid, ask("prompted", valid, i))))
    # 2. Every model answers every test set and every probe: a value for each prompt.
    prompts = {metric: read_prompts(file)[: config.count] for metric, file in SETS.items()}
    probes = {probe: read_prompts(f"probes/{probe}")[: config.count]
              for measure in judges.RATES.values() for probe in measure.probes}  # fmt: skip
    texts, values = {}, {name: {} for name in names}
    uses = [world.parse(p).task.use for p in prompts["gold"]]
    for name in tqdm(names, "evaluate", leave=False, disable=None):
        torch.manual_seed(config.seed)  # an answer does not depend on the models before
        for metric in SETS:
            texts[name, metric] = ask(name, prompts[metric], best)
            values[name][metric] = golds(prompts[metric], texts[name, metric])
        for use in dict.fromkeys(uses):
            values[name][f"gold_{use}"] = [
                v for v, u in zip(values[name]["gold"], uses) if u == use
            ]
        answers = {
            probe: list(zip(asked, ask(name, asked, best))) for probe, asked in probes.items()
        }
        for metric, measure in judges.RATES.items():
            values[name][metric] = [
                float(measure.judge(p, t)) for probe in measure.probes for p, t in answers[probe]
            ]
        # 3. The closed domain, with the text swapped under the question; the web's own skills.
        if name != "prompted":
            model, closed = models[name], probes["closed_qa"]
            values[name]["swapped"] = swapped(model, tokenizer, closed, config.max_new)
            values[name] |= taxes(model, tokenizer, closed, config.count, config.max_new)
    # Prompts about the same are drawn together, and differences are paired by prompt.
    topics = {metric: list(map(world.topic, asked)) for metric, asked in prompts.items()}
    for use in dict.fromkeys(uses):
        topics[f"gold_{use}"] = [t for t, u in zip(topics["gold"], uses) if u == use]
    for metric, measure in judges.RATES.items():
        topics[metric] = [world.topic(p) for probe in measure.probes for p in probes[probe]]
    results = {
        "models": {name: {m: interval(v, topics=topics.get(m)) for m, v in mine.items()}
                   for name, mine in values.items()},
        "differences": {}, "wins": {}, "wins_own": {},
    }  # fmt: skip
    for one, other in (("prompted", "gpt"), ("sft", "prompted"), ("ppo", "prompted"),
                       ("ppo", "gpt"), *((name, "sft") for name in names[3:])):  # fmt: skip
        for metric in [m for m in values[one] if m in values[other]]:
            gains = np.subtract(values[one][metric], values[other][metric])
            results["differences"][f"{metric} {one}-{other}"] = interval(
                gains, topics=topics.get(metric)
            )
    # 4. Wins; then the reward model beside the labelers, on four SFT samples of each of these
    # validation prompts.
    texts["right", "gold"] = right_answers(prompts["gold"])
    for one, other in PAIRS:
        if (one, "gold") in texts:
            both = prompts["gold"], texts[one, "gold"], texts[other, "gold"], config.seed
            results["wins"][f"{one}/{other}"] = win_rate(*both, LABELERS // 2)
            results["wins_own"][f"{one}/{other}"] = win_rate(*both, 0)
    torch.manual_seed(config.seed)
    four = sample_responses(models["sft"], tokenizer, valid, [4] * len(valid), config.max_new)
    flat = [(p, t) for p, group in zip(valid, four) for t in group]
    scores = score_texts(reward_model, tokenizer, *map(list, zip(*flat)))
    results["labelers"] = report(valid, four, scores, config.seed)
    if (out / "comparisons.jsonl").exists():
        comparisons = read_jsonl(out / "comparisons.jsonl", "prompt", "completions", "ranks")
        if all("labeler" in c for c in comparisons):  # a file of yours may name none
            results["labelers"]["agreement"] = agreement(comparisons, config.seed)
    results |= {
        "few_shot_format": FORMATS[best][0],
        "seed": config.seed,
        "seconds": time.time() - start,
    }
    show(results)
    shown = min(config.samples, len(prompts["gold"]))
    for i in random.Random(config.seed).sample(range(len(prompts["gold"])), shown):
        prompt = prompts["gold"][i]
        print(f"\n> {prompt}")
        for name in names:
            text = texts[name, "gold"][i]
            print(f"  {name:9} gold {gold(prompt, text):.2f} | {text!r}")
    write_text(out / "evaluate.json", json.dumps(results, indent=1) + "\n")
    print(f"\nwrote {out}/evaluate.json in {results['seconds']:.0f} s")
    return results


def verdict(metric: str, difference: dict) -> str:
    """Whether the paper's claim of InstructGPT beside GPT-3 holds, by the difference's interval."""
    claim, paper = -1, "down"  # of the web's skills
    if metric in judges.RATES:
        claim, paper = judges.RATES[metric].claim, judges.RATES[metric].paper
    if not paper:
        return "no figure in the paper"
    low, high = difference["low"], difference["high"]
    holds = -0.05 < low <= high < 0.05 if claim == 0 else min(claim * low, claim * high) > 0
    return ("holds" if holds else "does not hold") + f" ({paper})"


def show(results: dict) -> None:
    """Prints the tables: value [95 % interval]."""
    models, differences = results["models"], results["differences"]

    def cell(entry: dict | None) -> str:
        return f"{entry['value']:.2f} [{entry['low']:.2f},{entry['high']:.2f}]" if entry else "-"

    print(f"{'':22} {'n':>5} " + " ".join(f"{name:>17}" for name in models))
    for metric, entry in models["ppo"].items():
        row = [models[name].get(metric) for name in models]
        print(f"{metric:22} {entry['n']:>5} " + " ".join(f"{cell(x):>17}" for x in row))
    print(f"\n{'PPO beside':22} {'SFT':>20} {'GPT prompted':>20} {'GPT':>20}  the paper's claim")
    for metric in models["ppo"]:
        beside = [differences.get(f"{metric} ppo-{name}") for name in ("sft", "prompted", "gpt")]
        known = metric in judges.RATES or metric.startswith("tax_")
        says = verdict(metric, beside[1] or beside[2]) if known else ""
        print(f"{metric:22} " + " ".join(f"{cell(x):>20}" for x in beside) + f"  {says}")
    for kind, by in (("wins", "held-out labelers"), ("wins_own", "training labelers")):
        print(f"\n{'preferred by ' + by:32} {'untied':>6} {'':>20} {'by gold':>8}")
        for pair, entry in results[kind].items():
            print(f"{pair:32} {entry['n']:>6} {cell(entry):>20} {entry['gold']:>8.2f}")
    print(f"\n{'labelers':22} {'pairs':>5}")
    for name, entry in results["labelers"].items():
        print(f"{name:22} {entry['n']:>5} {cell(entry):>20}")


if __name__ == "__main__":
    run(Config, main)
