"""What the scripts log, print and write: of which step, counted over what, under which name."""

import itertools
import math
import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import ppo
import pretrain
import reward
import sft
from data import checkpoints
from data.checkpoints import load, save
from data.files import UserError, write_jsonl
from data.forms import read_jsonl
from data.tokenizer import Tokenizer
from model import GPT, GPTConfig
from tests.small import (
    TOKENIZER,
    WORDS,
    lines,
    model,
    other_weights,
    run_ppo,
    run_pretrain,
    run_reward,
    run_sft,
    same_weights,
    spied,
    stopped,
)

RUNS = {"base": run_pretrain, "sft": run_sft, "reward": run_reward, "ppo": run_ppo}
LOGS = {"base": "pretrain"}  # the others' are named as their models
TIMES = ("seconds", "sampling_seconds", "tokens_per_second")


def without_times(logged: list[dict]) -> list[dict]:
    return [{key: x for key, x in line.items() if key not in TIMES} for line in logged]


@pytest.mark.parametrize("name", RUNS)
def test_a_seed_decides_all_weights_and_all_that_is_logged(folder, name):
    short = {} if name == "ppo" else {"batch": 20 if name == "base" else 4}
    found = []
    for seed in (5, 5, 6):
        RUNS[name](folder, seed=seed, **short)
        found.append((model(folder, name), without_times(lines(folder, LOGS.get(name, name)))))
    assert same_weights(found[0][0], found[1][0]) and found[0][1] == found[1][1]
    assert not same_weights(found[0][0], found[2][0]) and found[0][1] != found[2][1]


@pytest.mark.parametrize("name, number, seed", [
    ("base", 1, 7), ("sft", 1, 7), ("reward", 1, 7), ("ppo", 1, 7), ("reward", 2, 1007),
    ("ppo", 3, 2007),
])  # fmt: skip
def test_every_round_has_a_seed_of_its_own_for_torch_and_for_the_order(
    folder, monkeypatch, name, number, seed
):
    for file in ("ppo", "ppo2"):
        save(folder / f"{file}.pt", model(folder, "sft"), {})
    save(folder / "reward3.pt", model(folder, "reward"), {}, floor=-1.0, spread=1.0)
    torch_seeds, seeds = [], []
    manual_seed, start = torch.manual_seed, random.Random
    monkeypatch.setattr(torch, "manual_seed", lambda s: torch_seeds.append(s) or manual_seed(s))
    monkeypatch.setattr(random, "Random", lambda s=None: seeds.append(s) or start(s))
    if name == "reward":
        comparison = {"prompt": "a", "completions": ["b", "c"], "ranks": [1, 2]}
        monkeypatch.setattr(reward, "collect", lambda *x: ([comparison] * 4, [comparison], {}))
        config = reward.Config(out=str(folder), device="cpu", epochs=1, public=0, round=number,
                               seed=7)  # fmt: skip
        reward.main(config)
    else:
        RUNS[name](folder, seed=7, **({"round": number} if number > 1 else {}))
    assert (torch_seeds[0], seeds[0]) == (seed, seed)


@pytest.mark.parametrize("name", RUNS)
def test_a_stopped_script_goes_on_to_the_same_log(folder, monkeypatch, name):
    short = {"iterations": 3} if name == "ppo" else {"batch": 12, "log": 1}
    RUNS[name](folder, **short)
    file = LOGS.get(name, name)
    expected = without_times(lines(folder, file))
    stopped(monkeypatch, 2, RUNS[name], folder, **short)
    RUNS[name](folder, **short, resume=True)
    assert without_times(lines(folder, file)) == expected and len(expected) > 2


