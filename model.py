"""The GPT, its scalar-headed sibling, and sampling: what all steps share.

The architecture is GPT-2's (Radford et al. 2019): learned positions, pre-LayerNorm blocks, tanh
GELU, biases everywhere, the output head tied to the token embedding. There is no dropout, so train
and eval mode are the same. What is not GPT-2's is how the weights start: see `start_weights`.

Read it in this order: the architecture, batches, one token drawn, a whole response. What comes
after that makes it fast and changes no result; each part says what it saves.

Dimension key: B batch, T tokens, C width, H heads, D = C / H, V vocabulary, L layers, M tokens in
the cache, N tokens picked by a mask.

Conventions, the same in every file:
  tokens  (B,T)  prompt, newline, response, EOS, then PAD to the right. A causal model never looks
                 to the right, so padding needs no attention mask.
  mask    (B,T)  1.0 on response tokens, the EOS among them, else 0.0.
  logp    (B,T)  logp[:, t] is the log-probability of token t given the tokens before it. It is read
                 from the model's output at position t-1. Column 0 is 0.
PAD has a row in the embedding but no output in the head: it can be read but never sampled.
"""

import itertools
import math
from dataclasses import dataclass

import torch
import torch.nn as nn
import torch.nn.functional as F
from tqdm import tqdm


# ---------------------------------------------------------------------------------- architecture
@dataclass
class GPTConfig:
    vocab_size: int  # predictable tokens, EOS included, PAD not
    context: int = 256  # the most tokens of prompt and response together
    layers: int = 4
    heads: int = 4
    width: int = 128


