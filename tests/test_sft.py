"""The SFT loss, its mask, and the whole step on a tiny model and twenty demonstrations."""

import json
import math
import random

import pytest
import torch
import torch.nn.functional as F

import pretrain
import sft
from data.checkpoints import load, save
from data.files import UserError, write_jsonl
from data.tokenizer import Tokenizer
from model import GPT, GPTConfig, cosine, tokens_and_mask
from pretrain import batches, learning_rate, loss_of
from sft import sft_loss

V, PAD = 20, 20
WORDS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
PAIRS = [(f"Say {word} twice.", "yes") for word in WORDS]


def tiny(vocab=V, context=32):
    torch.manual_seed(0)
    return GPT(GPTConfig(vocab, context=context, layers=2, heads=2, width=16)).eval()


def batch():
    """Responses of 2, 6 and 1 tokens to prompts of 3, 1 and 2: (3,7)."""
    return tokens_and_mask(
        [[1, 2, 3], [4], [5, 6]], [[7, 8], [9, 10, 11, 12, 13, 14], [15]], PAD, 32
    )


def test_loss_is_the_mean_cross_entropy_of_response_tokens():
    model, (tokens, mask) = tiny(), batch()
    targets = torch.where(mask == 1, tokens, -100)[:, 1:]  # -100 is ignored
    expected = F.cross_entropy(model(tokens)[:, :-1].reshape(-1, V), targets.reshape(-1))
    torch.testing.assert_close(sft_loss(model, tokens, mask), expected, rtol=1e-5, atol=0)


def test_every_token_weighs_the_same_whatever_its_response():
    model, (tokens, mask) = tiny(), batch()
    rows = [sft_loss(model, tokens[i : i + 1], mask[i : i + 1]).item() for i in range(3)]
    expected = (2 * rows[0] + 6 * rows[1] + 1 * rows[2]) / 9
    assert sft_loss(model, tokens, mask).item() == pytest.approx(expected, rel=1e-5)
    assert sum(rows) / 3 != pytest.approx(expected, rel=1e-3)


def test_a_uniform_model_costs_log_v():
    model, (tokens, mask) = tiny(), batch()
    torch.nn.init.zeros_(model.wte.weight)
    assert sft_loss(model, tokens, mask).item() == pytest.approx(2.9957323, rel=1e-5)  # log 20


def test_loss_ignores_padding_and_has_no_gradient_there():
    model, (tokens, mask) = tiny(), batch()
    loss = sft_loss(model, tokens, mask)
    loss.backward()
    assert (model.wte.weight.grad[PAD] == 0).all()
    wide = sft_loss(model, F.pad(tokens, (0, 4), value=3), F.pad(mask, (0, 4)))
    torch.testing.assert_close(wide, loss, rtol=1e-5, atol=0)


def test_pretraining_loss_is_the_mean_over_all_tokens_but_the_first():
    model, rows = tiny(), [[1, 2, 3], [4, 5], [6, 7, 8, 9]]
    expected = []
    for row in rows:
        logp = model(torch.tensor([row])).log_softmax(dim=-1)[0]
        expected += [-logp[i, row[i + 1]].item() for i in range(len(row) - 1)]
    value = loss_of(model, rows, PAD, "cpu").item()
    assert len(expected) == 6 and value == pytest.approx(sum(expected) / 6, rel=1e-5)


def test_pretraining_batches_hold_every_document_once_and_little_padding():
    rng = random.Random(0)
    rows = [[i] * rng.randint(1, 40) for i in range(3000)]  # more than a pool of 2,048
    config = pretrain.Config(batch=100, growth=0.0, tokens=sum(map(len, rows)) + 300)
    groups, seen = batches(rows, config, random.Random(1)), []
    while len(seen) < len(rows):
        group = next(groups)
        assert len(group) == 1 or len(group) * max(map(len, group)) <= 100
        seen += group
    every_document_once = sorted(seen) == sorted(rows)
    assert every_document_once  # where CI is set, pytest would take minutes to show how they differ
    again = list(groups)  # and from the start, until the tokens are used up
    assert all(row in rows[:2048] for group in again for row in group)
    tokens = [sum(map(len, group)) for group in again]
    assert sum(tokens[:-1]) < 300 <= sum(tokens)


def test_pretraining_batches_grow_evenly():
    rows = [[i] * 10 for i in range(2048)]  # a pool, which is read eight times
    config = pretrain.Config(batch=100, growth=10 / 2.048, tokens=8 * 20_480)
    groups, sizes = batches(rows, config, random.Random(0)), []
    for _ in range(8):
        pool = []
        while len(pool) < 2048:
            pool += (group := next(groups))
            sizes.append(len(group))
    assert next(groups, None) is None
    assert sorted(set(sizes) - {2048 % n for n in set(sizes)}) == [10, 20, 30, 40, 50, 60, 70]