# ------------------------------------------------------------------------------------ pretrain.py
def test_pretraining_logs_the_loss_of_every_so_many_steps_and_the_tokens_so_far(
    folder, monkeypatch, capsys
):
    losses = spied(monkeypatch, pretrain, "loss_of")
    metrics = run_pretrain(folder, log=3, batch=12, tokens=120)
    steps = [(args[1], loss.item()) for args, _, loss in losses if loss.requires_grad]
    seen = list(itertools.accumulate(sum(map(len, rows)) for rows, _ in steps))
    *history, last = lines(folder, "pretrain")
    assert [line["step"] for line in history] == list(range(3, len(steps) + 1, 3)) and len(seen) > 6
    for line in history:
        assert line["tokens"] == seen[line["step"] - 1]
        assert line["loss"] == pytest.approx(steps[line["step"] - 1][1])
    assert last == metrics and last["tokens"] == seen[-1]
    assert last["seconds"] > 0 and last["tokens_per_second"] > 0
    printed = capsys.readouterr().out
    first = history[0]
    assert f"step 3 | tokens {first['tokens']} | loss {first['loss']:.3f} | " in printed
    assert (
        f"held-out loss {last['loss']:.3f} nats per token, {last['bits_per_byte']:.3f}" in printed
    )
    weights = sum(p.numel() for p in model(folder, "base").parameters())
    assert f"{weights:,} parameters, 15 documents in 15 rows" in printed  # of 20


def test_after_a_stop_the_speed_is_of_what_was_trained_since(folder, monkeypatch):
    stopped(monkeypatch, 4, run_pretrain, folder, batch=12, log=1000)
    losses = spied(monkeypatch, pretrain, "loss_of")
    monkeypatch.setattr(pretrain, "time", SimpleNamespace(time=itertools.count().__next__))
    metrics = run_pretrain(folder, batch=12, log=1000, resume=True)  # a second lies in between
    tokens = sum(len(r) for args, _, loss in losses if loss.requires_grad for r in args[1])
    assert metrics["tokens_per_second"] == tokens < metrics["tokens"]


def test_bits_are_per_byte_where_letters_have_several():
    net = GPT(GPTConfig(TOKENIZER.size, context=64, layers=1, heads=2, width=16))
    text = "Élan für Zoë, naïve façade."
    row = TOKENIZER.document(text)
    loss, bits = pretrain.held_out_loss(net, [row], TOKENIZER, "cpu")
    predicted = len(text.encode()) - len(TOKENIZER.decode(row[:1]).encode())
    assert bits * predicted * math.log(2) == pytest.approx(loss * (len(row) - 1), rel=1e-4)


def test_documents_of_ones_own_are_shuffled_and_a_quarter_but_500_at_most_held_out(
    folder, monkeypatch
):
    texts = [f"{word} {i}." for i in range(240) for word in WORDS]
    for count, held in ((2, 1), (20, 5), (2400, 500)):
        write_jsonl(folder / "text.jsonl", [{"text": text} for text in texts[:count]])
        calls = spied(monkeypatch, pretrain, "held_out_loss")
        monkeypatch.setattr(pretrain, "loss_of", lambda net, rows, *rest: net.ln_f.bias.sum())
        run_pretrain(folder, tokens=20)
        assert len(calls[0][0][1]) == held
    config = pretrain.Config(text=str(folder / "text.jsonl"))
    one, two = (pretrain.read_corpus(config, random.Random(seed)) for seed in (0, 1))
    assert sorted(one) == sorted(two) == sorted(texts) and one != two and texts not in (one, two)


def test_a_vocabulary_has_the_size_that_was_asked_for(folder):
    run_pretrain(folder, vocabulary=264, out=str(folder / "own"))
    tokenizer = Tokenizer.of(folder / "own")
    assert tokenizer.size == 264 and tokenizer.eos == 263
    assert load(folder / "own" / "base.pt", "", 264)[0].config.vocab_size == 264


