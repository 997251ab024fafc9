"""InstructGPT against GPT-3: the models side by side on prompts that none of them has seen.

    python evaluate.py                 about 85 s on two CPU cores
    python evaluate.py --prompt "..."  every model's answer to your own prompt
    python evaluate.py --prompts FILE  to a file of them, side by side, and for people to rank
    python evaluate.py --rankings FILE how often people preferred which model's answers

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
out/evaluate.json, or with --prompts out/answers.jsonl and its key to the models, answers_key.jsonl.
ppo_ptx.pt, ppo2.pt and ppo3.pt are evaluated where they are at hand. A model that was trained from
another checkpoint than the one beside it is not compared.
"""

import json
import random
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from data import judges, label, world
from data.checkpoints import check_parents, load, load_round, pick_device
from data.files import UserError, option, run, write_text
from data.forms import read
from data.labelers import gold, sentences_of
from data.tokenizer import Tokenizer
from model import GPT, sample_responses, sample_texts, score_texts, tokens_and_mask


@dataclass
class Config:  # a field is a flag: --seed; FAST is what --fast changes
    prompt: str = option("", "print every model's answer to this prompt, and nothing else")
    prompts: str = option("", "JSONL of your own prompts: writes answers.jsonl for people to rank")
    rankings: str = option("", "JSONL of answers.jsonl as people ranked it: who is preferred")
    count: int = option(1200, "prompts of each test set and probe, at most")
    max_new: int = option(64, "longest response in tokens")
    samples: int = option(3, "prompts whose answers are printed side by side")
    out: str = option("out", "folder of checkpoints and results")
    device: str = option("auto", "auto, cpu, cuda, mps")
    seed: int = option(0, "of sampling", least=0, most=2**63 - 1)
    FAST = {"count": 40}


