"""The GPT, its scalar-headed sibling, and sampling: what all steps share.

The architecture is GPT-2's (Radford et al. 2019): learned positions, pre-LayerNorm blocks, tanh
GELU, biases everywhere, the output head tied to the token embedding; there is no dropout, so
train and eval mode are the same. The start of the weights is not GPT-2's: its standard deviation of
0.02 suits its width of 768, and a small model with random attention takes millions of tokens to
find out how to copy from its context. Here it is 1/sqrt(width), positions start as sinusoids, and
queries as keys (see `GPT`).

Dimension key: B batch, T tokens, C width, H heads, D = C / H, V vocabulary, L layers, M cache.

Conventions, the same in every file:
  tokens  (B,T)  prompt, newline, response, EOS, then PAD to the right. A causal model never looks
                 to the right, so padding needs no attention mask.
  mask    (B,T)  1.0 on response tokens, the EOS among them, else 0.0.
  logp    (B,T)  logp[:, t] is the log-probability of token t given the tokens before it. It is read
                 at position t-1, and so is the value of a token. Column 0 is 0.
PAD has a row in the embedding but no output in the head: it can be read but never sampled.
"""

import math
import os
from dataclasses import dataclass

import torch
import torch.nn as nn
import torch.nn.functional as F

from data.files import UserError


# ---------------------------------------------------------------------------------- architecture
@dataclass
class GPTConfig:
    vocab_size: int  # predictable tokens, EOS included, PAD not
    context: int = 256  # the most tokens of prompt and response together
    layers: int = 4
    heads: int = 4
    width: int = 128


class Attention(nn.Module):
    """Causal multi-head self-attention, with an optional cache of earlier keys and values."""

    def __init__(self, config: GPTConfig):
        super().__init__()
        self.heads = config.heads
        self.qkv = nn.Linear(config.width, 3 * config.width)
        self.proj = nn.Linear(config.width, config.width)

    def forward(self, x, positions=None, cache=None):
        B, T, C = x.shape
        # (B,T,3C) -> three of (B,H,T,D)
        q, k, v = self.qkv(x).view(B, T, 3, self.heads, C // self.heads).permute(2, 0, 3, 1, 4)
        if cache is None:
            visible = torch.ones(T, T, dtype=torch.bool, device=x.device).tril()
        else:
            # Row b writes token t at its own position; what lies beyond it is not visible yet.
            keys, values = cache
            rows = torch.arange(B, device=x.device)[:, None]
            keys[rows, :, positions] = k.transpose(1, 2)
            values[rows, :, positions] = v.transpose(1, 2)
            k, v = keys, values
            visible = torch.arange(k.shape[2], device=x.device) <= positions[:, None, :, None]
        # (B,H,T,D) @ (B,H,D,M) -> (B,H,T,M), M = T without a cache
        scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
        weights = scores.masked_fill(~visible, -torch.inf).softmax(dim=-1)
        # (B,H,T,M) @ (B,H,M,D) -> (B,H,T,D) -> (B,T,C)
        y = (weights @ v).transpose(1, 2).reshape(B, T, C)
        return self.proj(y)


class Block(nn.Module):
    def __init__(self, config: GPTConfig):
        super().__init__()
        self.ln_1 = nn.LayerNorm(config.width)
        self.attention = Attention(config)
        self.ln_2 = nn.LayerNorm(config.width)
        self.up = nn.Linear(config.width, 4 * config.width)
        self.down = nn.Linear(4 * config.width, config.width)

    def forward(self, x, positions=None, cache=None):
        x = x + self.attention(self.ln_1(x), positions, cache)
        return x + self.down(F.gelu(self.up(self.ln_2(x)), approximate="tanh"))


def sinusoids(context: int, width: int):
    """(context, width): a sine and a cosine of the position at width/2 frequencies, as a start.

    The positions are learned from here on. Seen from a sinusoid, "two tokens back" is the same
    rotation everywhere, so the model learns it once and not for every position anew.
    """
    angles = torch.arange(context)[:, None] * 200.0 ** (-torch.arange(0, width, 2) / width)
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)