@pytest.mark.parametrize("name", ["base", "sft"])
def test_a_sample_answers_the_question_that_is_printed_above_it(folder, monkeypatch, capsys, name):
    module, asked = {"base": pretrain, "sft": sft}[name], []

    def generate(policy, prompts, max_new, eos, temperature=1.0):
        asked.append((prompts, max_new, eos, temperature, policy))
        return [TOKENIZER.encode("It is red.") + [eos]]

    monkeypatch.setattr(module, "generate", generate)
    RUNS[name](folder, lr=1e-2)
    ((prompts, max_new, eos, temperature, policy),) = asked
    assert [TOKENIZER.decode(row) for row in prompts] == ["What color is a lemon?\n"]
    assert max_new == 40 and eos == TOKENIZER.eos and temperature == 1.0
    assert same_weights(policy, model(folder, name))
    assert "sample | What color is a lemon?\nIt is red.\nwrote " in capsys.readouterr().out


# ----------------------------------------------------------------------------------------- sft.py
def test_sft_logs_the_loss_of_the_step_and_of_all_that_is_held_out(folder, monkeypatch, capsys):
    losses = spied(monkeypatch, sft, "sft_loss")
    held = spied(monkeypatch, sft, "held_out_loss")
    metrics = run_sft(folder, batch=5, epochs=2, log=3)
    steps = [loss.item() for _, _, loss in losses if loss.requires_grad]
    *history, last = lines(folder, "sft")
    assert len(steps) == 8 and [line["step"] for line in history] == [3, 6, 8]
    assert [line["loss"] for line in history] == pytest.approx([steps[2], steps[5], steps[7]])
    assert [line["held_loss"] for line in history] == [loss for _, _, loss in held]
    assert last == metrics and last["held_loss"] == history[-1]["held_loss"]
    line = "step 8 | loss {loss:.3f} | held-out loss {held_loss:.3f}".format(**history[-1])
    assert line in capsys.readouterr().out


def test_the_final_held_out_loss_is_that_of_the_weights_that_are_saved(folder, monkeypatch):
    losses = iter([1.0, 2.0, 3.0])  # it may rise
    monkeypatch.setattr(sft, "held_out_loss", lambda *args: next(losses))
    assert run_sft(folder, batch=5, epochs=2, log=3)["held_loss"] == 3.0


def test_the_held_out_loss_is_per_token_over_several_batches_of_rows():
    """100 rows of 2 tokens that cost 1 nat each, and 30 of 5 tokens that cost 3."""
    pairs = [([1], [1, 1])] * 100 + [([1], [3] * 5)] * 30

    class Costs:
        def logprobs(self, tokens, mask):
            return -tokens.float() * mask

    def batch_of(some):
        return sft.collate(some, pad=0, context=64, device="cpu", prompt_loss=False)

    expected = (200 * 1 + 150 * 3) / 350
    assert sft.held_out_loss(Costs(), pairs, batch_of) == pytest.approx(expected)


def test_with_prompt_loss_all_tokens_count_but_the_first_and_padding():
    tokens, mask = sft.collate([([1, 2, 3], [4, 5]), ([6], [7])], 9, 64, "cpu", True)
    assert mask.tolist() == [[0, 1, 1, 1, 1], [0, 1, 0, 0, 0]]
    _, mask = sft.collate([([1, 2, 3], [4, 5]), ([6], [7])], 9, 64, "cpu", False)
    assert mask.tolist() == [[0, 0, 0, 1, 1], [0, 1, 0, 0, 0]]


# -------------------------------------------------------------------------------------- reward.py
def test_the_reward_model_logs_the_share_of_untied_pairs_that_a_step_ranked_rightly(
    folder, monkeypatch, capsys
):
    records = [{"prompt": f"Say {word}.", "completions": ["yes", "no no", "a b c"][: 2 + i % 2],
                "ranks": [1, 2, 2][: 2 + i % 2]} for i, word in enumerate(WORDS * 2)]  # fmt: skip
    write_jsonl(folder / "ranked.jsonl", records)
    losses = spied(monkeypatch, reward, "bradley_terry_loss")
    metrics = run_reward(folder, batch=5, epochs=2, log=3, lr=1e-2)
    *history, last = lines(folder, "reward")
    assert len(losses) == 8 and [line["step"] for line in history] == [3, 6, 8]
    for line in history:
        (scores, ranks), _, loss = losses[line["step"] - 1]
        right = [bool(row[i] > row[j]) for row, places in zip(scores, ranks)
                 for i in range(len(row)) for j in range(len(row))
                 if 0 < places[i] < places[j]]  # fmt: skip
        assert line["accuracy"] == pytest.approx(np.mean(right))
        assert line["loss"] == pytest.approx(loss.item())
    assert last == metrics and {"accuracy", "sampling_seconds", "seconds"} <= set(last)
    line = "step 8 | loss {loss:.3f} | accuracy {accuracy:.2f}".format(**history[-1])
    printed = capsys.readouterr().out
    assert line in printed and "18 comparisons of 46 responses" in printed