class Attention(nn.Module):
    """Causal multi-head self-attention: (B,T,C) -> (B,T,C).

    visible (B,1,T,T) says what each token sees, where that is not itself and all those before it.
    With a cache, which only sampling has, x holds new tokens alone and `remember` adds the earlier
    ones' keys and values.
    """

    def __init__(self, config: GPTConfig):
        super().__init__()
        self.heads = config.heads
        self.qkv = nn.Linear(config.width, 3 * config.width)
        self.proj = nn.Linear(config.width, config.width)

    def forward(self, x, positions=None, cache=None, visible=None):
        B, T, C = x.shape
        # (B,T,3C) -> three of (B,T,C) -> three of (B,H,T,D)
        q, k, v = (
            part.view(B, T, self.heads, C // self.heads).transpose(1, 2)
            for part in self.qkv(x).chunk(3, dim=-1)
        )
        if cache is not None:
            k, v, visible = remember(k, v, positions, cache)
        elif visible is None:
            # A token sees itself and those before it: (T,T)
            visible = torch.ones(T, T, dtype=torch.bool, device=x.device).tril()
        # (B,H,T,D) @ (B,H,D,M) -> (B,H,T,M), M = T without a cache
        att = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
        # The mask is small and is added: masked_fill would copy all scores, and their gradient.
        att = (att + torch.where(visible, 0.0, -torch.inf)).softmax(dim=-1)
        # (B,H,T,M) @ (B,H,M,D) -> (B,H,T,D) -> (B,T,C)
        y = (att @ v).transpose(1, 2).reshape(B, T, C)
        return self.proj(y)


class Block(nn.Module):
    def __init__(self, config: GPTConfig):
        super().__init__()
        self.ln_1 = nn.LayerNorm(config.width)
        self.attention = Attention(config)
        self.ln_2 = nn.LayerNorm(config.width)
        self.up = nn.Linear(config.width, 4 * config.width)
        self.down = nn.Linear(4 * config.width, config.width)

    def forward(self, x, positions=None, cache=None, visible=None):
        x = x + self.attention(self.ln_1(x), positions, cache, visible)
        return x + self.down(F.gelu(self.up(self.ln_2(x)), approximate="tanh"))


class GPT(nn.Module):
    """tokens (B,T) of int64 -> logits (B,T,V). `logits[:, t]` predicts token t+1."""

    def __init__(self, config: GPTConfig):
        super().__init__()
        if config.width % config.heads or config.width % 2 or config.context < 2:
            raise ValueError(
                f"a width of {config.width} must be even and a multiple of {config.heads} heads, "
                f"and a context of {config.context} at least 2"
            )
        self.config = config
        self.wte = nn.Embedding(config.vocab_size + 1, config.width)  # the last row is PAD
        self.wpe = nn.Embedding(config.context, config.width)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.ln_f = nn.LayerNorm(config.width)
        start_weights(self)

    def hidden(self, tokens, positions=None, cache=None, visible=None):
        """tokens (B,T) -> the last LayerNorm's output (B,T,C).

        For sampling: positions (B,T) of the tokens in their rows, cache (L,2,B,H,M,D). For several
        responses in a row: positions, and visible (B,1,T,T), what each token sees.
        """
        if positions is None:
            positions = torch.arange(tokens.shape[1], device=tokens.device)
        x = self.wte(tokens) + self.wpe(positions)
        for i, block in enumerate(self.blocks):
            x = block(x, positions, None if cache is None else cache[i], visible)
        return self.ln_f(x)

    def head(self, hidden):
        """(...,C) -> logits (...,V), with the token embedding's own weights."""
        return hidden @ self.wte.weight[: self.config.vocab_size].T

    def forward(self, tokens):
        return self.head(self.hidden(tokens))

    def logprobs(self, tokens, mask):
        """Log-probabilities, at temperature 1, of the tokens where mask is 1.

        tokens (B,T) int64, mask (B,T) with mask[:, 0] = 0 -> logp (B,T), 0.0 where mask is 0.
        The log-softmax of the logits, gathered at the next token. Only the N positions before a
        token of the mask go through the head, the model's largest matrix.
        """
        assert tokens.shape == mask.shape, f"tokens {tokens.shape} but mask {mask.shape}"
        # The rows and the columns of the N, found once: an index that is a mask looks each time.
        chosen = (mask[:, 1:] > 0).nonzero(as_tuple=True)
        hidden = hidden_by_length(self, tokens)  # as self.hidden, but faster
        logits = self.head(hidden[:, :-1][chosen])  # (N,V)
        following = tokens[:, 1:][chosen]  # (N,)
        logp = torch.zeros(mask.shape, dtype=logits.dtype, device=mask.device)
        logp[:, 1:][chosen] = logits.log_softmax(dim=-1).gather(1, following[:, None]).squeeze(1)
        return logp


class ScalarGPT(GPT):
    """The GPT with a scalar head in place of the unembedding: tokens (B,T) -> scalars (B,T).

    As a reward model it says how good a whole response is, read at the last response token. As a
    value network it says before each token what reward is still to come.
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
        last = hidden_by_length(self, tokens)[rows, last_token(mask)]  # (B,C)
        return self.scalar(last).squeeze(-1)

    def score_each(self, tokens, positions, part, most: int):
        """The rewards of up to `most` responses to each prompt, which is read once: -> (B,most).

        They stand behind it one after another: part (B,T) is 0 on the prompt, k on the k-th
        response, -1 on padding, and all positions go on from the prompt's end. A response sees the
        prompt and itself, not the others, so its score is as if it stood alone. Where there is no
        k-th response the score means nothing.
        """
        same = part[:, :, None] == part[:, None, :]
        visible = (same | (part[:, None, :] == 0)).tril()[:, None]
        every = self.scalar(self.hidden(tokens, positions, visible=visible)).squeeze(-1)  # (B,T)
        number = torch.arange(1, most + 1, device=part.device)[:, None]
        return every.gather(1, last_token((part[:, None] == number).float()))

    def values(self, tokens, mask):
        """The value of each token where mask is 1, read a position before it: -> (B,T), else 0."""
        every = self.scalar(hidden_by_length(self, tokens)).squeeze(-1)  # (B,T)
        # Shifted right by one, as log-probabilities are: column t has the value before token t.
        return F.pad(every[:, :-1], (1, 0)) * mask


def copy_body(source: GPT, target: GPT) -> GPT:
    """Copies all weights that both have: a reward model starts as the policy's body."""
    target.load_state_dict(source.state_dict(), strict=False)
    return target


@torch.no_grad()
def start_weights(model: GPT) -> None:
    """Sets the first weights, so that a small model soon learns to copy from its context.

    (To be skipped at a first reading.)
    GPT-2's standard deviation of 0.02 suits its width of 768; here it is 1/sqrt(width). The rest is
    mimetic initialization (Trockman & Kolter 2023): a query starts as its own key, so a head looks
    for what is alike, and value and output projection make about the identity, so what a head finds
    comes out as it went in (theirs, for images, is minus the identity). After 0.2 M tokens of lists
    said twice, the word to copy has a probability of 0.9; from random attention, 0.1.
    """
    width, residual = model.config.width, math.sqrt(2 * model.config.layers)
    for name, p in model.named_parameters():
        if name == "wpe.weight":
            # Of norm 1, about that of a token's embedding.
            p.copy_(sinusoids(model.config.context, width) / math.sqrt(width / 2))
        elif p.dim() == 2:
            # Two residual branches a layer add up: their last matrices start smaller (GPT-2).
            std = 1 / math.sqrt(width)
            nn.init.normal_(p, std=std / residual if name.endswith("down.weight") else std)
        elif name.endswith("bias"):
            nn.init.zeros_(p)
    for attention in (block.attention for block in model.blocks):
        q, k, v = attention.qkv.weight.chunk(3)
        k.copy_(q)
        # Assigned, not copied: another layout in memory rounds otherwise than the published runs.
        attention.proj.weight.data = v.T / residual


def sinusoids(context: int, width: int):
    """(context, width): a sine and a cosine of the position at width/2 frequencies, as a start.

    The positions are learned from here on. Seen from a sinusoid, "two tokens back" is the same
    rotation everywhere, so the model learns it once and not for every position anew. The slowest
    wave takes 200 positions a radian, about as many as a row has.
    """
    angles = torch.arange(context)[:, None] * 200.0 ** (-torch.arange(0, width, 2) / width)
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)