class GPT(nn.Module):
    """tokens (B,T) of int64 -> logits (B,T,V). `logits[:, t]` predicts token t+1."""

    def __init__(self, config: GPTConfig):
        super().__init__()
        if config.width % config.heads or config.width % 2 or config.context < 2:
            raise UserError(
                f"a width of {config.width} must be even and a multiple of {config.heads} heads, "
                f"and a context of {config.context} at least 2"
            )
        self.config = config
        self.wte = nn.Embedding(config.vocab_size + 1, config.width)  # the last row is PAD
        self.wpe = nn.Embedding(config.context, config.width)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.ln_f = nn.LayerNorm(config.width)
        for name, p in self.named_parameters():
            if name == "wpe.weight":
                # Of norm 1, about that of a token's embedding.
                p.data = sinusoids(config.context, config.width) / math.sqrt(config.width / 2)
            elif p.dim() == 2:
                # Two residual branches a layer add up: their last matrices start smaller (GPT-2).
                # The attention's, `proj`, is set below.
                std = 1 / math.sqrt(config.width)
                residual = name.endswith("down.weight")
                nn.init.normal_(p, std=std / math.sqrt(2 * config.layers) if residual else std)
            elif name.endswith("bias"):
                nn.init.zeros_(p)
        # Mimetic initialization, after Trockman & Kolter (2023): a query starts as its own key, so
        # a head looks for what is alike. Value and output projection make about the identity
        # (theirs, for images, minus the identity): what a head finds comes out as it went in. After
        # 0.2 M tokens of lists said twice, the word to copy has a probability of 0.9; without this
        # start, 0.1.
        for attention in (block.attention for block in self.blocks):
            q, k, v = attention.qkv.weight.data.chunk(3)
            k.copy_(q)
            attention.proj.weight.data = v.T / math.sqrt(2 * config.layers)

    def hidden(self, tokens, positions=None, cache=None):
        """tokens (B,T) -> the last LayerNorm's output (B,T,C)."""
        if positions is None:
            positions = torch.arange(tokens.shape[1], device=tokens.device)
        x = self.wte(tokens) + self.wpe(positions)
        for i, block in enumerate(self.blocks):
            x = block(x, positions, None if cache is None else cache[i])
        return self.ln_f(x)

    def hidden_of_rows(self, tokens, parts: int = 4):
        """`hidden` of padded rows, in parts from short to long: padding is hardly computed.

        tokens (B,T) -> (B,T,C), 0 beyond the longest row of its part, where all is padding.
        """
        lengths, order = (tokens != self.config.vocab_size).sum(dim=1).sort()
        hidden = []
        for rows, widths in zip(order.chunk(parts), lengths.chunk(parts)):
            short = self.hidden(tokens[rows, : widths[-1]])
            hidden.append(F.pad(short, (0, 0, 0, tokens.shape[1] - short.shape[1])))
        return torch.cat(hidden)[order.argsort()]

    def head(self, hidden):
        """(...,C) -> logits (...,V), with the token embedding's own weights."""
        return hidden @ self.wte.weight[: self.config.vocab_size].T

    def forward(self, tokens):
        return self.head(self.hidden(tokens))

    def logprobs(self, tokens, mask):
        """Log-probabilities, at temperature 1, of the tokens where mask is 1.

        tokens (B,T) int64, mask (B,T) with mask[:, 0] = 0 -> logp (B,T), 0.0 where mask is 0.
        Only positions that predict such a token go through the head: on prompts its cost is saved.
        """
        assert tokens.shape == mask.shape, f"tokens {tokens.shape} but mask {mask.shape}"
        chosen = mask[:, 1:] > 0
        logits = self.head(self.hidden_of_rows(tokens)[:, :-1][chosen])  # (N,V)
        logp = -F.cross_entropy(logits, tokens[:, 1:][chosen], reduction="none")  # (N,)
        return torch.zeros(mask.shape, dtype=logp.dtype, device=mask.device).masked_scatter(
            F.pad(chosen, (1, 0)), logp
        )


def last_token(mask):
    """The position of each row's last token where mask is 1: (B,T) -> (B,) int64."""
    return (mask * torch.arange(mask.shape[1], device=mask.device)).argmax(dim=1)


class ScalarGPT(GPT):
    """The GPT with a scalar head in place of the unembedding: tokens (B,T) -> scalars (B,T).

    As a reward model it is read at the last response token, as a value network before each one.
    The head's weight starts with standard deviation 1/sqrt(C+1) and bias 0 (Stiennon et al. 2020).
    """

    def __init__(self, config: GPTConfig):
        super().__init__(config)
        self.scalar = nn.Linear(config.width, 1)
        nn.init.normal_(self.scalar.weight, std=1 / math.sqrt(config.width + 1))
        nn.init.zeros_(self.scalar.bias)

    def forward(self, tokens):
        return self.scalar(self.hidden(tokens)).squeeze(-1)

    def score(self, tokens, mask):
        """The reward of each row, read at its last response token: (B,T), (B,T) -> (B,)."""
        rows = torch.arange(len(tokens), device=tokens.device)
        return self.scalar(self.hidden_of_rows(tokens)[rows, last_token(mask)]).squeeze(-1)

    def values(self, tokens, mask):
        """The value of each token where mask is 1, read a position before it: -> (B,T), else 0."""
        return F.pad(self.scalar(self.hidden_of_rows(tokens)).squeeze(-1)[:, :-1], (1, 0)) * mask


