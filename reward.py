"""Step 2: comparisons and the reward model (InstructGPT, sections 3.4-3.5, equation 1).

    python reward.py                   about 170 s on two CPU cores
    python reward.py --round 2         after ppo.py: samples from its policy, learns from all

Samples K = 4..9 responses per prompt from the current policy, has a labeler rank them, and trains
a reward model to score the preferred one higher. The labelers are simulated: each has a taste of
its own, makes mistakes, and gives ties. Beside their comparisons stand about as many public tasks,
whose right and wrong answers are certain.

Reads out/sft.pt, data/prompts_reward.jsonl, data/valid.jsonl, data/demonstrations.jsonl; from
round 2 on also the last round's policy and all earlier comparisons.
Writes out/comparisons.jsonl ({"prompt", "completions", "ranks", "labeler"}), out/reward.pt and
out/reward.jsonl, and in round 2 comparisons2.jsonl, reward2.pt and reward2.jsonl. --comparisons
trains on a file of your own instead of sampling; a tenth of its prompts is held out. --collect only
samples, into out/unranked.jsonl, for people to rank.

Differences from the paper
  1. The labelers are programs (data/labelers.py).
  2. Ties are dropped as there; a prompt's loss is the mean over its untied pairs, not over all
     K (K-1) / 2, and a prompt without any is left out of the mean.
  3. Two epochs instead of one, after which theirs overfit: here the second helps. Batches of 8
     prompts instead of 64, and Adam's betas (0.9, 0.999) instead of (0.9, 0.95).
  4. Every round's reward model starts from the SFT model. Theirs started from a GPT-3 fine-tuned on
     public NLP tasks; starting from GPT-3 or the SFT model gave similar results, they say. Here
     public tasks (data/make.py) are learned in the same steps: without them the model does not see
     a broken constraint, since labelers' noise hides it, nor that a true answer was to another
     question.
  5. The reward model is as large as the policy; the paper's has 6 B parameters for all policies.

Dimension key: B prompts in a batch, K ranked responses (padded to the batch's largest), T tokens.
"""

import itertools
import os
import random
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from tqdm import tqdm

from data import make
from data.checkpoints import State, fused, load_round, of_round, pick_device, resumable, save
from data.files import UserError, located, option, run, write_jsonl
from data.forms import read
from data.judges import agreement, concordance, interval, report
from data.labelers import LABELERS, ranks_of
from data.tokenizer import Tokenizer
from data.world import parse
from model import (
    GPT,
    ScalarGPT,
    copy_body,
    cosine,
    pad_rows,
    sample_responses,
    score_texts,
)


@dataclass
class Config:  # a field is a flag: --k-min; FAST is what --fast changes
    prompts: str = option("data/prompts_reward.jsonl", "JSONL of prompts to compare responses to")
    valid: str = option("data/valid.jsonl", "JSONL of prompts that accuracy is measured on")
    demonstrations: str = option("data/demonstrations.jsonl", "their mean score becomes 0")
    comparisons: str = option("", "your own JSONL: completions and ranks, or chosen and rejected")
    collect: bool = option(False, "only sample responses to --prompts, for people to rank")
    round: int = option(1, "from 2 on: the policy of the round before, all comparisons so far")
    count: int = option(5000, "prompts to use")
    public: int = option(
        5000, "public tasks to learn beside them, but none with --comparisons", least=0
    )
    k_min: int = option(4, "fewest responses per prompt", least=2)
    k_max: int = option(9, "most responses per prompt", least=2)
    max_new: int = option(64, "longest response in tokens")
    epochs: int = option(2, "passes over the comparisons")
    batch: int = option(8, "prompts per step, with all of their responses")
    lr: float = option(5e-4, "peak learning rate; cosine down to 10 %")
    log: int = option(40, "steps between two lines of metrics")
    out: str = option("out", "folder of checkpoints and metrics")
    device: str = option("auto", "auto, cpu, cuda, mps")
    seed: int = option(0, "of sampling, labelers' slips and order", least=0, most=2**63 - 1)
    resume: bool = option(False, "go on with a run that was stopped")
    FAST = {"count": 100, "public": 40, "log": 2}