def test_every_tenth_prompt_of_ones_own_comparisons_is_held_out_however_often_it_comes(folder):
    counts = [3, 1, 2, 1, 5, 1, 1, 1, 1, 2, 1, 4, 1]
    records = [{"prompt": f"Say {i}.", "completions": ["a", "b"], "ranks": [1, 2]}
               for i, count in enumerate(counts) for _ in range(count)]  # fmt: skip
    random.Random(0).shuffle(records)
    write_jsonl(folder / "own.jsonl", records)
    config = reward.Config(comparisons=str(folder / "own.jsonl"), out=str(folder))
    trained, held = reward.read_comparisons(config, TOKENIZER, 64)
    prompts = list(dict.fromkeys(record["prompt"] for record in records))
    assert {c["prompt"] for c in held} == {prompts[0], prompts[10]}
    assert {c["prompt"] for c in trained} == set(prompts) - {prompts[0], prompts[10]}
    assert len(trained) + len(held) == len(records)


def test_comparisons_of_ties_alone_are_refused(folder):
    config = reward.Config(comparisons=str(folder / "own.jsonl"), out=str(folder))
    for ranks, fine in (([1, 1], False), ([1, 2], True)):
        write_jsonl(folder / "own.jsonl", [
            {"prompt": f"Say {i}.", "completions": ["a", "b"], "ranks": ranks}
            for i in range(5)
        ])  # fmt: skip
        if fine:
            assert len(reward.read_comparisons(config, TOKENIZER, 64)[0]) == 4
        else:
            with pytest.raises(UserError, match="untied ranks"):
                reward.read_comparisons(config, TOKENIZER, 64)


def test_ppo_does_not_go_on_with_another_reward_model(folder, monkeypatch):
    stopped(monkeypatch, 1, run_ppo, folder)
    other = other_weights(model(folder, "reward"), 0.1)
    save(folder / "reward.pt", other, {}, floor=-1.0, spread=1.0)
    with pytest.raises(UserError, match="another reward model"):
        run_ppo(folder, resume=True)


def test_a_reward_model_is_centred_on_the_first_1000_demonstrations_before_its_floor_is_taken(
    folder, monkeypatch
):
    demonstrations = [{"prompt": "Say one.", "completion": f"{i}"} for i in range(1003)]
    write_jsonl(folder / "pairs.jsonl", demonstrations)
    order = []
    monkeypatch.setattr(reward, "centre", lambda *args: order.append(args))
    found = {"floor": -7.0, "spread": 3.0}
    monkeypatch.setattr(reward, "scale", lambda *args: order.append(args) or found)
    run_reward(folder)
    assert order[0][2] == demonstrations[:1000]
    assert {c["prompt"] for c in order[1][2]} == {f"Say {word}." for word in WORDS[1:]}
    assert order[0][0] is order[1][0]
    extra = load(folder / "reward.pt", "", TOKENIZER.size)[1]
    assert (extra["floor"], extra["spread"]) == (-7.0, 3.0)


def test_floor_and_spread_are_of_300_comparisons_at_most_drawn_from_short_and_long_ones(
    folder, monkeypatch
):
    write_jsonl(folder / "ranked.jsonl", [
        {"prompt": f"Say {i}.", "chosen": "yes " * (1 + i % 19), "rejected": "no"}
        for i in range(400)])  # fmt: skip
    calls = spied(monkeypatch, reward, "scale")
    run_reward(folder, epochs=1)
    (_, _, some), _, _ = calls[0]
    lengths = {len(c["completions"][0]) for c in some}
    assert len(some) == 300 and len({c["prompt"] for c in some}) == 300 and len(lengths) == 19


