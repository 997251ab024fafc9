"""The scripts on tiny models: each function runs one on the files of the fixture `folder`."""

import json
import math

import pytest
import torch

import ppo
import pretrain
import reward
import sft
from data import checkpoints
from data.checkpoints import load
from data.tokenizer import Tokenizer

TOKENIZER = Tokenizer()
WORDS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]


def model(folder, name):
    return load(folder / f"{name}.pt", "", TOKENIZER.size)[0]


def same_weights(one, other) -> bool:
    others = dict(other.named_parameters())
    return all(torch.equal(p, others[name]) for name, p in one.named_parameters() if name in others)


def other_weights(policy, shift):
    """The same model with other weights."""
    policy.wte.weight.data += shift
    return policy


def lines(folder, name) -> list[dict]:
    """What a script has logged."""
    return [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]


def spied(monkeypatch, module, name) -> list[tuple]:
    """Lets a module's function run as it does, and collects (arguments, result) of each call."""
    calls, original = [], getattr(module, name)

    def watched(*args, **kwargs):
        result = original(*args, **kwargs)
        calls.append((args, kwargs, result))
        return result

    monkeypatch.setattr(module, name, watched)
    return calls


def stopped(monkeypatch, after: int, run, *args, **settings) -> None:
    """Runs a script that ends in the middle of its loop, right after a state was written."""
    keep = checkpoints.keep

    def keep_and_stop(state, values, steps, *rest):
        keep(state, values, steps, *rest)
        if steps == after:
            raise KeyboardInterrupt

    monkeypatch.setattr(checkpoints, "SECONDS", 0)
    monkeypatch.setattr(checkpoints, "SHARE", math.inf)
    monkeypatch.setattr(checkpoints, "keep", keep_and_stop)
    with pytest.raises(KeyboardInterrupt):
        run(*args, **settings)
    monkeypatch.setattr(checkpoints, "keep", keep)


def optimizers_of(monkeypatch, kind) -> list:
    """The optimizers of this kind, in the order in which a script makes them."""
    made, start = [], kind.__init__

    def started(self, *args, **options):
        start(self, *args, **options)
        made.append(self)

    monkeypatch.setattr(kind, "__init__", started)
    return made


def run_pretrain(folder, **changes):
    settings = {"text": str(folder / "text.jsonl"), "batch": 10_000, "growth": 0.0, "log": 1,
                "tokens": 300, "layers": 1, "heads": 2, "width": 16, **changes}  # fmt: skip
    return pretrain.main(pretrain.Config(**{"out": str(folder), "device": "cpu", **settings}))


def run_sft(folder, **changes):
    settings = {"demonstrations": str(folder / "pairs.jsonl"), "batch": 99, "epochs": 3, **changes}
    return sft.main(sft.Config(**{"out": str(folder), "device": "cpu", **settings}))


def run_reward(folder, **changes):
    settings = {"comparisons": str(folder / "ranked.jsonl"), "batch": 99, "epochs": 3,
                "demonstrations": str(folder / "pairs.jsonl"), **changes}  # fmt: skip
    return reward.main(reward.Config(**{"out": str(folder), "device": "cpu", **settings}))


def run_ppo(folder, **changes):
    settings = {"prompts": str(folder / "prompts.jsonl"), "iterations": 2, "value_warmup": 1,
                "warmup": 0, "episodes": 16, "minibatch": 8, "max_new": 6, "lr": 1e-2,
                **changes}  # fmt: skip
    return ppo.main(ppo.Config(**{"out": str(folder), "device": "cpu", **settings}))