# -------------------------------------------------------------------------------------- batches
def pad_rows(rows: list[list[int]], pad: int, device="cpu"):
    """Rows of unequal length -> (B,T) int64, padded on the right."""
    longest = max(map(len, rows))
    return torch.tensor([row + [pad] * (longest - len(row)) for row in rows], device=device)


def tokens_and_mask(
    prompts: list[list[int]], responses: list[list[int]], pad: int, context: int, device="cpu"
):
    """Token lists of prompts and responses -> tokens (B,T) and the mask of response tokens (B,T).

    A prompt ends with its newline and a response with its EOS, as data/tokenizer.py makes them.

    SFT, the reward model and PPO all use this mask. A response is cut where the context ends.
    Raises ValueError for a prompt that leaves no room.
    """
    require_room(prompts, context)
    rows = [(p + r)[:context] for p, r in zip(prompts, responses)]
    mask = [[0] * len(p) + [1] * (len(row) - len(p)) for p, row in zip(prompts, rows)]
    return pad_rows(rows, pad, device), pad_rows(mask, 0, device).float()


def require_room(prompts: list[list[int]], context: int) -> None:
    longest = max(map(len, prompts))
    if longest >= context:
        raise ValueError(f"a prompt of {longest} tokens leaves no room in a context of {context}")


def last_token(mask):
    """The position of each row's last token where mask is 1: (...,T) -> (...) int64."""
    return (mask * torch.arange(mask.shape[-1], device=mask.device)).argmax(dim=-1)


# ------------------------------------------------------------------------------------- sampling
def draw_token(logits, temperature: float):
    """Draws a token from each row's softmax: (B,V) -> (B,) int64. Temperature 0: the likeliest.

    The one drawn is the first at which the cumulative probability exceeds a uniform number: where
    0.2, 0.5 and 0.3 add up to 0.2, 0.7 and 1, a 0.6 draws the second. torch.multinomial draws from
    the same softmax, but on a CPU takes twelve times as long, a third of the time of sampling.
    """
    if temperature == 0:
        return logits.argmax(dim=-1)
    below = (logits / temperature).softmax(dim=-1).cumsum(dim=-1)  # (B,V), up to about 1
    drawn = torch.rand(len(below), 1, device=below.device) * below[:, -1:]
    token = torch.searchsorted(below, drawn, right=True).squeeze(1)
    return token.clamp(max=logits.shape[1] - 1)