def copy_body(source: GPT, target: GPT) -> GPT:
    """Copies all weights that both have: a reward model starts as the policy's body."""
    target.load_state_dict(source.state_dict(), strict=False)
    return target


# -------------------------------------------------------------------------------------- batches
def pad_rows(rows: list[list[int]], pad: int, device="cpu"):
    """Rows of unequal length -> (B,T) int64, padded on the right."""
    width = max(map(len, rows))
    return torch.tensor([row + [pad] * (width - len(row)) for row in rows], device=device)


def join(
    prompts: list[list[int]], responses: list[list[int]], pad: int, context: int, device="cpu"
):
    """Token lists of prompts and responses -> tokens (B,T) and the mask of response tokens (B,T).

    A response is cut where the context ends. Raises UserError for a prompt that leaves no room.
    """
    check_room(prompts, context)
    rows = [(p + r)[:context] for p, r in zip(prompts, responses)]
    mask = [[0] * len(p) + [1] * (len(row) - len(p)) for p, row in zip(prompts, rows)]
    return pad_rows(rows, pad, device), pad_rows(mask, 0, device).float()


def check_room(prompts: list[list[int]], context: int) -> None:
    longest = max(map(len, prompts))
    if longest >= context:
        raise UserError(
            f"a prompt of {longest} tokens is too long: "
            f"the context has {context} tokens for prompt and response"
        )


# ------------------------------------------------------------------------------------- sampling
@torch.no_grad()
def generate(model: GPT, prompts: list[list[int]], max_new: int, eos: int, temperature=1.0):
    """Samples a response to each prompt: a list of token lists, each ending with EOS or cut off.

    The prompts may have unequal lengths. Every row keeps its own positions in one preallocated
    cache, so nothing is padded on the left; rows that are done are dropped now and then.
    temperature 0 takes the most likely token. There is no top-k or top-p.
    Raises UserError when a prompt leaves no room for a response in the context.
    """
    config, device = model.config, model.wte.weight.device
    check_room(prompts, config.context)
    lengths = torch.tensor([len(p) for p in prompts], device=device)
    tokens = pad_rows(prompts, config.vocab_size, device)
    B, T = tokens.shape
    room = min(config.context, T + max_new)
    cache = torch.zeros(
        config.layers, 2, B, config.heads, room, config.width // config.heads, device=device
    )
    # Prefill: what all prompts begin with, such as a page of examples, is read only once. Padding
    # writes keys too, but each row overwrites them before it can see them.
    positions = torch.arange(T, device=device).expand(B, T)
    shared = min(len(os.path.commonprefix(prompts)), min(map(len, prompts)) - 1)
    if shared:
        model.hidden(tokens[:1, :shared], positions[:1, :shared], cache[:, :, :1, :, :shared])
        cache[:, :, 1:, :, :shared] = cache[:, :, :1, :, :shared]
    hidden = model.hidden(tokens[:, shared:], positions[:, shared:], cache[:, :, :, :, :T])
    hidden = hidden[torch.arange(B, device=device), lengths - shared - 1]  # (B,C)
    rows = torch.arange(B, device=device)  # the rows that still run
    out = torch.full((B, max_new), eos, device=device)
    done = torch.zeros(B, dtype=torch.bool, device=device)
    for step in range(max_new):
        logits = model.head(hidden)  # (B,V)
        if temperature == 0:
            token = logits.argmax(dim=-1)
        else:
            # The first token at which the cumulative probability exceeds a uniform number.
            below = (logits / temperature).softmax(dim=-1).cumsum(dim=-1)
            drawn = torch.rand(len(below), 1, device=device) * below[:, -1:]
            token = torch.searchsorted(below, drawn, right=True).squeeze(1)
            token = token.clamp(max=config.vocab_size - 1)
        token = torch.where(done, eos, token)
        out[rows, step] = token
        position = lengths + step
        done = done | (token == eos) | (position >= config.context)
        if step % 4 == 3:
            # Dropping asks the device how many are done, so not at every step.
            running = (~done).nonzero().squeeze(1)
            if len(running) == 0:
                break
            if len(running) < 0.8 * len(done):
                cache = cache.index_select(2, running)
                rows, token, lengths, done = (x[running] for x in (rows, token, lengths, done))
                position = position[running]
        seen = min(room, T + step + 1)
        position = position.clamp(max=room - 1)[:, None]
        hidden = model.hidden(token[:, None], position, cache[:, :, :, :, :seen])[:, 0]
    responses = []
    for prompt, row in zip(prompts, out.tolist()):
        row = row[: config.context - len(prompt)]
        responses.append(row[: row.index(eos) + 1] if eos in row else row)
    return responses