def beats_of(ranks):
    """(B,K) ranks -> (B,K,K) bool: entry i,j is true where response i beats response j."""
    # (B,K,1) against (B,1,K). "Less" and not "less or equal": a tie is no pair, and is dropped.
    # A rank of 0 is padding. It is never beaten, since no rank is lower, and must not win.
    return (ranks[:, :, None] < ranks[:, None, :]) & (ranks[:, :, None] > 0)


def bradley_terry_loss(scores, ranks):
    """Equation 1 of the paper: how badly the scores explain the ranking of K responses.

    scores (B,K), ranks (B,K) int64 with 1 the best, equal ranks for ties and 0 for padding ->
    scalar: minus the mean of log sigmoid(r_winner - r_loser) over a prompt's untied pairs, then
    the mean over prompts that have one. So K = 9 weighs as much as K = 4. 0 if no pair is untied.
    """
    assert scores.shape == ranks.shape, f"scores {scores.shape} but ranks {ranks.shape}"
    beats = beats_of(ranks)
    margins = scores[:, :, None] - scores[:, None, :]
    pairs = beats.sum(dim=(1, 2))
    losses = -(F.logsigmoid(margins) * beats).sum(dim=(1, 2)) / pairs.clamp(min=1)
    return losses.sum() / (pairs > 0).sum().clamp(min=1)


# -------------------------------------------------------------------------------- 1. comparisons
def prompts_of(config: Config, tokenizer: Tokenizer, context: int) -> list[str]:
    """The round's prompts: those that follow the earlier rounds'; behind the end comes the start.

    At most the whole file.
    """
    prompts = [record["prompt"] for record in read(config.prompts, "prompts", tokenizer, context)]
    skip = (config.round - 1) * config.count % len(prompts)
    return (prompts[skip:] + prompts[:skip])[: config.count]


def sample(config: Config, policies: list[GPT], tokenizer: Tokenizer, prompts: list[str], rng):
    """K responses to each prompt, from the policies in turn: records of prompt and completions."""
    counts, records = [rng.randint(config.k_min, config.k_max) for _ in prompts], []
    for i, policy in enumerate(policies):
        asked, many = prompts[i :: len(policies)], counts[i :: len(policies)]
        sampled = sample_responses(policy, tokenizer, asked, many, config.max_new)
        records += [{"prompt": p, "completions": texts} for p, texts in zip(asked, sampled)]
    return records