def test_bits_per_byte_are_of_the_bytes_that_were_predicted(tmp_path):
    # A model of random weights, never trained: every document is held out or of no effect.
    texts = [{"text": "one two three. " * n} for n in (3, 1, 2, 4)]
    write_jsonl(tmp_path / "text.jsonl", texts)
    metrics = pretrain.main(pretrain.Config(text=str(tmp_path / "text.jsonl"), tokens=1, lr=0.0,
                                            layers=1, heads=2, width=16, out=str(tmp_path),
                                            device="cpu"))  # fmt: skip
    tokenizer = Tokenizer()
    model, _ = load(tmp_path / "base.pt", "", tokenizer.size)
    order = [record["text"] for record in texts]
    random.Random(0).shuffle(order)
    row = tokenizer.document(order[-1])
    nats = loss_of(model, [row], tokenizer.pad, "cpu").item() * (len(row) - 1)
    predicted = len(tokenizer.decode(row).encode()) - len(tokenizer.decode(row[:1]).encode())
    assert metrics["loss"] == pytest.approx(nats / (len(row) - 1), rel=1e-5)
    assert metrics["bits_per_byte"] == pytest.approx(nats / math.log(2) / predicted, rel=1e-5)


def test_a_corpus_without_a_word_is_refused_and_one_of_a_letter_each_is_not(tmp_path):
    config = pretrain.Config(text=str(tmp_path / "text.jsonl"), tokens=1, layers=1, heads=2,
                             width=16, out=str(tmp_path), device="cpu")  # fmt: skip
    write_jsonl(tmp_path / "text.jsonl", [{"text": ""}, {"text": " \n"}, {"text": ""}])
    with pytest.raises(UserError, match="needs two or more documents"):
        pretrain.main(config)
    write_jsonl(tmp_path / "text.jsonl", [{"text": "a"}, {"text": "b"}])
    assert pretrain.main(config)["bits_per_byte"] >= 0 and (tmp_path / "base.pt").exists()


def test_pretraining_rate_rises_stays_and_falls_to_0():
    assert [learning_rate(x, 0.1, 0.2) for x in (0.05, 0.1, 0.5, 0.75)] == [0.5, 1.0, 1.0, 1.0]
    assert learning_rate(0.9, 0.1, 0.2) == pytest.approx(0.5)
    assert learning_rate(1.0, 0.1, 0.2) == learning_rate(1.01, 0.1, 0.2) == 0.0
    assert learning_rate(0.5, 0.0, 0.0) == 1.0


def test_cosine_falls_to_a_tenth():
    assert cosine(0, 10) == 1.0
    assert cosine(5, 10) == pytest.approx(0.55)
    assert cosine(10, 10) == pytest.approx(0.1)


# ---------------------------------------------------------------------------------- the whole step
@pytest.fixture
def folder(tmp_path):
    """A base model of random weights and twenty demonstrations."""
    save(tmp_path / "base.pt", tiny(Tokenizer().size, context=64), {})
    lines = [json.dumps({"prompt": p, "completion": c}) + "\n" for p, c in PAIRS * 2]
    (tmp_path / "demos.jsonl").write_text("".join(lines))
    return tmp_path


def run(folder, **options):
    options = {"epochs": 8, "batch": 4, "lr": 3e-2, "log": 10, "device": "cpu", **options}
    demos = str(folder / "demos.jsonl")
    return sft.main(sft.Config(demonstrations=demos, out=str(folder), **options))


def response_loss(model):
    """Mean loss of the responses, computed apart from the script."""
    tokenizer = Tokenizer()
    rows = [(tokenizer.prompt(p), tokenizer.response(c)) for p, c in PAIRS]
    return sft_loss(model, *tokens_and_mask(*zip(*rows), tokenizer.pad, 256)).item()


def test_step_1_learns_and_writes_a_model_and_metrics(folder):
    size = Tokenizer().size
    base = response_loss(load(folder / "base.pt", "x", size)[0])
    metrics = run(folder)
    tuned = response_loss(load(folder / "sft.pt", "x", size)[0])
    assert tuned < base / 2 and metrics["held_loss"] < base / 2
    lines = [json.loads(line) for line in (folder / "sft.jsonl").read_text().splitlines()]
    assert [x.get("step") for x in lines] == [10, 20, 30, 40, None]  # 18 pairs, 5 steps an epoch
    assert lines[-1] == metrics and lines[-2]["held_loss"] == metrics["held_loss"]


def test_the_same_seed_gives_the_same_model_and_another_does_not(folder):
    losses = []
    for seed in (1, 1, 2):
        run(folder, epochs=1, seed=seed)
        losses.append(response_loss(load(folder / "sft.pt", "x", Tokenizer().size)[0]))
    assert losses[0] == losses[1] != losses[2]


def test_prompt_loss_trains_on_the_prompt_too(folder):
    tokenizer = Tokenizer()
    tokens, _ = tokens_and_mask(
        [tokenizer.prompt(p) for p, _ in PAIRS], [[]] * len(PAIRS), tokenizer.pad, 256
    )
    mask = (tokens != tokenizer.pad).float()
    mask[:, 0] = 0
    losses = []
    for prompt_loss in (False, True):
        run(folder, prompt_loss=prompt_loss)
        model = load(folder / "sft.pt", "x", tokenizer.size)[0]
        losses.append(sft_loss(model, tokens, mask).item())
    assert losses[1] < losses[0] / 2


def test_a_missing_base_model_says_what_to_run(folder):
    (folder / "base.pt").unlink()
    with pytest.raises(UserError, match="run python pretrain.py first"):
        run(folder)


def test_a_broken_line_of_demonstrations_is_named_and_no_model_written(folder):
    with (folder / "demos.jsonl").open("a") as file:
        file.write('{"prompt": "Say eleven."}\n')
    with pytest.raises(UserError, match='line 21 has "prompt" and lacks "completion"'):
        run(folder)
    assert not (folder / "sft.pt").exists()
