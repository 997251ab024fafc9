"""The exercises: what is blanked, what is asked, and fresh inputs to compare a solution on.

`EXERCISES` is the one table that the student's copy, the assignment's text, the feedback and the
grades are made from. An exercise's `inputs(seed)` makes what its functions are called with, and
`call(module, **inputs)` calls them, in the student's module or in the repository's:
(outputs by name, what gradients are taken of by name). Nothing in here is a solution.
"""

import copy
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace

import torch

SEEDS = range(4)  # of the inputs that a student's own tests use
EOS, PAD, V = 18, 19, 19  # a vocabulary of nineteen tokens


@dataclass
class Exercise:
    name: str  # also the mark: python -m pytest -m gae
    file: str
    blanks: tuple[str, ...]  # functions, methods as Class.method
    points: int
    minutes: int
    difficulty: str  # easy, medium, hard
    section: str  # of the InstructGPT paper, or the paper it comes from
    task: str  # what is given and what is asked, shapes in words
    question: str  # to be answered in prose
    inputs: Callable
    call: Callable
    tolerance: float = 1e-5  # relative and absolute


# ---------------------------------------------------------------------------------- small worlds
def numbers(*shape, spread=1.0):
    """Random numbers of double precision, so that rounding hides nothing."""
    return torch.randn(*shape, dtype=torch.float64) * spread


def leaf(x):
    return x.clone().requires_grad_()


