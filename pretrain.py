"""Step 0: a base language model from random weights (the miniature's GPT-3).

    python pretrain.py                 about 365 s on two CPU cores

Trains a 1 M parameter GPT on the small web corpus, which is made in seconds. It learns words,
facts, and to copy from its context, but not to follow instructions: after a question it often goes
on with more questions, because that is what follows questions on quiz pages.

Writes out/base.pt and out/pretrain.jsonl (a line of metrics per log), and out/vocab.tiktoken where
--vocabulary trains one.

Differences from GPT-3
  1. 1 M parameters and 4 M tokens instead of 175 B and 300 B.
  2. One document per row instead of packed rows: attention never crosses a document. Packed, so
     small a model did not learn to copy from its context at all.

Dimension key: B batch, T tokens, V vocabulary.
"""

import itertools
import math
import random
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from tqdm import tqdm

from data import make
from data.checkpoints import State, fused, pick_device, resumable, save
from data.files import UserError, option, run, write_jsonl
from data.forms import read
from data.tokenizer import Tokenizer, train_bpe
from model import GPT, GPTConfig, generate, pad_rows

TOKENS_PER_DOCUMENT = 45  # of the small web, rounded, so that hardly a document comes twice


@dataclass
class Config:  # a field is a flag: --seed; FAST is what --fast changes
    tokens: int = option(4_200_000, "training tokens")
    batch: int = option(256, "tokens per step at first, padding included")
    growth: float = option(0.2, "later, tokens per step for 1,000 tokens trained on so far")
    lr: float = option(1.5e-3, "peak learning rate of AdamW")
    warmup: float = option(0.05, "share of the tokens with rising learning rate")
    decay: float = option(0.2, "share of the tokens with falling learning rate, at the end")
    weight_decay: float = option(0.1, "on matrices, not on biases and LayerNorms")
    layers: int = option(4, "transformer blocks")
    heads: int = option(4, "attention heads")
    width: int = option(128, "width of the residual stream")
    context: int = option(256, "the longest row in tokens", least=2)
    log: int = option(500, "steps between two lines of metrics")
    text: str = option("", 'your own corpus, a JSONL file of {"text"}; empty for the small web')
    vocabulary: int = option(
        0, "tokens of a vocabulary trained on --text; 0 is the small world's", least=0
    )
    out: str = option("out", "folder of checkpoints and metrics")
    device: str = option("auto", "auto, cpu, cuda, mps")
    seed: int = option(0, "of weights, order and sampling", least=0, most=2**63 - 1)
    resume: bool = option(False, "go on with a run that was stopped")
    FAST = {"tokens": 60_000, "log": 20}


def rows_of(document: list[int], context: int) -> list[list[int]]:
    """A document's tokens as rows that fit: each starts with the last token of the one before.

    A row's first token is given and not predicted, so every other token is predicted once.
    """
    starts = range(0, max(1, len(document) - 1), context - 1)
    return [document[at : at + context] for at in starts]


def batches(rows: list[list[int]], config: Config, rng: random.Random):
    """Yields lists of rows of similar length until config.tokens are used up.

    Sorting only within pools of rows keeps kinds of documents mixed and padding small.

    Batches grow from pool to pool, as GPT-3's did in its first part (Brown et al. 2020, appendix
    B). At first a small one shows the way well enough. The better the model, the more of its
    gradient is noise, and a larger batch averages it. Fewer and larger steps take less time.
    """
    seen = 0
    for start in itertools.cycle(range(0, len(rows), 2048)):
        size = max(config.batch, config.growth / 1000 * seen)
        groups = [[]]
        for row in sorted(rows[start : start + 2048], key=len):
            if groups[-1] and (len(groups[-1]) + 1) * len(row) > size:
                groups.append([])
            groups[-1].append(row)
        rng.shuffle(groups)
        for group in groups:
            yield group
            seen += sum(map(len, group))
            if seen >= config.tokens:
                return


def learning_rate(progress: float, warmup: float, decay: float) -> float:
    """The factor of the peak rate: it rises from 0, stays, and falls to 0 at the end (progress 1).

    The first step, at progress 0, so changes nothing.
    """
    return max(0.0, min(1.0, progress / max(1e-9, warmup), (1 - progress) / max(1e-9, decay)))


def loss_of(model: GPT, rows: list[list[int]], pad: int, device: str):
    """Mean cross-entropy of all tokens but the first of each row, in nats."""
    tokens = pad_rows(rows, pad, device)
    logits = model(tokens[:, :-1])  # (B,T-1,V)
    return F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten(), ignore_index=pad)


@torch.no_grad()
def held_out_loss(model: GPT, rows: list[list[int]], tokenizer: Tokenizer, device: str):
    """(nats per token, bits per byte of text) of documents that were not trained on."""
    nats = sum(loss_of(model, [r], tokenizer.pad, device).item() * (len(r) - 1) for r in rows)
    # The first token is given, so its bytes do not count.
    lengths = [[len(tokenizer.decode(part).encode()) for part in (row, row[:1])] for row in rows]
    predicted = sum(whole - first for whole, first in lengths)
    return nats / max(1, sum(len(r) - 1 for r in rows)), nats / math.log(2) / max(1, predicted)