def test_a_second_rounds_files_stand_beside_the_firsts(folder, monkeypatch):
    save(folder / "ppo.pt", other_weights(model(folder, "sft"), 0.1), {})
    save(folder / "reward2.pt", model(folder, "reward"), {}, floor=-1.0, spread=1.0)
    for file in ("reward.jsonl", "ppo.jsonl", "reward.state", "ppo.state"):
        (folder / file).write_text("first\n")
    monkeypatch.setattr(checkpoints, "SECONDS", 0)
    monkeypatch.setattr(checkpoints, "SHARE", math.inf)
    before = {file: (folder / file).read_bytes() for file in ("ppo.pt", "reward.pt")}
    comparison = {"prompt": "a", "completions": ["b", "c"], "ranks": [1, 2]}
    monkeypatch.setattr(reward, "collect", lambda *x: ([comparison] * 4, [comparison], {}))
    reward.main(reward.Config(out=str(folder), device="cpu", epochs=1, public=0, round=2))
    run_ppo(folder, round=2, snapshots=1)
    for file in ("reward.jsonl", "ppo.jsonl", "reward.state", "ppo.state"):
        assert (folder / file).read_text() == "first\n"
    assert {file: (folder / file).read_bytes() for file in before} == before
    for file in ("reward2.jsonl", "reward2.pt", "ppo2.jsonl", "ppo2.pt", "snapshots/ppo2_1.pt"):
        assert (folder / file).exists()
    assert not (folder / "snapshots" / "ppo_1.pt").exists()


def test_a_third_round_learns_from_both_earlier_rounds(folder, monkeypatch):
    records = [{"prompt": p, "completions": ["a", "b"], "ranks": [1, 2], "labeler": 0}
               for p in ("first", "second")]  # fmt: skip
    write_jsonl(folder / "comparisons.jsonl", records[:1])
    write_jsonl(folder / "comparisons2.jsonl", records[1:])
    monkeypatch.setattr(reward, "sample_responses", lambda policy, tokenizer, prompts, counts, most:
                        [["It is red."] * k for k in counts])  # fmt: skip
    config = reward.Config(out=str(folder), count=3, round=3)
    comparisons, _, _ = reward.collect(config, [model(folder, "sft")], TOKENIZER, random.Random(0))
    assert len(comparisons) == 5 and all(record in comparisons for record in records)
    assert len(lines(folder, "comparisons3")) == 3


def test_a_labelers_prompts_and_a_quarter_as_many_of_validation_are_sampled(folder, monkeypatch):
    monkeypatch.setattr(reward, "sample_responses", lambda policy, tokenizer, prompts, counts, most:
                        [["It is red."] * k for k in counts])  # fmt: skip
    config = reward.Config(out=str(folder), count=30, k_min=5, k_max=5)
    comparisons, held, _ = reward.collect(config, [model(folder, "sft")], TOKENIZER,
                                          random.Random(0))  # fmt: skip
    assert len(comparisons) == 30 and all(len(c["ranks"]) == 5 for c in comparisons)
    valid = [r["prompt"] for r in read_jsonl("data/valid.jsonl")]
    assert [c["prompt"] for c in held] == valid[:7]
    third = reward.Config(out=str(folder), count=30, round=1, k_min=4, k_max=6)
    comparisons, _, metrics = reward.collect(third, [model(folder, "sft")], TOKENIZER,
                                             random.Random(0))  # fmt: skip
    assert {len(c["ranks"]) for c in comparisons} == {4, 5, 6}
    assert metrics["agreement"]["n"] == 0  # equal answers are ties to everyone


