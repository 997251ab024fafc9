"""InstructGPT against GPT-3: the models side by side on prompts that none of them has seen.

    python evaluate.py                 about 70 s on two CPU cores
    python evaluate.py --prompt "..."  every model's answer to your own prompt

GPT is the base model with the bare prompt; "prompted" is the same model behind a page of examples,
in the best of three formats on validation prompts; then the SFT and the PPO model. All sample at
temperature 1. `gold` is the labelers' mean taste without noise, from 0 to 1: no model was trained
on it. Wins are judged by labelers whose rankings trained nothing, one per pair, ties apart.

Reads out/*.pt and data/test*.jsonl; writes out/evaluate.json.
"""

import itertools
import json
import random
import re
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from data import world
from data.files import option, read_jsonl, run, write_text
from data.labelers import LABELERS, agreement, features, gold, interval, rate, report
from data.tokenizer import Tokenizer
from model import generate, load, pick_device
from reward import sample_responses, score_texts


@dataclass
class Config:
    prompt: str = option("", "print every model's answer to this prompt, and nothing else")
    count: int = option(1200, "prompts of each test set")
    max_new: int = option(64, "longest response in tokens")
    samples: int = option(3, "prompts whose answers are printed side by side")
    out: str = option("out", "folder of checkpoints and results")
    device: str = option("auto", "auto, cpu, cuda, mps")
    seed: int = option(0, "of sampling")
    FAST = {"count": 40}


MODELS = {
    "gpt": ("base.pt", "pretrain.py"),
    "sft": ("sft.pt", "sft.py"),
    "ppo": ("ppo.pt", "ppo.py"),
}
NAMES = ("gpt", "prompted", "sft", "ppo")
PAIRS = (("sft", "gpt"), ("sft", "prompted"), ("ppo", "gpt"), ("ppo", "prompted"), ("ppo", "sft"))
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


@torch.no_grad()
def answer_all(
    model, tokenizer, prompts: list[str], max_new: int, style=None, page=""
) -> list[str]:
    """A sampled response to each prompt; with a style, as the next example of a few-shot page.

    A prompted model goes on with further examples: its answer is cut at the page's separator.
    """
    if style is None:
        rows = [tokenizer.prompt(prompt) for prompt in prompts]
    else:
        rows = [
            tokenizer.open_document(page + style[0] + p + style[1].rstrip(" ")) for p in prompts
        ]
    texts: list[str] = []
    for at in range(0, len(rows), 256):
        responses = generate(model, rows[at : at + 256], max_new, tokenizer.eos)
        texts += [tokenizer.decode(r) for r in responses]
    return [text.split(style[2])[0].strip() for text in texts] if style else texts


def win_rate(prompts: list[str], one: list[str], other: list[str], seed: int) -> dict:
    """How often a held-out labeler prefers one answer, ties apart, and how often gold does.

    One labeler judges each pair, knowing neither model; ratings do not depend on the order.
    """
    hits, counts, gold_hits, gold_counts = [], [], 0, 0
    for i, (prompt, a, b) in enumerate(zip(prompts, one, other)):
        labeler = LABELERS // 2 + i % (LABELERS // 2)
        x, y = rate(labeler, prompt, [a, b], seed)
        hits.append(x > y)
        counts.append(x != y)
        truth = gold(prompt, a) - gold(prompt, b)
        gold_hits, gold_counts = gold_hits + (truth > 0), gold_counts + (truth != 0)
    return {**interval(hits, counts), "gold": gold_hits / max(1, gold_counts)}


def swapped(model, tokenizer, prompts: list[str], max_new: int) -> dict:
    """Closed-domain questions whose text is changed: the share of answers that follow the change.

    The asked-for color, thing or person of the text is replaced by another one, and the answer to
    the new prompt must be right for the new text.
    """
    rng = random.Random(0)
    new = []
    for prompt in prompts:
        request = world.parse(prompt)
        key = {"read_what": "thing", "read_color": "color", "read_who": "name"}[request.task.name]
        old = request.slots[key]
        word = rng.choice([w for w in world.FAMILIAR[key] if w not in request.slots.values()])
        new.append(re.sub(rf"\b{old}\b", word, prompt, count=1))
    texts = answer_all(model, tokenizer, new, max_new)
    return interval([features(p, t)["done"] * features(p, t)["true"] for p, t in zip(new, texts)])