def read_corpus(config: Config, rng: random.Random):
    """The texts to train on: of --text in random order, or of the small web."""
    if not config.text:
        many = max(2000, config.tokens // TOKENS_PER_DOCUMENT)
        return tqdm(make.corpus(many), "corpus", many, leave=False, disable=None)
    records = read(config.text, "texts")
    texts = list(dict.fromkeys(r["text"] for r in records if r["text"].strip()))
    left_out = len(records) - len(texts)
    print(f"{config.text}: {len(records):,} documents"
          + f" | {left_out:,} left out, empty or repeated" * (left_out > 0))  # fmt: skip
    rng.shuffle(texts)
    return texts


def main(config: Config) -> dict:
    """Trains and writes the base model; returns the final metrics."""
    start = time.time()
    device = pick_device(config.device)
    torch.manual_seed(config.seed)
    rng = random.Random(config.seed)
    if config.vocabulary and (config.vocabulary < 258 or not config.text):
        raise UserError("--vocabulary is for --text, and 258 or more")
    if config.width % config.heads or config.width % 2:
        raise UserError(f"--width must be even and a multiple of {config.heads} heads")
    state = State(Path(config.out) / "base.state", config)
    # 1. The corpus, a document per row, ended by EOS; the last 500, at most a quarter, held out.
    texts = read_corpus(config, rng)
    tokenizer = Tokenizer(train_bpe(texts, config.vocabulary - 1) if config.vocabulary else None)
    shape = (config.context, config.layers, config.heads, config.width)
    model = GPT(GPTConfig(tokenizer.size, *shape)).to(device)
    documents = [rows_of(tokenizer.document(text), config.context) for text in texts]
    if not config.text:  # hardly a page of the small web is longer: its rest is left out
        documents = [rows[:1] for rows in documents]
    if len(documents) == 1:  # a whole book, say: its rows are held out as documents are
        documents = [[row] for row in documents[0]]
    if len(documents) < 2:
        raise UserError(f"{config.text} needs two or more documents, or a long one")
    tokenizer.save(config.out)
    n_held = max(1, min(500, len(documents) // 4))
    rows, held = (list(itertools.chain(*some)) for some in
                  (documents[:-n_held], documents[-n_held:]))  # fmt: skip
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters, "
          f"{len(documents) - n_held:,} documents in {len(rows):,} rows")  # fmt: skip
    # 2. Batches until the tokens are used up, one pass after another over the documents.
    groups = list(batches(rows, config, rng))
    seen = list(itertools.accumulate((sum(map(len, group)) for group in groups), initial=0))
    # 3. The optimizer: weight decay on matrices only.
    matrices = [p for p in model.parameters() if p.dim() == 2]
    others = [p for p in model.parameters() if p.dim() != 2]
    parameters = [{"params": matrices}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(parameters, weight_decay=config.weight_decay, fused=fused(device))
    # 4. The loop.
    out, history, trained, loop_start = Path(config.out), [], 0, time.time()
    for step, group in resumable(groups, state, history, model=model, optimizer=optimizer):
        for g in optimizer.param_groups:
            progress = seen[step] / config.tokens
            g["lr"] = config.lr * learning_rate(progress, config.warmup, config.decay)
        loss = loss_of(model, group, tokenizer.pad, device)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        trained += sum(map(len, group))
        if (step + 1) % config.log == 0:
            speed = trained / (time.time() - loop_start)
            history.append({"step": step + 1, "tokens": seen[step + 1], "loss": loss.item()})
            line = "step {step} | tokens {tokens} | loss {loss:.3f} | {speed:.0f} tok/s"
            tqdm.write(line.format(**history[-1], speed=speed))
    speed = trained / (time.time() - loop_start)
    # 5. What was held out, and the product.
    loss, bits = held_out_loss(model, held, tokenizer, device)
    metrics = {"loss": loss, "bits_per_byte": bits, "tokens": seen[-1], "tokens_per_second": speed,
               "seconds": time.time() - start}  # fmt: skip
    write_jsonl(out / "pretrain.jsonl", [*history, metrics])
    save(out / "base.pt", model, made_from={})
    print(f"held-out loss {loss:.3f} nats per token, {bits:.3f} bits per byte, {speed:,.0f} tok/s")
    # 6. A raw language model continues a question with more text, not with an answer.
    prompt = "What color is a lemon?"
    row = tokenizer.prompt(prompt)[: config.context - 1]
    sample = tokenizer.decode(generate(model, [row], 40, tokenizer.eos)[0])
    print(f"sample | {prompt}\n{sample}\nwrote {out}/base.pt in {metrics['seconds']:.0f} s")
    return metrics


if __name__ == "__main__":
    run(Config, main)