# ----------------------------------------------------------------------------------------- ppo.py
def test_ppo_logs_the_rollout_of_each_iteration_and_the_means_of_its_steps(folder, monkeypatch):
    batches = spied(monkeypatch, ppo, "rollout")
    values = spied(monkeypatch, ppo, "value_loss")
    last = run_ppo(folder, iterations=3, value_warmup=2)
    history = lines(folder, "ppo")
    assert [line["iteration"] for line in history] == [-2, -1, 0, 1, 2] and last == history[-1]
    for line, (_, _, batch), i in zip(history, batches, range(5)):
        for key, x in ppo.rollout_metrics(batch).items():
            assert line[key] == pytest.approx(x)
        means = np.mean([loss.item() for _, _, loss in values[2 * i : 2 * i + 2]])
        assert line["value_loss"] == pytest.approx(means, rel=1e-4)
        assert ("policy_loss" in line) == ("clipfrac" in line) == (line["iteration"] >= 0)
    seconds = [line["seconds"] for line in history]
    assert seconds == sorted(seconds) and seconds[0] > 0


def test_ppo_prints_a_line_every_so_often_and_at_the_end_and_a_sample_more_rarely(folder, capsys):
    run_ppo(folder, iterations=10, value_warmup=2, log=2, episodes=8)
    printed = capsys.readouterr().out.splitlines()
    steps = [int(line.split()[1]) for line in printed if line.startswith("step ")]
    assert steps == [-2, 0, 2, 4, 6, 8, 9]
    assert sum(line.startswith("sample | Say ") for line in printed) == 2  # at 0 and 8
    line = ppo.LINE.format(**{"clipfrac": 0.0, **lines(folder, "ppo")[0]})
    assert line in printed
    assert printed[-1].startswith(f"wrote {folder}/ppo.pt in ")


def test_ppo_ptx_is_another_product_of_the_same_start(folder, monkeypatch):
    counts = []
    monkeypatch.setattr(ppo.make, "corpus", lambda count: counts.append(count) or ["one is one."])
    webs = spied(monkeypatch, ppo, "ptx_loss")
    save(folder / "ppo.pt", other_weights(model(folder, "sft"), 0.1), {})
    before = (folder / "ppo.pt").read_bytes()
    run_ppo(folder, ptx_coef=0.5, iterations=1, snapshots=1, minibatch=4)
    assert (folder / "ppo.pt").read_bytes() == before and not (folder / "ppo.jsonl").exists()
    for file in ("ppo_ptx.pt", "ppo_ptx.jsonl", "snapshots/ppo_ptx_1.pt"):
        assert (folder / file).exists()
    assert counts == [8000] and [args[2] for args, _, _ in webs] == [4] * 4


def test_documents_for_ptx_have_128_tokens_at_most_and_their_loss_is_per_token(monkeypatch):
    texts = ["one is one.", "two " * 500]
    monkeypatch.setattr(ppo.make, "corpus", lambda count: texts)
    rows = ppo.web_rows(ppo.Config(ptx_coef=1.0), TOKENIZER, 256)
    assert rows == [TOKENIZER.document(text)[:128] for text in texts] and len(rows[1]) == 128
    assert len(ppo.web_rows(ppo.Config(ptx_coef=1.0), TOKENIZER, 64)[1]) == 64
    assert ppo.web_rows(ppo.Config(), TOKENIZER, 256) == []
    counted = []

    class Costs:
        wte = torch.nn.Embedding(1, 1)

        def logprobs(self, tokens, mask):  # a token costs its number
            counted.append((tokens, mask))
            return -tokens.float() * mask

    loss = ppo.ptx_loss(Costs(), [[5, 1, 1], [5, 4, 4, 4, 4, 4]], 64, 9)
    ((tokens, mask),) = counted
    short, long = ((tokens[:, 1] == first).sum().item() for first in (1, 4))
    assert short + long == len(tokens) == 64 and min(short, long) > 10  # drawn at random
    assert loss.item() == pytest.approx((2 * short + 20 * long) / (2 * short + 5 * long))
    assert mask.sum().item() == 2 * short + 5 * long
