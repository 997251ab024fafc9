"""Step 2: comparisons and the reward model (InstructGPT, sections 3.4-3.5, equation 1).

    python reward.py                   about 160 s on two CPU cores
    python reward.py --round 2         after ppo.py: samples from its policy, learns from all

Samples K = 4..9 responses per prompt from the current policy, has a labeler rank them, and trains
a reward model to score the preferred one higher. The labelers are simulated: each has a taste of
its own, makes mistakes, and gives ties.

Reads out/sft.pt, data/prompts_reward.jsonl, data/valid.jsonl, data/demonstrations.jsonl; from
round 2 on also the last round's policy and all earlier comparisons.
Writes out/comparisons.jsonl ({"prompt", "completions", "ranks", "labeler"}), out/reward.pt and
out/reward.jsonl, and in round 2 comparisons2.jsonl, reward2.pt and reward2.jsonl. --comparisons
trains on a file of your own instead of sampling.

Differences from the paper
  1. The labelers are programs (data/labelers.py).
  2. Ties are dropped as there; a prompt's loss is the mean over its untied pairs, not over all
     K (K-1) / 2, and a prompt without any is left out of the mean.
  3. Two epochs instead of one, after which theirs overfit: here the second helps. Batches of 8
     prompts instead of 64, and Adam's betas (0.9, 0.999) instead of (0.9, 0.95).
  4. Every round's reward model starts from the SFT model. (Theirs started from a GPT-3 fine-tuned
     on public NLP data; starting from GPT-3 or the SFT model, they say, gave similar results.)
  5. The reward model is as large as the policy; the paper's has 6 B parameters for all policies.

Dimension key: B prompts in a batch, K ranked responses (padded to the batch's largest), T tokens.
"""

import itertools
import random
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from tqdm import tqdm

from data.checkpoints import Progress, load, load_round, of_round, pick_device, save
from data.files import UserError, option, read_jsonl, run, write_jsonl
from data.labelers import LABELERS, agreement, concordance, interval, ranks_of, report
from data.tokenizer import Tokenizer
from data.world import parse
from model import GPT, ScalarGPT, check_room, copy_body, generate, join
from sft import cosine


@dataclass
class Config:
    prompts: str = option("data/prompts_reward.jsonl", "JSONL of prompts to compare responses to")
    valid: str = option("data/valid.jsonl", "JSONL of prompts that accuracy is measured on")
    demonstrations: str = option("data/demonstrations.jsonl", "their mean score becomes 0")
    comparisons: str = option("", "your own JSONL: completions and ranks, or chosen and rejected")
    policies: str = option("", "checkpoints to sample from, comma-separated (default: the newest)")
    round: int = option(1, "from 2 on: the policy of the round before, all comparisons so far")
    count: int = option(7000, "prompts to use")
    k_min: int = option(4, "fewest responses per prompt")
    k_max: int = option(9, "most responses per prompt")
    max_new: int = option(64, "longest response in tokens")
    epochs: int = option(2, "passes over the comparisons")
    batch: int = option(8, "prompts per step, with all of their responses")
    lr: float = option(5e-4, "peak learning rate; cosine down to 10 %")
    log: int = option(40, "steps between two lines of metrics")
    out: str = option("out", "folder of checkpoints and metrics")
    device: str = option("auto", "auto, cpu, cuda, mps")
    seed: int = option(0, "of sampling, labelers' slips and order")
    resume: bool = option(False, "go on with a run that was stopped")
    FAST = {"count": 100, "log": 2}


def beats_of(ranks):
    """(B,K) ranks -> (B,K,K) bool: entry i,j is true where response i beats response j."""
    # (B,K,1) against (B,1,K); a rank of 0 is padding.
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


def sample_responses(model, tokenizer, prompts: list[str], counts: list[int], max_new: int):
    """counts[i] responses to prompts[i], as a list of lists of strings, in large batches."""
    rows = [tokenizer.prompt(p) for p, k in zip(prompts, counts) for _ in range(k)]
    # Similar lengths together: less padding, and whole batches finish early.
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    texts: list[str] = [""] * len(rows)
    for at in tqdm(range(0, len(rows), 512), "sampling", leave=False, disable=None):
        chosen = order[at : at + 512]
        for i, response in zip(
            chosen, generate(model, [rows[i] for i in chosen], max_new, tokenizer.eos)
        ):
            texts[i] = tokenizer.decode(response)
    ends = itertools.accumulate(counts)
    return [texts[end - k : end] for end, k in zip(ends, counts)]