def mask_of(B: int, T: int):
    """Masks of responses of unequal lengths and starts, with padding behind all but the first."""
    mask = torch.zeros(B, T, dtype=torch.float64)
    for row in range(B):
        start = int(torch.randint(1, T // 2, ()))
        end = T if row == 0 else int(torch.randint(start + 1, T, ()))
        mask[row, start:end] = 1
    return mask


def token_lists(count: int, least: int, most: int) -> list[list[int]]:
    lengths = torch.randint(least, most + 1, (count,)).tolist()
    return [torch.randint(0, EOS, (n,)).tolist() for n in lengths]


def tiny(kind, weights=None):
    """A GPT of two layers, with these weights or random ones."""
    from model import GPTConfig

    net = kind(GPTConfig(V, context=16, layers=2, heads=2, width=8))
    if weights:
        net.load_state_dict(weights)
        net.to(next(iter(weights.values())).dtype)
    return net


def weights_of(kind, dtype=torch.float64) -> dict:
    net = tiny(kind).to(dtype)
    for p in net.parameters():
        p.data += 0.1 * torch.randn_like(p)  # no bias is 0, no gain is 1
    return net.state_dict()


# ------------------------------------------------------------------------------------ model.py
def attention_inputs():
    heads, width = 2, 8
    shapes = {"qkv.weight": (24, 8), "qkv.bias": (24,), "proj.weight": (8, 8), "proj.bias": (8,)}
    weights = {name: numbers(*shape) for name, shape in shapes.items()}
    B, T, M = 3, int(torch.randint(4, 8, ())), 9
    remembered = numbers(B, heads, M, 4), numbers(B, heads, M, 4), torch.rand(B, 1, T, M) < 0.7
    remembered[2][:, :, :, 0] = True  # a token sees one at least
    visible = (torch.rand(B, 1, T, T) < 0.5) | torch.eye(T, dtype=torch.bool)
    return {"heads": heads, "width": width, "weights": weights, "x": numbers(B, T, width),
            "remembered": list(remembered), "visible": visible}  # fmt: skip


def attention_call(model, heads, width, weights, x, remembered, visible):
    layer = model.Attention(model.GPTConfig(V, width=width, heads=heads)).double()
    layer.load_state_dict(weights)
    x = leaf(x)
    out = {"output": layer(x), "output with visible": layer(x, visible=visible)}
    names = inspect.unwrap(model.Attention.forward).__globals__
    kept, names["remember"] = names["remember"], lambda *args: remembered  # an exercise of its own
    try:
        with torch.no_grad():
            out["output with a cache"] = layer(x, torch.zeros(x.shape[:2]), cache=True)
    finally:
        names["remember"] = kept
    return out, {"x": x}


def draw_inputs():
    return {"logits": numbers(3, 6, spread=2.0), "temperatures": [0.5, 1.0, 2.0]}


def draw_call(model, logits, temperatures):
    torch.manual_seed(0)
    close = (logits / 10).repeat_interleave(50, dim=0)
    out = {"likeliest token, at temperature 0": model.draw_token(close, 0)}
    rows = logits.repeat_interleave(20_000, dim=0)
    again = [model.draw_token(rows[:1000], 1.0) for _ in range(2)]
    out["the same tokens are drawn again"] = torch.tensor(torch.equal(*again))
    for temperature in temperatures:
        drawn = model.draw_token(rows, temperature)
        out["the tokens drawn, by shape and type"] = torch.zeros_like(drawn)
        drawn = drawn.view(len(logits), -1)
        shares = torch.stack([row.bincount(minlength=logits.shape[1]) for row in drawn]) / 20_000
        out[f"shares of 20,000 tokens drawn at temperature {temperature}"] = shares
    return out, {}


def cache_inputs():
    B, H, D, M = 3, 2, 4, 8
    T = int(torch.randint(2, 5, ()))
    positions = torch.stack([torch.arange(T) + int(torch.randint(0, M - T, ())) for _ in range(B)])
    return {"k": numbers(B, H, T, D), "v": numbers(B, H, T, D), "positions": positions,
            "cache": numbers(2, B, H, M, D)}  # fmt: skip


def cache_call(model, k, v, positions, cache):
    cache = cache.clone()
    keys, values, visible = model.remember(k, v, positions, cache)
    return {"keys": keys, "values": values, "visible": visible, "cache": cache}, {}


def mask_inputs():
    prompts, responses = token_lists(5, 1, 9), token_lists(5, 1, 9)
    prompts[3], responses[3] = prompts[3] + [1] * 7, responses[3] + [2] * 7  # longer than 12
    prompts[4], responses[4] = prompts[4][:3], responses[4][:3]  # and shorter
    return {"prompts": [p[:9] for p in prompts], "responses": responses, "context": 12}


def mask_call(model, prompts, responses, context):
    tokens, mask = model.tokens_and_mask(prompts, responses, PAD, context)
    out = {"tokens": tokens, "mask": mask}
    short, full = ([[1]], [[2, 3]]), ([[1] * (context - 1)], [[2, 3]])
    out["tokens shorter than the context"] = model.tokens_and_mask(*short, PAD, context)[0]
    out["tokens of a prompt that leaves room for one"] = model.tokens_and_mask(*full, PAD, context)[
        0
    ]
    try:
        model.tokens_and_mask([[1] * context], [[2]], PAD, context)
    except ValueError:
        out["a prompt as long as the context raises ValueError"] = torch.tensor(True)
    return out, {}


def logprobs_inputs():
    from model import GPT

    B, T = 4, 10
    mask = mask_of(B, T)
    tokens = torch.randint(0, EOS, (B, T))
    for row in range(B):  # PAD behind the response
        tokens[row, int(mask[row].nonzero().max()) + 1 :] = PAD
    return {"weights": weights_of(GPT), "tokens": tokens, "mask": mask}


def logprobs_call(model, weights, tokens, mask):
    net = tiny(model.GPT, weights)
    return {"logp": net.logprobs(tokens, mask)}, {"embedding": net.wte.weight}


# -------------------------------------------------------------------------------------- sft.py
def sft_call(sft, weights, tokens, mask):
    from model import GPT

    net = tiny(GPT, weights)
    return {"loss": sft.sft_loss(net, tokens, mask)}, {"embedding": net.wte.weight}


# ----------------------------------------------------------------------------------- reward.py
def ranking_inputs():
    ranks = torch.zeros(5, 6, dtype=torch.int64)
    for row in range(5):
        K = int(torch.randint(2, 7, ()))
        ranks[row, :K] = torch.randint(1, 4, (K,))  # ties are likely
    ranks[1, :3], ranks[1, 3:] = 2, 0  # of ties alone
    ranks[2] = torch.randperm(6) + 1
    return {"scores": numbers(5, 6, spread=2.0), "ranks": ranks}


def ranking_call(reward, scores, ranks):
    scores = leaf(scores)
    ties = reward.bradley_terry_loss(scores[1:2], ranks[1:2])
    return {"pairs": reward.beats_of(ranks), "loss": reward.bradley_terry_loss(scores, ranks),
            "loss of ties alone": ties,
            "a loss of ties alone has a gradient": torch.tensor(ties.requires_grad),
            "loss of scores far apart": reward.bradley_terry_loss(1000 * scores, ranks),
            }, {"scores": scores}  # fmt: skip


def centre_inputs():
    from model import ScalarGPT

    words = "red blue green cat dog cup yes no".split()
    picks = [[words[i] for i in torch.randint(0, len(words), (n,))] for n in (1, 3, 2, 5)]
    demonstrations = [{"prompt": " ".join(w), "completion": " ".join(reversed(w))} for w in picks]
    return {"weights": weights_of(ScalarGPT, torch.float32), "demonstrations": demonstrations}


def centre_call(reward, weights, demonstrations):
    from model import ScalarGPT, score_texts

    letters = {"encode": lambda text: [ord(c) % EOS for c in text][:5]}
    tokenizer = SimpleNamespace(
        prompt=letters["encode"], response=lambda text: [*letters["encode"](text), EOS],
        pad=PAD, eos=EOS, **letters,
    )  # fmt: skip
    net = tiny(ScalarGPT, weights)
    reward.centre(net, tokenizer, demonstrations)
    prompts, completions = ([d[key] for d in demonstrations] for key in ("prompt", "completion"))
    scores = torch.tensor(score_texts(net, tokenizer, prompts, completions))
    others = torch.cat([p.detach().flatten() for n, p in net.named_parameters() if "bias" not in n])
    return {"mean score of the demonstrations": scores.mean(), "bias": net.scalar.bias,
            "weights other than biases": others}, {}  # fmt: skip


# -------------------------------------------------------------------------------------- ppo.py
def rewards_inputs():
    mask = mask_of(4, 9)
    return {"scores": numbers(4), "logp": numbers(4, 9), "ref_logp": numbers(4, 9), "mask": mask,
            "beta": float(torch.rand(()) + 0.1)}  # fmt: skip


def rewards_call(ppo, scores, logp, ref_logp, mask, beta):
    return {"rewards": ppo.shaped_rewards(scores, logp, ref_logp, mask, beta)}, {}


def gae_inputs():
    mask = mask_of(4, 9)
    # Values on padding are whatever a caller left there.
    return {"rewards": numbers(4, 9) * mask, "values": numbers(4, 9), "mask": mask,
            "lam": float(torch.rand(()) * 0.5 + 0.4)}  # fmt: skip


def gae_call(ppo, rewards, values, mask, lam):
    advantages, returns = ppo.gae(rewards, values, mask, lam)
    return {"advantages": advantages, "returns": returns}, {}


def whiten_inputs():
    return {"x": numbers(4, 9, spread=3.0) + 5, "mask": mask_of(4, 9)}


def whiten_call(ppo, x, mask):
    return {"mean": ppo.masked_mean(x, mask), "whitened": ppo.whiten(x, mask)}, {}


def losses_inputs():
    shape = 8, 16  # so many that every kind of clipping occurs
    return {"now": numbers(*shape), "old": numbers(*shape, spread=0.5), "aim": numbers(*shape),
            "mask": mask_of(*shape), "clip": float(torch.rand(()) * 0.3 + 0.1)}  # fmt: skip


def policy_call(ppo, now, old, aim, mask, clip):
    logp = leaf(old + 0.6 * now)
    return {"loss": ppo.policy_loss(logp, old, aim, mask, clip)}, {"logp": logp}


def value_call(ppo, now, old, aim, mask, clip):
    values = leaf(old + 0.6 * now)
    return {"loss": ppo.value_loss(values, old, aim, mask, clip)}, {"values": values}


def average_inputs():
    return {"average": numbers(2, 3, 3), "model": numbers(2, 3, 3),
            "decay": float(torch.rand(()) * 0.5 + 0.4)}  # fmt: skip


def average_call(ppo, average, model, decay):
    nets = []
    for weight, bias in (average, model):
        nets.append(torch.nn.Linear(3, 3).double())
        nets[-1].weight.data, nets[-1].bias.data = weight.clone(), bias[0].clone()
    ppo.update_ema(*nets, decay)
    names = ("weight of the average", "bias of the average", "weight of the model",
             "bias of the model")  # fmt: skip
    return dict(zip(names, [p for net in nets for p in net.parameters()])), {}


def rollout_inputs():
    from model import GPT, ScalarGPT

    nets = {name: weights_of(kind, torch.float32) for name, kind in
            (("policy", GPT), ("reference", GPT), ("value_net", ScalarGPT),
             ("reward_model", ScalarGPT))}  # fmt: skip
    responses = token_lists(8, 1, 6)
    ended = [*(r + [EOS] for r in responses[:5]), [1, 2, 3, 4, 5, 6, EOS]]
    return {"nets": nets, "prompts": token_lists(8, 1, 6),
            "responses": [*ended, [3] * 7, responses[6] + [7] * (7 - len(responses[6]))],
            "floor": 3.0, "beta": float(torch.rand(()) + 0.1), "lam": 0.8}  # fmt: skip


def rollout_call(ppo, nets, prompts, responses, floor, beta, lam):
    from model import GPT, ScalarGPT

    made = [tiny(ScalarGPT if "scalar.bias" in w else GPT, w) for w in nets.values()]
    config, asked = SimpleNamespace(max_new=7, beta=beta, lam=lam), []

    def generate(policy, prompts, max_new, eos, temperature=1.0):
        asked.append(policy is made[0] and (max_new, eos, temperature) == (7, EOS, 1))
        return responses

    names = inspect.unwrap(ppo.rollout).__globals__
    kept, names["generate"] = names["generate"], generate
    try:
        batch = ppo.rollout(*made, prompts, SimpleNamespace(eos=EOS, pad=PAD), config, floor)
    finally:
        names["generate"] = kept
    out = {"the policy is sampled once, with max_new and eos": torch.tensor(asked == [True])}
    return {**batch, **out, "number of keys": torch.tensor(len(batch))}, {}


# ------------------------------------------------------------------------------------ comparing
def inputs_of(exercise: Exercise, seed: int) -> dict:
    torch.manual_seed(seed)
    return exercise.inputs()


def alike(one, other) -> bool:
    """Two inputs are the same: tensors, or lists and dictionaries of them and of plain values."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return all(alike(x, other[key]) for key, x in one.items())
    if isinstance(one, list):
        return len(one) == len(other) and all(map(alike, one, other))
    return one == other


def outputs_of(exercise: Exercise, module, inputs: dict) -> dict:
    """What the functions answer, and gradients: a random projection of all outputs, by each leaf.

    An output that is no tensor is described in words.
    """
    given = copy.deepcopy(inputs)
    found, leaves = exercise.call(module, **given)
    loss, outputs = 0.0, {"inputs left as they were": torch.tensor(alike(given, inputs))}
    for name, x in found.items():
        if not isinstance(x, torch.Tensor):
            outputs[name] = f"is {'nothing' if x is None else 'a ' + type(x).__name__}, no tensor"
            continue
        outputs[name] = x.detach().clone()
        if x.requires_grad and leaves:
            steps = torch.linspace(0.5, 1.5, x.numel(), dtype=x.dtype)
            loss = loss + (x.flatten() * steps).sum()
    for name, x in leaves.items():
        if not isinstance(loss, torch.Tensor):
            outputs[f"gradient of {name}"] = "is missing: was the result detached?"
        else:
            grad = torch.autograd.grad(loss, x, retain_graph=True, allow_unused=True)[0]
            outputs[f"gradient of {name}"] = torch.zeros_like(x) if grad is None else grad
    return outputs


def unequal(right, found, tolerance: float) -> str:
    """What is wrong with an output, in words; "" if nothing is. One that is no tensor is a text."""
    if isinstance(found, str) or isinstance(right, str):
        return "" if found is right else str(found).strip() or "is no tensor"
    if found.shape != right.shape:
        return f"has the shape {tuple(found.shape)}, not {tuple(right.shape)}"
    floats = right.is_floating_point() and found.is_floating_point()
    if not floats and found.dtype != right.dtype:
        return f"has the type {found.dtype}, not {right.dtype}"
    near = torch.isclose(found.double(), right.double(), rtol=tolerance, atol=tolerance,
                         equal_nan=True)  # fmt: skip
    if near.all():
        return ""
    at = tuple((~near).nonzero()[0].tolist())
    values = ", not ".join(f"{x[at].item():.4g}" for x in (found, right))
    if not at:
        return f"is {values}"
    count = f"{int((~near).sum())} of {right.numel()} entries"
    return f"is wrong in {count}, first at {list(at)}: {values}"


def difference(right: dict, found: dict, tolerance: float) -> str:
    """The first output that is not as it should be, and what is wrong; "" if all are right."""
    for name, x in right.items():
        wrong = unequal(x, found.get(name, "is missing"), tolerance)
        if wrong:
            return f"{name} {wrong}"
    return ""


def feedback(right: dict, found: dict, mistakes: list[tuple[str, dict]], tolerance: float) -> str:
    """`difference`, and the usual mistake that it looks like; "" if all is right.

    That is one that gives the same outputs, or else the only one that gives the first wrong output.
    """
    says = difference(right, found, tolerance)
    if not says:
        return ""
    first = next(n for n, x in right.items() if unequal(x, found.get(n, "is missing"), tolerance))
    alike = [s for s, o in mistakes if not difference(o, found, tolerance)]
    alike = alike or [s for s, o in mistakes if first in found and first in o
                      and not unequal(o[first], found[first], tolerance)]  # fmt: skip
    return says + (f". A usual mistake does just this: {alike[0]}" if len(alike) == 1 else "")


# -------------------------------------------------------------------------------------- the table
EXERCISES = [
    Exercise(
        "attention", "model.py", ("Attention.forward",), 8, 45, "medium",
        "Vaswani et al. 2017, section 3.2",
        "Given x (B,T,C) and the layers qkv and proj, return (B,T,C): H heads of scaled "
        "dot-product attention in which a token sees itself and those before it, or, where "
        "`visible` (B,1,T,T) is given, those for which that is true. With a cache, "
        "`remember(k, v, positions, cache)`, exercise 3, returns all keys, all values and what is "
        "visible; the check brings a stand-in for it.",
        "What would the loss of a trained model look like if a token could see the next one, and "
        "what would its samples look like?",
        attention_inputs, attention_call,
    ),
    Exercise(
        "draw", "model.py", ("draw_token",), 5, 20, "easy",
        "none: any sampler's",
        "Given logits (B,V) and a temperature, draw one token a row from the softmax of the logits "
        "divided by the temperature: (B,) of int64. Temperature 0 means the likeliest token. Each "
        "row draws for itself.",
        "PPO samples at temperature 1. What goes wrong if it samples at 0.7 and computes "
        "log-probabilities at 1?",
        draw_inputs, draw_call, tolerance=0.02,
    ),
    Exercise(
        "cache", "model.py", ("remember",), 8, 45, "hard",
        "none: any sampler's",
        "Given keys and values (B,H,T,D) of new tokens, their positions (B,T) and a layer's cache "
        "(2,B,H,M,D), write them into the cache in place. Return all keys and all values "
        "(B,H,M,D), and visible (B,1,T,M): true where a new token may look.",
        "For a response of 64 tokens behind a prompt of 32 and the default GPTConfig: how many "
        "keys and values are computed with the cache, how many without, and how much memory does "
        "it cost?",
        cache_inputs, cache_call,
    ),
    Exercise(
        "mask", "model.py", ("tokens_and_mask",), 6, 25, "easy", "3.5",
        "Given B prompts and responses as token lists, return tokens (B,T), padded on the right "
        "with `pad`, and mask (B,T), 1.0 on the response's tokens, its EOS among them, and else "
        "0.0. A row is cut where the context ends. `require_room` refuses a prompt without room.",
        "Why does padding on the right need no attention mask in a causal model, and why would "
        "padding on the left need one?",
        mask_inputs, mask_call,
    ),
    Exercise(
        "logprobs", "model.py", ("GPT.logprobs",), 8, 30, "medium", "3.5",
        "Given tokens and mask (B,T), return logp (B,T): at each token where mask is 1 its "
        "log-probability given the tokens before it, else 0.0. `hidden_by_length` and `head` are "
        "given.",
        "Which loss would an off-by-one produce that reads the model's output at the token's own "
        "position, and why does training not crash?",
        logprobs_inputs, logprobs_call,
    ),
    Exercise(
        "sft", "sft.py", ("sft_loss",), 4, 10, "easy", "3.5 and C.1",
        "Given a model with `logprobs`, tokens and mask (B,T), return the mean negative "
        "log-probability of the tokens where mask is 1, a scalar in nats. Every token weighs the "
        "same.",
        "Which responses weigh more if one takes the mean of each response first? Which of the two "
        "would you choose, and why?",
        logprobs_inputs, sft_call,
    ),
    Exercise(
        "ranking", "reward.py", ("beats_of", "bradley_terry_loss"), 10, 45, "medium",
        "3.5, equation 1",
        "Given scores and ranks (B,K), 1 the best, equal ranks for ties, 0 for padding: `beats_of` "
        "says for every pair (B,K,K) whether the first is preferred; the loss is minus the mean of "
        "log sigmoid of the winner's score minus the loser's, over a prompt's untied pairs and "
        "then over the prompts that have one. A batch without a pair costs 0.",
        "Two rewards that differ by a constant for each prompt have the same loss. What does that "
        "mean for comparing scores of answers to different prompts?",
        ranking_inputs, ranking_call,
    ),
    Exercise(
        "centre", "reward.py", ("centre",), 4, 15, "easy", "3.5",
        "Given a reward model, a tokenizer and demonstrations, change the bias of the scalar head "
        "in place, so that the mean score of the demonstrations is 0. `score_texts` is given.",
        "What changes in PPO if this step is left out, and what does not?",
        centre_inputs, centre_call,
    ),
    Exercise(
        "rewards", "ppo.py", ("shaped_rewards",), 8, 20, "medium", "3.5, equation 2",
        "Given scores (B,), the log-probabilities logp and ref_logp (B,T), mask (B,T) and beta, "
        "return the reward of each token (B,T): minus beta times the difference of the "
        "log-probabilities where mask is 1, plus the score at the last response token. "
        "`last_token` is given.",
        "With which beta would PPO return the SFT model unchanged, and with which would it have no "
        "reason to write language at all?",
        rewards_inputs, rewards_call,
    ),
    Exercise(
        "gae", "ppo.py", ("gae",), 10, 45, "hard", "Schulman et al. 2016; C.4",
        "Given rewards, values and mask (B,T) and lambda, return advantages and returns (B,T), 0 "
        "outside the mask. There is no discount, and the value after the last token is 0.",
        "Returns are advantages plus values. What would the value network learn if the returns "
        "were computed from whitened advantages?",
        gae_inputs, gae_call,
    ),
    Exercise(
        "whiten", "ppo.py", ("masked_mean", "whiten"), 4, 15, "easy", "code of Ziegler et al. 2019",
        "Given x and mask (B,T): `masked_mean` is the mean of x where mask is 1; `whiten` shifts "
        "and scales x to mean 0 and biased variance 1 over the mask, and is 0 outside.",
        "Advantages are whitened over the whole batch. What does the sign of a whitened advantage "
        "say if all responses of the batch were good?",
        whiten_inputs, whiten_call,
    ),
    Exercise(
        "policy", "ppo.py", ("policy_loss",), 8, 25, "medium", "Schulman et al. 2017, equation 7",
        "Given logp, old_logp, advantages and mask (B,T) and the clip range, return PPO's clipped "
        "loss, to be minimised: a mean over the tokens where mask is 1.",
        "Draw the loss over the ratio for an advantage of +1 and of -1. Where is the gradient 0, "
        "and why not on both sides?",
        losses_inputs, policy_call,
    ),
    Exercise(
        "value", "ppo.py", ("value_loss",), 5, 20, "medium", "code of Ziegler et al. 2019",
        "Given values, old values, returns and mask (B,T) and the clip range, return half the mean "
        "over the mask of the larger of two squared errors: the value's, and that of the old value "
        "moved towards it by at most the clip range.",
        "Why the larger error and not the smaller one?",
        losses_inputs, value_call,
    ),
    Exercise(
        "average", "ppo.py", ("update_ema",), 4, 10, "easy", "C.4",
        "Given two modules and a decay, move every weight of the first in place: decay times "
        "itself plus (1 - decay) times the second's. The second stays as it is.",
        "The average starts as the first policy. At a decay of 0.95, after how many steps is that "
        "policy's weight in it one half?",
        average_inputs, average_call,
    ),
    Exercise(
        "rollout", "ppo.py", ("rollout",), 8, 40, "medium", "3.5 and C.4",
        "Given the policy, the reference, the value network, the reward model, prompts as token "
        "lists, the tokenizer (eos, pad), the settings (max_new, beta, lam) and the floor, return "
        "the dictionary of all that PPO's update needs, by the steps of the docstring. It calls "
        "eight earlier exercises.",
        "Name what would change if the reference were the policy of the iteration before.",
        rollout_inputs, rollout_call, tolerance=1e-3,
    ),
]  # fmt: skip
BY_NAME = {exercise.name: exercise for exercise in EXERCISES}
