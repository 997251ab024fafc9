"""Step 1: supervised fine-tuning on demonstrations (InstructGPT, sections 3.4-3.5 and C.1).

    python sft.py                      about 15 s on two CPU cores

Fine-tunes the base model on what contractors wrote: prompt, newline, response, EOS. The loss is
the cross-entropy of the response tokens. Half of the contractors are careless, so the model
imitates a mixture of good and hasty answers; step 2 is what tells them apart.

Reads out/base.pt and data/demonstrations.jsonl; writes out/sft.pt and out/sft.jsonl.

Differences from the paper
  1. 3 epochs instead of 16, no dropout (the paper: 0.2): the demonstrations are 1,800, not 13,000.
     Batches of 8 (theirs 32, and 8 for 175 B), and Adam's betas (0.9, 0.999), not (0.9, 0.95).
  2. The prompt is masked out of the loss; the paper does not say. --prompt-loss trains on it too.
  3. The last checkpoint is kept; the paper chooses one by its reward-model score.

Dimension key: B batch, T tokens.
"""

import math
import random
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from tqdm import tqdm

from data.checkpoints import Progress, pick_device, save
from data.convert import initial
from data.files import UserError, option, read_jsonl, run, write_jsonl
from model import check_room, generate, join


@dataclass
class Config:
    demonstrations: str = option("data/demonstrations.jsonl", "JSONL of prompt and completion")
    epochs: int = option(3, "passes over the demonstrations")
    batch: int = option(8, "demonstrations per step")
    lr: float = option(3e-4, "peak learning rate; cosine down to 10 %, no warm-up")
    prompt_loss: bool = option(
        False, "train on the prompt's tokens too; the held-out loss then has them"
    )
    init: str = option(
        "", "checkpoint, or GPT-2 on disk, to start from (default: base.pt in --out)"
    )
    log: int = option(50, "steps between two lines of metrics")
    out: str = option("out", "folder of checkpoints and metrics")
    device: str = option("auto", "auto, cpu, cuda, mps")
    seed: int = option(0, "of order and sampling")
    resume: bool = option(False, "go on with a run that was stopped")
    FAST = {"epochs": 1, "log": 20}


def sft_loss(model, tokens, mask):
    """Mean negative log-probability of the tokens where mask is 1: (B,T), (B,T) -> scalar, in nats.

    Every token weighs the same, so a long response weighs more than a short one.
    """
    return -model.logprobs(tokens, mask).sum() / mask.sum()


def cosine(step: int, steps: int) -> float:
    """The factor of the peak learning rate: from 1 down to 10 % along a cosine (as in C.1)."""
    return 0.1 + 0.45 * (1 + math.cos(math.pi * step / steps))


def main(config: Config) -> dict:
    """Trains and writes the SFT model; returns the final metrics."""
    start = time.time()
    device = pick_device(config.device)
    torch.manual_seed(config.seed)
    rng = random.Random(config.seed)
    out = Path(config.out)
    model, tokenizer = initial(config.init or out / "base.pt", device)
    tokenizer.claim(out)
    # 1. Demonstrations as token lists; every tenth is held out for the validation loss,
    # unless its prompt comes among the others too.
    pairs = []
    for record in read_jsonl(config.demonstrations, "prompt", "completion"):
        prompt = tokenizer.prompt(record["prompt"])
        pairs.append((prompt, tokenizer.response(record["completion"])))
    check_room([prompt for prompt, _ in pairs], model.config.context)
    held, pairs = pairs[::10], [pair for i, pair in enumerate(pairs) if i % 10]
    if not pairs:
        raise UserError(f"{config.demonstrations} needs two or more demonstrations")
    trained = {tuple(prompt) for prompt, _ in pairs}
    held = [(p, r) for p, r in held if tuple(p) not in trained] or held

    def batch_of(group):
        tokens, mask = join(*zip(*group), tokenizer.pad, model.config.context, device)
        if config.prompt_loss:
            mask = (tokens != tokenizer.pad).float()
            mask[:, 0] = 0
        return tokens, mask

    @torch.no_grad()
    def held_loss() -> float:
        total, count = 0.0, 0.0
        for at in range(0, len(held), 64):
            tokens, mask = batch_of(held[at : at + 64])
            total += sft_loss(model, tokens, mask).item() * mask.sum().item()
            count += mask.sum().item()
        return total / count

    # 2. The order: every epoch shuffles anew.
    groups = []
    for _ in range(config.epochs):
        rng.shuffle(pairs)
        groups += [pairs[at : at + config.batch] for at in range(0, len(pairs), config.batch)]
    # 3. The loop, one step per batch.
    optimizer = torch.optim.Adam(model.parameters(), lr=config.lr, fused=True)
    progress = Progress(out / "sft.state", config, model=model, optimizer=optimizer)
    first, history = progress.start()
    steps = len(groups)
    for step in tqdm(range(first, steps), "sft", leave=False, disable=None):
        for group in optimizer.param_groups:
            group["lr"] = config.lr * cosine(step, steps)
        loss = sft_loss(model, *batch_of(groups[step]))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if (step + 1) % config.log == 0 or step + 1 == steps:
            history.append({"step": step + 1, "loss": loss.item(), "held_loss": held_loss()})
            tqdm.write(
                "step {step} | loss {loss:.3f} | held-out loss {held_loss:.3f}".format(
                    **history[-1]
                )
            )
        progress.keep(step + 1, history)
    # 4. The product.
    tokenizer.save(out)
    save(out / "sft.pt", model)
    # 5. The same question that the base model merely continued.
    prompt = "What color is a lemon?"
    row = tokenizer.prompt(prompt)[: model.config.context - 1]
    sample = tokenizer.decode(generate(model, [row], 40, tokenizer.eos)[0])
    metrics = {"held_loss": history[-1]["held_loss"], "seconds": time.time() - start}
    write_jsonl(out / "sft.jsonl", [*history, metrics])
    progress.done()
    print(f"sample | {prompt}\n{sample}\nwrote {out}/sft.pt in {metrics['seconds']:.0f} s")
    return metrics


if __name__ == "__main__":
    run(Config, main)