@torch.no_grad()
def score_texts(
    model: ScalarGPT, tokenizer, prompts: list[str], responses: list[str]
) -> list[float]:
    """The reward model's score of each response to its prompt."""
    device, scores = model.wte.weight.device, []
    for at in range(0, len(prompts), 256):
        tokens, mask = join([tokenizer.prompt(p) for p in prompts[at : at + 256]],
                            [tokenizer.response(r) for r in responses[at : at + 256]],
                            tokenizer.pad, model.config.context, device)  # fmt: skip
        scores += model.score(tokens, mask).tolist()
    return scores


def read_known_prompts(path: str, count: int, skip: int = 0) -> list[str]:
    """The `count` prompts after the first `skip`, going on at the file's start behind its end.

    At most the whole file. Raises UserError for a prompt that no simulated labeler can judge.
    """
    prompts = [record["prompt"] for record in read_jsonl(path, "prompt")]
    skip %= len(prompts)
    prompts = (prompts[skip:] + prompts[:skip])[:count]
    for prompt in prompts:
        if parse(prompt) is None:
            raise UserError(
                f"{path}: the simulated labelers do not know {prompt!r}: bring --comparisons"
            )
    return prompts


def read_comparisons(path: str) -> list[dict]:
    """A user's file: ranked lists, or pairs, which are ranked lists of two."""
    records = read_jsonl(path, "prompt")
    if "chosen" in records[0]:
        pairs = read_jsonl(path, "prompt", "chosen", "rejected")
        return [{"prompt": pair["prompt"], "completions": [pair["chosen"], pair["rejected"]],
                 "ranks": [1, 2]} for pair in pairs]  # fmt: skip
    return read_jsonl(path, "prompt", "completions", "ranks")