MODELS = {
    "gpt": ("base.pt", "python pretrain.py"),
    "sft": ("sft.pt", "python sft.py"),
    "ppo": ("ppo.pt", "python ppo.py"),
    # Evaluated where they are at hand.
    "ppo_ptx": ("ppo_ptx.pt", "python ppo.py --ptx-coef 0.5"),
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


# ------------------------------------------------------------------------------------ the models
def load_models(config: Config, tokenizer: Tokenizer, device: str) -> dict[str, GPT]:
    """The models at hand by name; with prompts of your own, none of them is required.

    One that cannot be used is left out, such as one whose parent has been trained anew. Raises
    UserError if it is required.
    """
    models = {}
    for name, (file, command) in MODELS.items():
        path = Path(config.out) / file
        required = name in REQUIRED and not (config.prompt or config.prompts)
        if required or path.exists():
            try:
                model, extra = load(path, command, tokenizer.size, device, GPT)
                check_parents(path, extra["made_from"], command)
                models[name] = model
            except UserError as error:
                if required:
                    raise
                print(f"left out: {error}")
    if not models:
        raise UserError(f"there is no model in {config.out}: run python pretrain.py first")
    return models


def few_shot_page(style: tuple[str, str, str], seed: int) -> str:
    """Right answers to training prompts of the most frequent uses, one below the other."""
    rng, page = random.Random(seed), ""
    for use in SHOTS:
        prompt = world.sample(rng, tasks=[t for t in world.TASKS if t.use == use], limits=())
        page += style[0] + prompt + style[1] + world.answer(world.parse(prompt), rng) + style[2]
    return page


def answer_all(
    model, tokenizer, prompts: list[str], max_new: int, style=None, page=""
) -> list[str]:
    """A sampled response to each prompt; with a style, as the next example of a few-shot page.

    A prompted model goes on with further examples: its answer is the first line.
    """
    if style is None:
        rows = [tokenizer.prompt(prompt) for prompt in prompts]
    else:
        pages = [page + style[0] + prompt + style[1] for prompt in prompts]
        rows = [tokenizer.open_document(text) for text in pages]
    longest, context = max(map(len, rows)), model.config.context
    if longest >= context:
        raise UserError(f"a prompt of {longest} tokens is too long for a context of {context}")
    texts = sample_texts(model, tokenizer, rows, max_new)
    return texts if style is None else [text.strip().split("\n")[0] for text in texts]


def contestants(
    models: dict[str, GPT], tokenizer, config: Config, style: int
) -> dict[str, Callable]:
    """name -> what answers a list of prompts: each model, and GPT behind a page of examples."""
    ask = {name: partial(answer_all, model, tokenizer, max_new=config.max_new)
           for name, model in models.items()}  # fmt: skip
    if "gpt" not in models or tokenizer.own:  # the page of examples is of the small world
        return ask
    prompted = partial(
        ask["gpt"], style=FORMATS[style], page=few_shot_page(FORMATS[style], config.seed)
    )
    return {"gpt": ask.pop("gpt"), "prompted": prompted, **ask}


# --------------------------------------------------------------------------------- own prompts
def answer(config: Config, prompts: list[str], models: dict[str, GPT], tokenizer, device: str):
    """Prints the models' answers to some prompts side by side, with rewards; returns all answers.

    Rewards are printed once there is a reward model, and their mean for more than one prompt.
    """
    out, answers, rewards = Path(config.out), {}, {}
    try:
        reward_model, extra = load_round(out, "reward", 1, tokenizer.size, device)
        check_parents(out / "reward.pt", extra["made_from"], "python reward.py")
    except UserError as error:
        reward_model = None
        print(f"no rewards: {error}")
    for name, ask in contestants(models, tokenizer, config, style=0).items():
        torch.manual_seed(config.seed)  # an answer does not depend on the models before
        try:
            answers[name] = ask(prompts)
        except UserError as error:  # a page of examples takes room
            print(f"left out: {name}: {error}")
            continue
        if reward_model:
            rewards[name] = score_texts(reward_model, tokenizer, prompts, answers[name])
    if not answers:
        raise UserError("no model has room for these prompts")
    shown = min(config.samples, len(prompts))
    for i in sorted(random.Random(config.seed).sample(range(len(prompts)), shown)):
        if len(prompts) > 1:
            print(f"\n> {prompts[i]}")
        for name, texts in answers.items():
            reward = f"reward {rewards[name][i]:6.2f} | " if rewards else ""
            print(f"{name:9} {reward}{texts[i]!r}")
    if rewards and len(prompts) > 1:
        print(f"\nmean reward by {out}/reward.pt, n {len(prompts)}")
        for name, mine in rewards.items():
            print(f"{name:9} {sum(mine) / len(mine):6.2f}")
    return answers


# ------------------------------------------------------------------------------ what is measured
def read_prompts(name: str) -> list[str]:
    return [record["prompt"] for record in read(f"data/{name}.jsonl", "prompts")]


def golds(prompts: list[str], texts: list[str]) -> list[float]:
    return [gold(p, t) for p, t in zip(prompts, texts)]


def right_answers(prompts: list[str]) -> list[str]:
    return [world.answer(world.parse(p), random.Random(p)) for p in prompts]


@torch.no_grad()
def taxes(model, tokenizer, closed: list[str], count: int, max_new: int) -> dict[str, list[float]]:
    """Skills that alignment may cost, as on the pages of the web and greedily: 1.0 where right.

    tax_lomi     a sentence is translated without a mistake, after two examples
    tax_reading  a question on a text is answered right behind "Q:" and "A:"
    tax_cloze    of four ways for a story to go on, its own is the most probable
    """
    lomi = read("data/probes/tax_lomi.jsonl", "demonstrations")[:count]
    cloze = read("data/probes/tax_cloze.jsonl", "comparisons")[:count]
    cut = [sentences_of(prompt) for prompt in closed]
    reading = [" ".join(parts[:-1]) + f"\nQ: {parts[-1]}\nA:" for parts in cut]
    rows = [tokenizer.open_document(page) for page in [r["prompt"] for r in lomi] + reading]
    lines = [t.split("\n")[0].strip() for t in sample_texts(model, tokenizer, rows, max_new, 0.0)]
    fits = []
    for at in range(0, len(cloze), 64):
        some = cloze[at : at + 64]
        page = [tokenizer.open_document(r["prompt"]) for r in some for _ in range(4)]
        ways = [tokenizer.open_document(text) for r in some for text in r["completions"]]
        device = model.wte.weight.device
        logp = model.logprobs(
            *tokens_and_mask(page, ways, tokenizer.pad, model.config.context, device)
        )
        fits += (logp.sum(dim=1).view(-1, 4).argmax(dim=1) == 0).float().tolist()
    return {"tax_lomi": [float(a == r["completion"]) for a, r in zip(lines, lomi)],
            "tax_reading": [float(judges.right(p, a)) for p, a in zip(closed, lines[len(lomi) :])],
            "tax_cloze": fits}  # fmt: skip


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
        words = [w for w in world.FAMILIAR[key] if w != old]
        changed = [re.sub(rf"\b{old}\b", word, prompt, count=1) for word in words]
        unseen = [p for p in changed if world.split(p) == "test"]
        new.append(rng.choice(unseen or changed))
    texts = answer_all(model, tokenizer, new, max_new)
    return [float(judges.right(p, t)) for p, t in zip(new, texts)]


def by_use(prompts: list[str], values: list) -> dict[str, list]:
    """The values of each use case's prompts: {"gold_generation": [...], ...}"""
    found: dict[str, list] = {}
    for prompt, value in zip(prompts, values):
        found.setdefault(f"gold_{world.parse(prompt).task.use}", []).append(value)
    return found


def measure(ask: Callable, model: GPT | None, tokenizer, asked: dict, config: Config):
    """A model's answers to the test prompts, and a value for each prompt of every metric.

    asked has the prompts of each test set and probe. Without a model, as for prompted GPT, there
    is no swapped text and no tax.
    """
    texts = {name: ask(prompts) for name, prompts in asked.items()}
    values = {metric: golds(asked[file], texts[file]) for metric, file in SETS.items()}
    values |= by_use(asked["test"], values["gold"])
    for metric, rate in judges.RATES.items():
        values[metric] = [float(rate.judge(p, t)) for probe in rate.probes
                          for p, t in zip(asked[probe], texts[probe])]  # fmt: skip
    if model is not None:
        closed = asked["closed_qa"]
        values["swapped"] = swapped(model, tokenizer, closed, config.max_new)
        values |= taxes(model, tokenizer, closed, config.count, config.max_new)
    return texts["test"], values


def topics_of(asked: dict[str, list[str]]) -> dict[str, list]:
    """Of each metric the topic of every prompt: prompts about the same are drawn together."""
    topics = {metric: list(map(world.topic, asked[file])) for metric, file in SETS.items()}
    topics |= by_use(asked["test"], topics["gold"])
    for metric, rate in judges.RATES.items():
        topics[metric] = [world.topic(p) for probe in rate.probes for p in asked[probe]]
    return topics


def compare(values: dict[str, dict], texts: dict[str, list], asked: dict, seed: int) -> dict:
    """Means, differences between models paired by prompt, and wins, each with its interval."""
    topics = topics_of(asked)
    results = {
        "models": {name: {m: judges.interval(v, topics=topics.get(m)) for m, v in mine.items()}
                   for name, mine in values.items()},
        "differences": {}, "wins": {},
    }  # fmt: skip
    against = [("prompted", "gpt"), ("sft", "prompted"), ("ppo", "prompted"), ("ppo", "gpt")]
    against += [(name, "sft") for name in values if name not in ("gpt", "prompted", "sft")]
    for one, other in against:
        for metric in [m for m in values[one] if m in values[other]]:
            gains = np.subtract(values[one][metric], values[other][metric])
            results["differences"][f"{metric} {one}-{other}"] = judges.interval(
                gains, topics=topics.get(metric), signed=True
            )
    for one, other in PAIRS:
        if one in texts:
            results["wins"][f"{one}/{other}"] = judges.win_rate(
                asked["test"], texts[one], texts[other], seed
            )
    return results


def labelers_beside(reward_model, sft: GPT, tokenizer, prompts: list[str], config: Config) -> dict:
    """The reward model beside the labelers, on four SFT samples of each prompt.

    rm_sees_*: how often it scores a right answer above one that breaks a constraint, broken as in
    public tasks, but of users' prompts.
    """
    torch.manual_seed(config.seed)
    four = sample_responses(sft, tokenizer, prompts, [4] * len(prompts), config.max_new)
    flat = [(p, t) for p, group in zip(prompts, four) for t in group]
    scores = score_texts(reward_model, tokenizer, *zip(*flat))
    found = judges.report(prompts, four, scores, config.seed)
    for name, constraints in judges.PROBED.items():
        asked, kept, broken = zip(*judges.constraint_pairs(constraints, min(400, config.count)))
        two = [score_texts(reward_model, tokenizer, asked, texts) for texts in (kept, broken)]
        found[f"rm_sees_{name}"] = judges.interval(np.greater(*two))
    file = Path(config.out) / "comparisons.jsonl"
    if file.exists():
        comparisons = read(file, "comparisons")
        if all("labeler" in c for c in comparisons):  # a file of yours may name none
            found["agreement"] = judges.agreement(comparisons, config.seed)
    return found


def main(config: Config) -> dict:
    """Evaluates all models; prints the tables, writes and returns out/evaluate.json's content."""
    start = time.time()
    if config.rankings:
        found = label.preferred(config.out, config.rankings)
        print(f"{'preferred by people':24} {'untied':>6}")
        for pair, entry in found.items():
            print(f"{pair.replace('/', ' to '):24} {entry['n']:>6} {cell(entry):>20}")
        return found
    device, tokenizer, out = pick_device(config.device), Tokenizer.of(config.out), Path(config.out)
    own = config.prompt or config.prompts
    if tokenizer.own and not own:
        raise UserError(f"{out} has a vocabulary of its own, the tests another: use --prompts")
    torch.manual_seed(config.seed)
    models = load_models(config, tokenizer, device)
    if config.prompt:
        return answer(config, [config.prompt], models, tokenizer, device)
    if config.prompts:
        context = min(model.config.context for model in models.values())
        records = read(config.prompts, "prompts", tokenizer, context)[: config.count]
        prompts = list(dict.fromkeys(record["prompt"] for record in records))
        answers = answer(config, prompts, models, tokenizer, device)
        if len(answers) > 1:
            label.write_answers(config.out, prompts, answers, config.seed)
        return answers
    reward_model, _ = load_round(out, "reward", 1, tokenizer.size, device)
    # 1. The best few-shot format, chosen on validation prompts.
    valid = read_prompts("valid")[: min(300, config.count)]
    tried = [contestants(models, tokenizer, config, i)["prompted"] for i in range(len(FORMATS))]
    scores = [sum(golds(valid, ask(valid))) for ask in tried]
    best = scores.index(max(scores))
    # 2. Every model answers every test set and every probe.
    probes = [probe for rate in judges.RATES.values() for probe in rate.probes]
    files = {file: file for file in SETS.values()} | {x: f"probes/{x}" for x in probes}
    asked = {name: read_prompts(file)[: config.count] for name, file in files.items()}
    texts, values = {}, {}
    ask = contestants(models, tokenizer, config, best)
    for name in tqdm(ask, "evaluate", leave=False, disable=None):
        torch.manual_seed(config.seed)  # an answer does not depend on the models before
        texts[name], values[name] = measure(ask[name], models.get(name), tokenizer, asked, config)
    # 3. The models side by side.
    texts["right"] = right_answers(asked["test"])
    results = compare(values, texts, asked, config.seed)
    # 4. The reward model beside the labelers.
    results["labelers"] = labelers_beside(reward_model, models["sft"], tokenizer, valid, config)
    results |= {
        "few_shot_format": FORMATS[best][0],
        "seed": config.seed,
        "seconds": time.time() - start,
    }
    show(results)
    shown = min(config.samples, len(asked["test"]))
    for i in random.Random(config.seed).sample(range(len(asked["test"])), shown):
        prompt = asked["test"][i]
        print(f"\n> {prompt}")
        for name in ask:
            text = texts[name][i]
            print(f"  {name:9} gold {gold(prompt, text):.2f} | {text!r}")
    write_text(out / "evaluate.json", json.dumps(results, indent=1) + "\n")
    print(f"\nwrote {out}/evaluate.json in {results['seconds']:.0f} s")
    return results


def cell(entry: dict | None) -> str:
    """A share with its interval, or a dash where there is none."""
    if not entry or not entry["n"]:
        return "-"
    return f"{entry['value']:.2f} [{entry['low']:.2f},{entry['high']:.2f}]"


def show(results: dict) -> None:
    """Prints the tables: value [95 % interval]."""
    models, differences = results["models"], results["differences"]
    print(f"{'':22} {'n':>5} " + " ".join(f"{name:>17}" for name in models))
    for metric, entry in models["ppo"].items():
        row = [models[name].get(metric) for name in models]
        print(f"{metric:22} {entry['n']:>5} " + " ".join(f"{cell(x):>17}" for x in row))
    print(f"\n{'PPO beside':22} {'SFT':>20} {'GPT prompted':>20} {'GPT':>20}  the paper's claim")
    for metric in models["ppo"]:
        beside = [differences.get(f"{metric} ppo-{name}") for name in ("sft", "prompted", "gpt")]
        known = metric in judges.RATES or metric.startswith("tax_")
        says = judges.verdict(metric, beside[1] or beside[2]) if known else ""
        print(f"{metric:22} " + " ".join(f"{cell(x):>20}" for x in beside) + f"  {says}")
    print(f"\n{'preferred by held-out labelers':32} {'untied':>6} {'':>20} {'by gold':>8}")
    for pair, entry in results["wins"].items():
        by_gold = "-" if entry["gold"] is None else f"{entry['gold']:.2f}"
        print(f"{pair:32} {entry['n']:>6} {cell(entry):>20} {by_gold:>8}")
    print(f"\n{'labelers':22} {'pairs':>5}")
    for name, entry in results["labelers"].items():
        print(f"{name:22} {entry['n']:>5} {cell(entry):>20}")


if __name__ == "__main__":
    run(Config, main)
