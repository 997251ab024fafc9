"""What several test files start from."""

import pytest
import torch

from data.checkpoints import save
from data.files import write_jsonl
from model import GPT, GPTConfig, ScalarGPT
from tests.small import TOKENIZER, WORDS


@pytest.fixture
def folder(tmp_path):
    """Tiny models of random weights and small files of each kind."""
    torch.manual_seed(7)  # a seed of its own: the scripts' would draw the same weights again
    shape = GPTConfig(TOKENIZER.size, context=64, layers=1, heads=2, width=16)
    for name, kind, extra in (
        ("base", GPT, {}), ("sft", GPT, {}), ("reward", ScalarGPT, {"floor": -1.0, "spread": 1.0}),
    ):  # fmt: skip
        save(tmp_path / f"{name}.pt", kind(shape), {}, **extra)
    prompts = [{"prompt": f"Say {word}."} for word in WORDS * 2]
    write_jsonl(tmp_path / "prompts.jsonl", prompts)
    write_jsonl(tmp_path / "pairs.jsonl", [{**p, "completion": "yes"} for p in prompts])
    write_jsonl(tmp_path / "ranked.jsonl", [{**p, "chosen": "yes", "rejected": "no no"}
                                            for p in prompts])  # fmt: skip
    write_jsonl(tmp_path / "text.jsonl", [{"text": f"{word} is {i}."}
                                          for i, word in enumerate(WORDS * 2)])  # fmt: skip
    return tmp_path
