"""Step 1: supervised fine-tuning on demonstrations (InstructGPT, sections 3.4-3.5 and C.1).

    python sft.py                      about 20 s on two CPU cores

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

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from tqdm import tqdm

from data.checkpoints import State, fused, load, pick_device, resumable, save
from data.files import UserError, option, run, write_jsonl
from data.forms import read
from data.tokenizer import Tokenizer
from model import GPT, cosine, generate, tokens_and_mask


@dataclass
class Config:  # a field is a flag: --seed; FAST is what --fast changes
    demonstrations: str = option("data/demonstrations.jsonl", "JSONL of prompt and completion")
    epochs: int = option(3, "passes over the demonstrations")
    batch: int = option(8, "demonstrations per step")
    lr: float = option(3e-4, "peak learning rate; cosine down to 10 %, no warm-up")
    prompt_loss: bool = option(
        False, "train on the prompt's tokens too; the held-out loss then has them"
    )
    log: int = option(50, "steps between two lines of metrics")
    out: str = option("out", "folder of checkpoints and metrics")
    device: str = option("auto", "auto, cpu, cuda, mps")
    seed: int = option(0, "of order and sampling", least=0, most=2**63 - 1)
    resume: bool = option(False, "go on with a run that was stopped")
    FAST = {"epochs": 1, "log": 20}


def sft_loss(model, tokens, mask):
    """Mean negative log-probability of the tokens where mask is 1: (B,T), (B,T) -> scalar, in nats.

    Every token weighs the same, so a long response weighs more than a short one.
    """
    return -model.logprobs(tokens, mask).sum() / mask.sum()


def collate(pairs: list[tuple], pad: int, context: int, device: str, prompt_loss: bool):
    """Pairs of prompt and response as token lists -> tokens (B,T) and the loss mask (B,T)."""
    prompts, responses = zip(*pairs)
    tokens, mask = tokens_and_mask(prompts, responses, pad, context, device)
    if prompt_loss:
        mask = (tokens != pad).float()
        mask[:, 0] = 0  # nothing stands before the first token to predict it from
    return tokens, mask


@torch.no_grad()
def held_out_loss(model, pairs: list[tuple], batch_of: Callable) -> float:
    """`sft_loss` over all pairs, in nats per token."""
    total, count = 0.0, 0.0
    for at in range(0, len(pairs), 64):
        tokens, mask = batch_of(pairs[at : at + 64])
        total += sft_loss(model, tokens, mask).item() * mask.sum().item()
        count += mask.sum().item()
    return total / count


def read_pairs(path: str, tokenizer: Tokenizer, context: int) -> tuple[list, list]:
    """Demonstrations as token lists: (those to train on, those held out, every tenth)."""
    records = read(path, "demonstrations", tokenizer, context)
    pairs = [(tokenizer.prompt(r["prompt"]), tokenizer.response(r["completion"])) for r in records]
    held = pairs[::10]
    pairs = [pair for i, pair in enumerate(pairs) if i % 10]
    if not pairs:
        raise UserError(f"{path} needs two or more demonstrations")
    # Held out are those whose prompt is not trained on; if none is left, all of them.
    trained = {tuple(prompt) for prompt, _ in pairs}
    return pairs, [pair for pair in held if tuple(pair[0]) not in trained] or held


def main(config: Config) -> dict:
    """Trains and writes the SFT model; returns the final metrics."""
    start = time.time()
    device, tokenizer, out = pick_device(config.device), Tokenizer.of(config.out), Path(config.out)
    torch.manual_seed(config.seed)
    rng = random.Random(config.seed)
    model, base = load(out / "base.pt", "python pretrain.py", tokenizer.size, device, GPT)
    context = model.config.context
    # 1. Demonstrations, in batches; every epoch shuffles anew.
    pairs, held = read_pairs(config.demonstrations, tokenizer, context)
    batch_of = partial(collate, pad=tokenizer.pad, context=context, device=device,
                       prompt_loss=config.prompt_loss)  # fmt: skip
    groups = []
    for _ in range(config.epochs):
        rng.shuffle(pairs)
        groups += [pairs[at : at + config.batch] for at in range(0, len(pairs), config.batch)]
    # 2. The loop, one step per batch.
    state = State(out / "sft.state", config, base=model)
    optimizer = torch.optim.Adam(model.parameters(), lr=config.lr, fused=fused(device))
    history, steps = [], len(groups)
    for step, group in resumable(groups, state, history, model=model, optimizer=optimizer):
        for g in optimizer.param_groups:
            g["lr"] = config.lr * cosine(step, steps)
        loss = sft_loss(model, *batch_of(group))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if (step + 1) % config.log == 0 or step + 1 == steps:
            held_loss = held_out_loss(model, held, batch_of)
            history.append({"step": step + 1, "loss": loss.item(), "held_loss": held_loss})
            line = "step {step} | loss {loss:.3f} | held-out loss {held_loss:.3f}"
            tqdm.write(line.format(**history[-1]))
    # 3. The product.
    metrics = {"held_loss": history[-1]["held_loss"], "seconds": time.time() - start}
    write_jsonl(out / "sft.jsonl", [*history, metrics])
    save(out / "sft.pt", model, made_from={"base": base["checksum"]})
    # 4. The same question that the base model merely continued.
    prompt = "What color is a lemon?"
    row = tokenizer.prompt(prompt)[: context - 1]
    sample = tokenizer.decode(generate(model, [row], 40, tokenizer.eos)[0])
    print(f"sample | {prompt}\n{sample}\nwrote {out}/sft.pt in {metrics['seconds']:.0f} s")
    return metrics


if __name__ == "__main__":
    run(Config, main)