def main(config: Config) -> dict:
    """Has sampled responses ranked, trains and writes the reward model; returns the metrics."""
    start = time.time()
    if not 2 <= config.k_min <= config.k_max:
        raise UserError("--k-min must be 2 or more and not above --k-max")
    if config.comparisons and (config.round > 1 or config.policies):
        raise UserError(
            "--comparisons has all that is to be learned: leave --round and --policies out"
        )
    device, tokenizer = pick_device(config.device), Tokenizer.of(config.out)
    seed, name = config.seed + 1000 * (config.round - 1), of_round("reward", config.round)
    torch.manual_seed(seed)
    rng = random.Random(seed)
    out = Path(config.out)
    sft, _ = load(out / "sft.pt", "python sft.py", tokenizer.size, device, GPT)
    demos = read_jsonl(config.demonstrations, "prompt", "completion")[:1000]
    check_room([tokenizer.prompt(d["prompt"]) for d in demos], sft.config.context)
    earlier = []
    for before in range(1, config.round):
        file = out / f"{of_round('comparisons', before)}.jsonl"
        earlier += read_jsonl(file, "prompt", "completions", "ranks")
    # 1. Comparisons: K responses per prompt from the policies in turn, ranked by one labeler.
    metrics: dict = {}
    if config.comparisons:
        comparisons = read_comparisons(config.comparisons)
        check_room([tokenizer.prompt(c["prompt"]) for c in comparisons], sft.config.context)
        # Every tenth prompt is held out, with all that belongs to it.
        asked = list(dict.fromkeys(c["prompt"] for c in comparisons))
        held_prompts = set(asked[::10])
        held = [c for c in comparisons if c["prompt"] in held_prompts]
        comparisons = [c for c in comparisons if c["prompt"] not in held_prompts]
        if not any(len(set(c["ranks"])) > 1 for c in comparisons):
            raise UserError(f"{config.comparisons} needs two or more comparisons with untied ranks")
    else:
        prompts = read_known_prompts(
            config.prompts, config.count, (config.round - 1) * config.count
        )
        valid = read_known_prompts(config.valid, max(1, config.count // 4))
        counts = [rng.randint(config.k_min, config.k_max) for _ in prompts]
        check_room([tokenizer.prompt(p) for p in prompts + valid], sft.config.context)
        newest, _ = load_round(out, "ppo", config.round - 1, tokenizer.size, device)
        policies = [load(path, "the script that makes it", tokenizer.size, device, GPT)[0]
                    for path in config.policies.split(",") if path] or [newest]  # fmt: skip
        comparisons = []
        for i, policy in enumerate(policies):
            mine, many = prompts[i :: len(policies)], counts[i :: len(policies)]
            sampled = sample_responses(policy, tokenizer, mine, many, config.max_new)
            for prompt, texts in zip(mine, sampled):
                labeler = rng.randrange(LABELERS // 2)
                ranks = ranks_of(labeler, prompt, texts, config.seed)
                comparisons.append(
                    {"prompt": prompt, "completions": texts, "ranks": ranks, "labeler": labeler}
                )
        write_jsonl(out / f"{of_round('comparisons', config.round)}.jsonl", comparisons)
        metrics["agreement"] = agreement(comparisons, config.seed)
        comparisons += earlier
        # Four responses each to prompts that the reward model is not trained on.
        texts = sample_responses(newest, tokenizer, valid, [4] * len(valid), config.max_new)
        held = [{"prompt": p, "completions": t} for p, t in zip(valid, texts)]
    metrics["sampling_seconds"] = time.time() - start
    responses = sum(len(c["ranks"]) for c in comparisons)
    print(f"{len(comparisons)} comparisons of {responses} responses in {time.time() - start:.0f} s")

    # 2. The reward model: the SFT model's body with a scalar head.
    model = copy_body(sft, ScalarGPT(sft.config).to(device))
    optimizer = torch.optim.Adam(model.parameters(), lr=config.lr, fused=True)

    def batch_of(group):
        """All responses of some prompts as one batch of rows, and their ranks (B,K)."""
        prompts = [tokenizer.prompt(c["prompt"]) for c in group for _ in c["completions"]]
        responses = [tokenizer.response(t) for c in group for t in c["completions"]]
        tokens, mask = join(prompts, responses, tokenizer.pad, sft.config.context, device)
        width = max(len(c["ranks"]) for c in group)
        ranks = torch.tensor(
            [c["ranks"] + [0] * (width - len(c["ranks"])) for c in group], device=device
        )
        return tokens, mask, ranks

    # 3. The loop: one forward pass of every response, all untied pairs of a prompt together.
    # Rows of similar length together: little padding.
    comparisons.sort(
        key=lambda c: len(tokenizer.prompt(c["prompt"] + max(c["completions"], key=len)))
    )
    groups = [
        comparisons[at : at + config.batch] for at in range(0, len(comparisons), config.batch)
    ]
    order = []
    for _ in range(config.epochs):
        rng.shuffle(groups)
        order += groups
    progress = Progress(out / f"{name}.state", config, model=model, optimizer=optimizer)
    first, history = progress.start()
    steps = len(order)
    for step in tqdm(range(first, steps), "reward", leave=False, disable=None):
        for g in optimizer.param_groups:
            g["lr"] = config.lr * cosine(step, steps)
        tokens, mask, ranks = batch_of(order[step])
        scores = torch.zeros(ranks.shape, device=device).masked_scatter(
            ranks > 0, model.score(tokens, mask)
        )
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
            tqdm.write(
                "step {step} | loss {loss:.3f} | accuracy {accuracy:.2f}".format(**history[-1])
            )
        progress.keep(step + 1, history)
    # 4. The mean score of (at most 1,000) demonstrations becomes 0: in the head's bias, so that it
    # is saved with it.
    scores = score_texts(
        model, tokenizer, [d["prompt"] for d in demos], [d["completion"] for d in demos]
    )
    with torch.no_grad():
        model.scalar.bias -= sum(scores) / len(scores)
    # 5. The policy's samples set the score of responses that never end, and the scores' spread.
    some = rng.sample(comparisons, min(len(comparisons), 300))
    flat = [(c["prompt"], t) for c in some for t in c["completions"]]
    samples = torch.tensor(score_texts(model, tokenizer, *map(list, zip(*flat))))
    save(
        out / f"{name}.pt",
        model,
        floor=samples.quantile(0.01).item(),
        spread=samples.std().item(),
    )
    # 6. Accuracy on prompts it was not trained on.
    flat = [(c["prompt"], t) for c in held for t in c["completions"]]
    scores = score_texts(model, tokenizer, *map(list, zip(*flat)))
    lengths = torch.tensor([float(len(tokenizer.encode(t))) for _, t in flat])
    metrics["length_correlation"] = torch.corrcoef(torch.stack([torch.tensor(scores), lengths]))[
        0, 1
    ].item()
    if config.comparisons:
        pairs, at = [], 0
        for c in held:
            mine, at = scores[at : at + len(c["ranks"])], at + len(c["ranks"])
            pairs.append(concordance(mine, [-rank for rank in c["ranks"]]))
        metrics["accuracy"] = interval(*zip(*pairs))
    else:
        metrics |= report(
            [c["prompt"] for c in held], [c["completions"] for c in held], scores, config.seed
        )
    metrics["seconds"] = time.time() - start
    write_jsonl(out / f"{name}.jsonl", [*history, metrics])
    progress.done()
    for metric, value in metrics.items():
        entry = value if isinstance(value, dict) else {"value": value}
        form = "{value:.3f} [{low:.3f}, {high:.3f}] n {n}" if len(entry) > 1 else "{value:.3f}"
        print(f"{metric:20} " + form.format(**entry))
    print(f"wrote {out}/{name}.pt in {metrics['seconds']:.0f} s")
    return metrics


if __name__ == "__main__":
    run(Config, main)