def collect(config: Config, policies: list[GPT], tokenizer: Tokenizer, rng: random.Random):
    """Sampled responses, each prompt's ranked by one labeler: (comparisons, held, metrics).

    Comparisons are records of prompt, completions, ranks and labeler; they are written to the
    round's file, and those of earlier rounds join them. held are prompts that are not trained on,
    with four completions each of the last policy. Raises UserError for a prompt that no simulated
    labeler can judge.
    """
    context = policies[0].config.context
    before = earlier(config, tokenizer, context)
    prompts = prompts_of(config, tokenizer, context)
    valid = [record["prompt"] for record in read(config.valid, "prompts", tokenizer, context)]
    valid = valid[: max(1, config.count // 4)]
    for prompt in prompts + valid:
        if parse(prompt) is None:
            raise UserError(f"the simulated labelers do not know {prompt!r}: --collect responses "
                            "for people to rank, and bring their --comparisons")  # fmt: skip
    comparisons = []
    for sampled in sample(config, policies, tokenizer, prompts, rng):
        # The first half of the labelers rank what is trained on; the others only evaluate.
        labeler = rng.randrange(LABELERS // 2)
        ranks = ranks_of(labeler, sampled["prompt"], sampled["completions"], config.seed)
        comparisons.append({**sampled, "ranks": ranks, "labeler": labeler})
    write_jsonl(comparisons_of(config, config.round), comparisons)
    metrics = {"agreement": agreement(comparisons, config.seed)}
    texts = sample_responses(policies[-1], tokenizer, valid, [4] * len(valid), config.max_new)
    held = [{"prompt": p, "completions": t} for p, t in zip(valid, texts)]
    return comparisons + before, held, metrics


def comparisons_of(config: Config, round: int) -> Path:
    return Path(config.out) / f"{of_round('comparisons', round)}.jsonl"


def earlier(config: Config, tokenizer: Tokenizer, context: int) -> list[dict]:
    """What the rounds before learned from: their own files of comparisons, or what they sampled."""
    out, found = Path(config.out), []
    for number in range(1, config.round):
        file = comparisons_of(config, number)
        if (out / f"{of_round('reward', number)}.pt").exists():
            extra = load_round(out, "reward", number, tokenizer.size)[1]
            file = out / extra["comparisons"] if "comparisons" in extra else file
        found += read(file, "comparisons", tokenizer, context)
    return found


def read_comparisons(config: Config, tokenizer: Tokenizer, context: int) -> tuple[list, list]:
    """A user's comparisons and those of earlier rounds: (comparisons, held).

    Every tenth prompt is held out, with all that belongs to it.
    """
    records = read(config.comparisons, "comparisons", tokenizer, context)
    records += earlier(config, tokenizer, context)
    prompts = list(dict.fromkeys(record["prompt"] for record in records))
    if len(prompts) == 1:
        raise UserError(f"{config.comparisons}: all comparisons have the same prompt, which is "
                        "held out to measure accuracy: none is left to train on")  # fmt: skip
    held_prompts = set(prompts[::10])
    comparisons = [c for c in records if c["prompt"] not in held_prompts]
    if not any(len(set(c["ranks"])) > 1 for c in comparisons):
        raise UserError(f"{config.comparisons} needs two or more comparisons with untied ranks")
    return comparisons, [c for c in records if c["prompt"] in held_prompts]


def write_unranked(config: Config, records: list[dict]) -> dict:
    """Writes sampled responses, each once, for people to rank, and says how they go on."""
    file, ranked = (Path(config.out) / f"{of_round(name, config.round)}.jsonl"
                    for name in ("unranked", "rankings"))  # fmt: skip
    for record in records:
        record["completions"] = list(dict.fromkeys(record["completions"]))
    records = [record for record in records if len(record["completions"]) > 1]
    if not records:
        raise UserError("the responses to each prompt are alike: there is nothing to rank")
    write_jsonl(file, records)
    again = f" --round {config.round}" if config.round > 1 else ""
    print(f"wrote {len(flat(records))} different responses to {len(records)} prompts; now\n"
          f"  python -m data.label --comparisons {file} --out {ranked}\n"
          f"  python reward.py --comparisons {ranked}{again} --out {config.out} "
          "--demonstrations FILE")  # fmt: skip
    return {}


def flat(records: list[dict]) -> list[tuple[str, str]]:
    """(prompt, completion) of every completion, one record after another."""
    return [(c["prompt"], text) for c in records for text in c["completions"]]


# -------------------------------------------------------------------------------- 2. the training
def collate(group: list[dict], tokenizer: Tokenizer, context: int, device: str):
    """A row for each of B prompts with all of its responses, as `score_each` reads it.

    tokens, positions and part (B,T), and the ranks (B,K). A response is cut at the context's end.
    """
    tokens, positions, parts = [], [], []
    for record in group:
        prompt = tokenizer.prompt(record["prompt"])
        room = context - len(prompt)
        responses = [tokenizer.response(text)[:room] for text in record["completions"]]
        rows = [range(len(prompt), len(prompt) + len(response)) for response in responses]
        tokens.append(prompt + sum(responses, []))
        positions.append([*range(len(prompt)), *itertools.chain(*rows)])
        parts.append([0] * len(prompt) + [k for k, row in enumerate(rows, 1) for _ in row])
    fills = (tokens, tokenizer.pad), (positions, 0), (parts, -1), ([c["ranks"] for c in group], 0)
    return tuple(pad_rows(rows, fill, device) for rows, fill in fills)


def train(config: Config, sft: GPT, comparisons: list[dict], tokenizer, rng, state: State):
    """The SFT model's body with a scalar head, trained on the comparisons: (model, history)."""
    device, context, size = sft.wte.weight.device, sft.config.context, config.batch
    model = copy_body(sft, ScalarGPT(sft.config).to(device))
    optimizer = torch.optim.Adam(model.parameters(), lr=config.lr, fused=fused(device))
    groups = [comparisons[at : at + size] for at in range(0, len(comparisons), size)]
    order = []
    for _ in range(config.epochs):
        rng.shuffle(groups)
        order += groups
    history, steps = [], len(order)
    for step, group in resumable(order, state, history, model=model, optimizer=optimizer):
        for g in optimizer.param_groups:
            g["lr"] = config.lr * cosine(step, steps)
        # One forward pass of every response, then all untied pairs of a prompt together.
        *rows, ranks = collate(group, tokenizer, context, device)
        scores = model.score_each(*rows, ranks.shape[1])  # (B,K)
        loss = bradley_terry_loss(scores, ranks)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if (step + 1) % config.log == 0 or step + 1 == steps:
            beats = beats_of(ranks)
            right = (scores[:, :, None] > scores[:, None, :]) & beats
            share = right.sum() / beats.sum().clamp(min=1)
            history.append({"step": step + 1, "loss": loss.item(), "accuracy": share.item()})
            line = "step {step} | loss {loss:.3f} | accuracy {accuracy:.2f}"
            tqdm.write(line.format(**history[-1]))
    return model, history


@torch.no_grad()
def centre(model: ScalarGPT, tokenizer: Tokenizer, demonstrations: list[dict]) -> None:
    """Makes the mean score of demonstrations 0, in the head's bias, so it is saved with it.

    demonstrations are records of prompt and completion.

    The loss knows differences alone, so the model comes with any offset. After this, as in the
    paper, a score says better or worse than a demonstration.
    """
    pairs = [(d["prompt"], d["completion"]) for d in demonstrations]
    scores = score_texts(model, tokenizer, *zip(*pairs))
    model.scalar.bias -= sum(scores) / len(scores)


# ------------------------------------------------------------------------------ 3. the measuring
def scale(model: ScalarGPT, tokenizer: Tokenizer, some: list[dict]) -> dict[str, float]:
    """What PPO must know of the scores of a policy's samples.

    floor, their 1st percentile: the score of a response that never ends; spread, their standard
    deviation: the unit in which PPO clips values.
    """
    scores = torch.tensor(score_texts(model, tokenizer, *zip(*flat(some))))
    return {"floor": scores.quantile(0.01).item(), "spread": scores.std().item()}


def measure(model: ScalarGPT, tokenizer: Tokenizer, held: list[dict], seed: int) -> dict:
    """Accuracy on prompts that were not trained on, and the correlation of score and length."""
    scores = score_texts(model, tokenizer, *zip(*flat(held)))
    lengths = [float(len(tokenizer.encode(text))) for _, text in flat(held)]
    metrics = {}
    if len(set(scores)) > 1 and len(set(lengths)) > 1:  # else there is no correlation
        both = torch.tensor([scores, lengths])
        metrics["length_correlation"] = torch.corrcoef(both)[0, 1].item()
    if "ranks" not in held[0]:
        return metrics | report(
            [c["prompt"] for c in held], [c["completions"] for c in held], scores, seed
        )
    pairs, at = [], 0
    for c in held:
        mine, at = scores[at : at + len(c["ranks"])], at + len(c["ranks"])
        pairs.append(concordance(mine, [-rank for rank in c["ranks"]]))
    return metrics | {"accuracy": interval(*zip(*pairs))}


def show(metrics: dict) -> None:
    """Prints a line for each metric: a number, or a share with its interval."""
    for metric, entry in metrics.items():
        if not isinstance(entry, dict):
            text = f"{entry:.3f}"
        elif not entry["n"]:
            text = "there is no such pair"
        else:
            text = "{value:.3f} [{low:.3f}, {high:.3f}] n {n}".format(**entry)
        print(f"{metric:20} {text}")


def main(config: Config, policies: list[GPT] | None = None) -> dict:
    """Has sampled responses ranked, trains and writes the reward model; returns the metrics.

    policies are sampled from in turn; without any, the newest one is.
    """
    start = time.time()
    if config.k_min > config.k_max:
        raise UserError("--k-min must not be above --k-max")
    if config.comparisons and config.collect:
        raise UserError("--collect samples what is to be ranked: leave --comparisons out")
    device, tokenizer, out = pick_device(config.device), Tokenizer.of(config.out), Path(config.out)
    name, size = of_round("reward", config.round), tokenizer.size
    seed = config.seed + 1000 * (config.round - 1)
    torch.manual_seed(seed)
    rng = random.Random(seed)
    sft, parent = load_round(out, "ppo", 0, size, device)  # round 0 is the SFT model
    context = sft.config.context
    if not config.comparisons:
        policies = policies or [load_round(out, "ppo", config.round - 1, size, device)[0]]
    if config.collect:
        prompts = prompts_of(config, tokenizer, context)
        return write_unranked(config, sample(config, policies, tokenizer, prompts, rng))
    if tokenizer.own and config.demonstrations == Config.demonstrations:
        print("the zero of scores is the small world's: bring your own --demonstrations, too")
    demonstrations = read(config.demonstrations, "demonstrations", tokenizer, context)[:1000]
    state = State(out / f"{name}.state", config, sft=sft, policy=(policies or [sft])[-1])
    # 1. Comparisons.
    if config.comparisons:
        comparisons, held = read_comparisons(config, tokenizer, context)
        metrics = {}
    else:
        comparisons, held, metrics = collect(config, policies, tokenizer, rng)
    metrics["sampling_seconds"] = time.time() - start
    print(f"{len(comparisons)} comparisons of {len(flat(comparisons))} responses "
          f"in {metrics['sampling_seconds']:.0f} s")  # fmt: skip
    # 2. The reward model. Rows of similar length stand together: little padding.
    public = [] if config.comparisons else [make.public_task(rng) for _ in range(config.public)]
    public = [task for task in public if len(tokenizer.prompt(task["prompt"])) < context]
    ranked = rng.sample(comparisons + public, len(comparisons + public))
    ranked.sort(key=lambda c: len(tokenizer.prompt(c["prompt"] + "".join(c["completions"]))))
    model, history = train(config, sft, ranked, tokenizer, rng, state)
    centre(model, tokenizer, demonstrations)
    # 3. What PPO must know of it, and how good it is.
    scores = scale(model, tokenizer, rng.sample(comparisons, min(len(comparisons), 300)))
    metrics |= measure(model, tokenizer, held, config.seed)
    metrics["seconds"] = time.time() - start
    write_jsonl(out / f"{name}.jsonl", [*history, metrics])
    if config.comparisons:  # the next round learns from them again
        scores["comparisons"] = os.path.relpath(located(config.comparisons), out)
    save(out / f"{name}.pt", model, made_from={"sft": parent["checksum"]}, **scores)
    show(metrics)
    print(f"wrote {out}/{name}.pt in {metrics['seconds']:.0f} s")
    return metrics


if __name__ == "__main__":
    run(Config, main)