@torch.no_grad()
def generate(model: GPT, prompts: list[list[int]], max_new: int, eos: int, temperature=1.0):
    """Samples a response to each prompt: a list of token lists, each ending with EOS or cut off.

    The prompts may have unequal lengths: each row keeps its own positions, so nothing is padded on
    the left. There is no top-k or top-p. Raises ValueError for a prompt that leaves no room.

    The plain way, `slow_greedy` in tests/test_model.py, is a forward pass over the whole row for
    every token. Here the keys and values of earlier tokens are kept in a cache, so each pass is
    over one token a row, and rows that are done are dropped.

    No script has a flag for the temperature: `logprobs` is at 1, so in PPO both would have to
    change together, for the policy and the SFT model. `sample_texts`, which step 2 and the
    evaluation use, has a default of its own.
    """
    config, device = model.config, model.wte.weight.device
    require_room(prompts, config.context)
    lengths = torch.tensor([len(p) for p in prompts], device=device)
    B, T = len(prompts), max(map(len, prompts))
    room = min(config.context, T + max_new)
    shape = (config.layers, 2, B, config.heads, room, config.width // config.heads)
    cache = torch.zeros(shape, device=device)
    hidden = read_prompts(model, prompts, cache)  # (B,C), at each prompt's last token
    rows = torch.arange(B, device=device)  # those that still run, by their place in `prompts`
    out = torch.full((B, max_new), eos, device=device)
    done = torch.zeros(B, dtype=torch.bool, device=device)
    for step in range(max_new):
        token = draw_token(model.head(hidden), temperature)
        token = torch.where(done, eos, token)
        out[rows, step] = token
        done = done | (token == eos) | (lengths + step >= config.context)
        # Rows that are done are dropped, at every fourth step: it has to wait for the device.
        if step % 4 == 3:
            running = (~done).nonzero().squeeze(1)
            if len(running) == 0:
                break
            if len(running) < 0.8 * len(done):
                cache = keep_rows(cache, running)
                rows, lengths = rows[running], lengths[running]
                token, done = token[running], done[running]
        # A row with a full context is done, but may not be dropped yet: it stays inside the cache.
        position = (lengths + step).clamp(max=room - 1)[:, None]  # (B,1)
        filled = min(room, T + step + 1)  # what lies behind is empty in every row
        hidden = model.hidden(token[:, None], position, cache[:, :, :, :, :filled])[:, 0]
    responses = []
    for prompt, row in zip(prompts, out.tolist()):
        row = row[: config.context - len(prompt)]
        responses.append(row[: row.index(eos) + 1] if eos in row else row)
    return responses


# --------------------------------------------------------------------------- what makes it fast
# tests/test_model.py compares each with the plain way.
def remember(k, v, positions, cache):
    """Adds the keys and values of new tokens to a layer's cache, in place: none is computed twice.

    k, v (B,H,T,D) of T new tokens at positions (B,T), cache (2,B,H,M,D) -> all keys and all values
    (B,H,M,D), and what each new token sees of them: visible (B,1,T,M).
    """
    rows = torch.arange(len(k), device=k.device)[:, None]  # (B,1), against positions (B,T)
    # Two index tensors with a slice between them select (B,T,H,D): indexed dimensions come first.
    cache[0][rows, :, positions] = k.transpose(1, 2)
    cache[1][rows, :, positions] = v.transpose(1, 2)
    visible = torch.arange(cache.shape[3], device=k.device) <= positions[:, None, :, None]
    return cache[0], cache[1], visible


def read_prompts(model: GPT, prompts: list[list[int]], cache):
    """Fills the cache with all prompts at once; the output at each one's last token: (B,C).

    A prompt that comes K times is read once, and so is what all prompts begin with, which halves
    the time of answers behind a page of examples. Padding writes to the cache as well, but a row
    overwrites that before it can see it.
    """
    device = model.wte.weight.device
    numbers = {prompt: i for i, prompt in enumerate(dict.fromkeys(map(tuple, prompts)))}
    tokens = pad_rows(list(map(list, numbers)), model.config.vocab_size, device)
    B, T = tokens.shape
    positions = torch.arange(T, device=device).expand(B, T)
    alike = (tokens == tokens[:1]).all(dim=0).long().cumprod(dim=0).sum().item()
    shared = min(alike, min(map(len, prompts)) - 1)
    if shared:
        model.hidden(tokens[:1, :shared], positions[:1, :shared], cache[:, :, :1, :, :shared])
        cache[:, :, 1:B, :, :shared] = cache[:, :, :1, :, :shared]
    hidden = model.hidden(tokens[:, shared:], positions[:, shared:], cache[:, :, :B, :, :T])
    copies = torch.tensor([numbers[tuple(prompt)] for prompt in prompts], device=device)
    keep_rows(cache, copies)
    last = torch.tensor([len(p) - 1 - shared for p in prompts], device=device)
    return hidden[copies, last]


def keep_rows(cache, rows):
    """The cache (L,2,B,H,M,D) of some rows (n,), a row as often as it is named: (L,2,n,H,M,D).

    In place, a layer's keys or values at a time: new memory for all would take longer than a token.
    """
    for part in cache.flatten(0, 1):
        part[: len(rows)] = part[rows]
    return cache[:, :, : len(rows)]


PART = 128  # what a part costs besides its tokens, in tokens: measured on two CPU cores


def hidden_by_length(model: GPT, tokens):
    """`model.hidden` of padded rows, in parts from short to long: padding is hardly computed.

    tokens (B,T) -> (B,T,C), 0 beyond the longest row of its part, where all is padding. A further
    part pays where it saves more tokens than its small operations cost: rows of one length are one
    part. With PPO's lengths it takes a third off a pass.
    """
    lengths, order = (tokens != model.config.vocab_size).sum(dim=1).sort()
    lengths = lengths.cpu()  # a GPU is waited for once, and not at every part's slice

    def cost(parts):
        return sum(len(mine) * mine[-1] + PART for mine in lengths.chunk(parts))

    parts, hidden = min(range(1, 9), key=cost), []
    for rows, mine in zip(order.chunk(parts), lengths.chunk(parts)):
        short = model.hidden(tokens[rows, : mine[-1]])
        hidden.append(F.pad(short, (0, 0, 0, tokens.shape[1] - short.shape[1])))
    return torch.cat(hidden)[order.argsort()]  # in the order of the tokens again


# ----------------------------------------------------- texts in and out, and a learning rate
def rows_that_fit(config: GPTConfig, longest: int) -> int:
    """How many rows of this many tokens a batch may have: 256, or as many as a cache of 1 GiB."""
    return max(1, min(256, 2**30 // (8 * config.layers * config.width * longest)))


def sample_texts(
    model: GPT, tokenizer, rows: list[list[int]], max_new: int, temperature=1.0
) -> list[str]:
    """How the model goes on after each row of tokens."""
    longest = min(model.config.context, max(map(len, rows)) + max_new)
    size, texts = rows_that_fit(model.config, longest), {}
    # Similar lengths together: less padding, and whole batches finish early.
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    for at in tqdm(range(0, len(rows), size), "sampling", leave=False, disable=None):
        some = order[at : at + size]
        asked = [rows[i] for i in some]
        responses = generate(model, asked, max_new, tokenizer.eos, temperature)
        texts.update(zip(some, map(tokenizer.decode, responses)))
    return [texts[i] for i in range(len(rows))]


def sample_responses(
    model: GPT, tokenizer, prompts: list[str], counts: list[int], max_new: int
) -> list[list[str]]:
    """counts[i] responses to prompts[i], each list in the order of the prompts."""
    rows = [tokenizer.prompt(p) for p, k in zip(prompts, counts) for _ in range(k)]
    texts = iter(sample_texts(model, tokenizer, rows, max_new))
    return [list(itertools.islice(texts, k)) for k in counts]


@torch.no_grad()
def score_texts(model: ScalarGPT, tokenizer, prompts, responses) -> list[float]:
    """The reward model's score of each response to its prompt, both lists of strings."""
    device, scores = model.wte.weight.device, []
    size = rows_that_fit(model.config, model.config.context)
    for at in range(0, len(prompts), size):
        tokens, mask = tokens_and_mask(
            [tokenizer.prompt(p) for p in prompts[at : at + size]],
            [tokenizer.response(r) for r in responses[at : at + size]],
            tokenizer.pad, model.config.context, device,
        )  # fmt: skip
        scores += model.score(tokens, mask).tolist()
    return scores


def cosine(step: int, steps: int) -> float:
    """The factor of the peak learning rate: from 1 down to 10 % along a cosine (as in C.1)."""
    return 0.1 + 0.45 * (1 + math.cos(math.pi * step / steps))