def main(config: Config) -> dict:
    """Evaluates all models; prints the tables, writes and returns out/evaluate.json's content."""
    start = time.time()
    device, tokenizer = pick_device(config.device), Tokenizer()
    torch.manual_seed(config.seed)
    out = Path(config.out)
    models = {name: load(out / file, f"python {script}", tokenizer.size, device)[0]
              for name, (file, script) in MODELS.items()}  # fmt: skip
    reward_model, _ = load(out / "reward.pt", "python reward.py", tokenizer.size, device)
    # 1. The best few-shot format, chosen on validation prompts.
    valid = read_prompts("valid")[: min(300, config.count)]
    pages = [few_shot_page(style, config.seed) for style in FORMATS]

    def ask(name: str, prompts: list[str], choice: int | None = None) -> list[str]:
        model = models["gpt" if name == "prompted" else name]
        if name != "prompted":
            return answer_all(model, tokenizer, prompts, config.max_new)
        i = best if choice is None else choice
        return answer_all(model, tokenizer, prompts, config.max_new, FORMATS[i], pages[i])

    def golds(prompts: list[str], texts: list[str]) -> list[float]:
        return [gold(p, t) for p, t in zip(prompts, texts)]

    best = 0
    if config.prompt:
        for name in NAMES:
            text = ask(name, [config.prompt])[0]
            score = score_texts(reward_model, tokenizer, [config.prompt], [text])[0]
            print(f"{name:9} reward {score:6.2f} | {text!r}")
        return {}
    best = max(range(len(FORMATS)), key=lambda i: sum(golds(valid, ask("prompted", valid, i))))
    # 2. Every model answers every test set.
    results: dict = {"models": {name: {} for name in NAMES}, "differences": {}, "wins": {}}
    texts: dict = {}
    values: dict = {}
    sets = {"gold": "test", "gold_phrasing": "test_phrasing", "gold_entity": "test_entity"}
    prompts = {metric: read_prompts(file)[: config.count] for metric, file in sets.items()}
    for name in NAMES:
        metrics = results["models"][name]
        for metric in sets:
            texts[name, metric] = ask(name, prompts[metric])
            values[name, metric] = golds(prompts[metric], texts[name, metric])
            metrics[metric] = interval(values[name, metric])
            if metric == "gold":
                uses = [world.parse(p).task.use for p in prompts[metric]]
                for use in world.USES:
                    mine = [v for v, u in zip(values[name, metric], uses) if u == use]
                    if mine:
                        metrics[f"gold_{use}"] = interval(mine)
    # Paired by prompt: what each model adds to the one before it.
    for metric in sets:
        for less, more in itertools.pairwise(NAMES):
            gains = np.subtract(values[more, metric], values[less, metric])
            results["differences"][f"{metric} {more}-{less}"] = interval(gains)
    # 3. The closed domain, with the text swapped under the question.
    closed = read_prompts("probes/closed_qa")[: config.count]
    for name in ("sft", "ppo"):
        results["models"][name]["swapped"] = swapped(
            models[name], tokenizer, closed, config.max_new
        )
    # 4. Wins, and the labelers themselves on four SFT samples of every validation prompt.
    for one, other in PAIRS:
        results["wins"][f"{one}/{other}"] = win_rate(
            prompts["gold"], texts[one, "gold"], texts[other, "gold"], config.seed
        )
    four = sample_responses(models["sft"], tokenizer, valid, [4] * len(valid), config.max_new)
    flat = [(p, t) for p, group in zip(valid, four) for t in group]
    scores = score_texts(reward_model, tokenizer, *map(list, zip(*flat)))
    comparisons = read_jsonl(out / "comparisons.jsonl", "prompt", "completions", "ranks")
    results["labelers"] = {"agreement": agreement(comparisons, config.seed),
                           **report(valid, four, scores, config.seed)}  # fmt: skip
    results |= {
        "few_shot_format": FORMATS[best][0],
        "seed": config.seed,
        "seconds": time.time() - start,
    }
    show(results)
    for i in random.Random(config.seed).sample(range(len(prompts["gold"])), config.samples):
        prompt = prompts["gold"][i]
        print(f"\n> {prompt}")
        for name in NAMES:
            text = texts[name, "gold"][i]
            print(f"  {name:9} gold {gold(prompt, text):.2f} | {text!r}")
    write_text(out / "evaluate.json", json.dumps(results, indent=1) + "\n")
    print(f"\nwrote {out}/evaluate.json in {results['seconds']:.0f} s")
    return results


def show(results: dict) -> None:
    """Prints the tables: value [95 % interval]."""

    def cell(entry: dict | None) -> str:
        return f"{entry['value']:.2f} [{entry['low']:.2f},{entry['high']:.2f}]" if entry else "-"

    print(f"{'':22} {'n':>5} " + " ".join(f"{name:>17}" for name in NAMES))
    for metric in results["models"]["ppo"]:
        row = [results["models"][name].get(metric) for name in NAMES]
        print(f"{metric:22} {row[-1]['n']:>5} " + " ".join(f"{cell(entry):>17}" for entry in row))
    print(f"\n{'difference':22} {'n':>5}")
    for name, entry in results["differences"].items():
        print(f"{name:22} {entry['n']:>5} {cell(entry):>24}")
    print(f"\n{'preferred to':22} {'untied':>5} {'by held-out labelers':>24} {'by gold':>8}")
    for pair, entry in results["wins"].items():
        print(f"{pair:22} {entry['n']:>5} {cell(entry):>24} {entry['gold']:>8.2f}")
    print(f"\n{'labelers':22} {'pairs':>5}")
    for name, entry in results["labelers"].items():
        print(f"{name:22} {entry['n']:>5} {cell(entry):>24}")


if __name__ == "__main__":
    run(Config, main)
