"""The GPT, log-probabilities, sampling and checkpoints, on a tiny model with random weights."""

import io
import math
import os
import pickle
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

import model as m
from data.checkpoints import checksum, load, pick_device, save
from data.files import UserError
from tests.small import spied

V, PAD, CONTEXT = 20, 20, 32
CLOSE = {"rtol": 1e-5, "atol": 1e-6}  # float32: sums of 16 terms of size 1 differ by 1e-6


def tiny(kind=m.GPT, seed=0, **options):
    torch.manual_seed(seed)
    return kind(m.GPTConfig(V, context=CONTEXT, layers=2, heads=2, width=16, **options)).eval()


def random_prompts(count, longest, seed=0):
    g = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, longest + 1, (count,), generator=g).tolist()
    return [torch.randint(V, (n,), generator=g).tolist() for n in lengths]


def batch():
    """Three rows with prompts of 3, 1, 2 tokens and responses of 2, 6, 1: (3,7)."""
    return m.tokens_and_mask(
        [[1, 2, 3], [4], [5, 6]], [[7, 8], [9, 10, 11, 12, 13, 14], [15]], PAD, 32
    )


def favour(model, token, strength):
    """Adds to the final LayerNorm's bias so that the token's logit rises by about `strength`."""
    with torch.no_grad():
        row = model.wte.weight[token]
        model.ln_f.bias += strength * row / row.pow(2).sum()


# ---------------------------------------------------------------------------------- architecture
def test_attention_equals_torchs_own():
    attention = tiny().blocks[0].attention.double()
    x = torch.randn(3, 5, 16, dtype=torch.float64)
    heads = (y.view(3, 5, 2, 8).transpose(1, 2) for y in attention.qkv(x).split(16, dim=-1))
    y = F.scaled_dot_product_attention(*heads, is_causal=True).transpose(1, 2).reshape(3, 5, 16)
    torch.testing.assert_close(attention(x), attention.proj(y))


def test_a_block_adds_attention_and_a_tanh_gelu_to_its_input():
    torch.manual_seed(0)
    block, x = m.Block(m.GPTConfig(V, layers=1, heads=2, width=16)), torch.randn(1, 3, 16)
    block.up.weight.data *= 3  # far enough out for the two GELUs to differ
    middle = x + block.attention(block.ln_1(x))
    up = block.up(block.ln_2(middle))
    inner = math.sqrt(2 / math.pi) * (up + 0.044715 * up**3)
    expected = middle + block.down(0.5 * up * (1 + inner.tanh()))
    torch.testing.assert_close(block(x), expected, rtol=1e-5, atol=1e-6)


def test_a_later_token_changes_no_earlier_logit():
    model, tokens = tiny(), torch.randint(V, (3, 9))
    changed = tokens.clone()
    changed[:, 5] = (tokens[:, 5] + 1) % V
    before, after = model(tokens), model(changed)
    assert before.shape == (3, 9, V)  # PAD has no logit
    torch.testing.assert_close(before[:, :5], after[:, :5], rtol=0, atol=0)
    assert ((before - after)[:, 5:].abs().amax(dim=-1) > 1e-3).all()


def test_weights_start_so_that_heads_look_for_what_is_alike():
    model = tiny()
    for attention in (block.attention for block in model.blocks):
        q, k, v = attention.qkv.weight.split(16)
        torch.testing.assert_close(q, k)
        assert not torch.equal(q, v)
        torch.testing.assert_close(attention.proj.weight, v.T / 2)  # sqrt(2 * 2 layers)
    # Positions have length 1, as tokens have on average; neighbours are alike, wherever they stand.
    near = model.wpe.weight @ model.wpe.weight.T
    torch.testing.assert_close(near.diag(), torch.ones(CONTEXT))
    torch.testing.assert_close(near.diag(1), near[0, 1].expand(CONTEXT - 1))
    torch.testing.assert_close(near.diag(3), near[0, 3].expand(CONTEXT - 3))


def test_weights_start_with_their_standard_deviations():
    torch.manual_seed(0)
    model = m.ScalarGPT(m.GPTConfig(2000, layers=3, heads=2, width=64))
    up, down = model.blocks[0].up.weight, model.blocks[0].down.weight
    expected = {model.wte.weight: 1 / 8, up: 1 / 8, down: 1 / 8 / math.sqrt(6)}
    for weight, std in expected.items():
        assert weight.std().item() == pytest.approx(std, rel=0.03)
    heads = [m.ScalarGPT(m.GPTConfig(20, layers=1, heads=2, width=64)).scalar for _ in range(60)]
    weights = torch.cat([head.weight.flatten() for head in heads])
    assert weights.std().item() == pytest.approx(1 / math.sqrt(65), rel=0.05)
    biases = [p for name, p in model.named_parameters() if name.endswith("bias")]
    assert all((p == 0).all() for p in biases) and heads[0].bias.item() == 0


# --------------------------------------------------------------------------- batches and logprobs
def test_a_batch_pads_on_the_right_and_marks_the_response():
    tokens, mask = m.tokens_and_mask([[1, 2], [3]], [[4], [5, 6, 7]], PAD, 32)
    assert tokens.tolist() == [[1, 2, 4, PAD], [3, 5, 6, 7]]
    assert mask.tolist() == [[0, 0, 1, 0], [0, 1, 1, 1]]


def test_a_batch_cuts_a_response_where_the_context_ends():
    tokens, mask = m.tokens_and_mask([[1, 2], [3]], [[4, 5, 6], [5]], PAD, 4)
    assert tokens.tolist() == [[1, 2, 4, 5], [3, 5, PAD, PAD]]
    assert mask.tolist() == [[0, 0, 1, 1], [0, 1, 0, 0]]


def test_logprobs_keep_the_models_precision():
    model, (tokens, mask) = tiny().double(), batch()
    logp = model.logprobs(tokens, mask)
    assert logp.dtype == torch.float64
    every = model(tokens).log_softmax(dim=-1)
    for b, t in mask.nonzero().tolist():
        assert logp[b, t].item() == pytest.approx(every[b, t - 1, tokens[b, t]].item(), rel=1e-12)


def test_logprobs_are_the_log_softmax_one_position_before_the_token():
    model, (tokens, mask) = tiny(), batch()
    every, expected = model(tokens).log_softmax(dim=-1), torch.zeros(3, 7)
    for b, t in mask.nonzero().tolist():
        expected[b, t] = every[b, t - 1, tokens[b, t]]
    logp = model.logprobs(tokens, mask)
    torch.testing.assert_close(logp, expected, **CLOSE)
    assert (logp[mask == 0] == 0).all() and (logp[mask == 1] < 0).all()


def test_logprobs_ignore_padding_row_order_and_neighbours():
    model, (tokens, mask) = tiny(), batch()
    logp = model.logprobs(tokens, mask)
    other = torch.where(tokens == PAD, torch.randint(V, tokens.shape), tokens)
    torch.testing.assert_close(model.logprobs(other, mask), logp, **CLOSE)
    wide = model.logprobs(F.pad(tokens, (0, 5), value=PAD), F.pad(mask, (0, 5)))
    torch.testing.assert_close(wide, F.pad(logp, (0, 5)), **CLOSE)
    torch.testing.assert_close(model.logprobs(tokens.flip(0), mask.flip(0)), logp.flip(0), **CLOSE)
    torch.testing.assert_close(model.logprobs(tokens[2:], mask[2:]), logp[2:], **CLOSE)


def test_logprobs_send_no_gradient_to_where_they_are_not_read():
    model = tiny()
    tokens, mask = m.tokens_and_mask([[1, 2, 3], [4]], [[5, 6], [7, 8, 9]], PAD, 32)
    model.logprobs(tokens, mask).sum().backward()
    # The last masked tokens stand at 4 and 3, so positions 0..3 are read and 4 is not.
    assert (model.wpe.weight.grad[:4].abs().amax(dim=1) > 0).all()
    assert (model.wpe.weight.grad[4:] == 0).all() and (model.wte.weight.grad[PAD] == 0).all()


# ----------------------------------------------------------------------------------- scalar heads
def test_score_reads_the_last_response_token():
    model, (tokens, mask) = tiny(m.ScalarGPT), batch()
    score = model.score(tokens, mask)
    rows = [row[row != PAD][None] for row in tokens]
    torch.testing.assert_close(score, torch.stack([model(r)[0, -1] for r in rows]), **CLOSE)
    noise = torch.where(tokens == PAD, torch.randint(V, tokens.shape), tokens)
    torch.testing.assert_close(model.score(noise, mask), score, **CLOSE)
    tokens[0, 4] = 16
    moved = (model.score(tokens, mask) - score).abs()
    assert moved[0] > 1e-3 and moved[1:].max() < 1e-5


def test_values_are_read_before_their_token_and_masked():
    model, (tokens, mask) = tiny(m.ScalarGPT), batch()
    values, every, expected = model.values(tokens, mask), model(tokens), torch.zeros(3, 7)
    for b, t in mask.nonzero().tolist():
        expected[b, t] = every[b, t - 1]
    torch.testing.assert_close(values, expected, **CLOSE)
    # The value of a row's last token must not know that token.
    tokens[1, 6] = 16
    torch.testing.assert_close(model.values(tokens, mask)[1], values[1], **CLOSE)


def test_responses_behind_one_prompt_score_as_if_each_stood_alone():
    model, prompts = tiny(m.ScalarGPT).double(), [[1, 2, 3], [4]]
    responses = [[[5, 6], [7], [5, 6, 9]], [[8], [2, 2]]]
    alone = [
        m.tokens_and_mask([p] * len(some), some, PAD, 32) for p, some in zip(prompts, responses)
    ]
    expected = [model.score(tokens, mask) for tokens, mask in alone]
    sum((x**2).sum() for x in expected).backward()
    grads = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    model.zero_grad()
    tokens = m.pad_rows([[1, 2, 3, 5, 6, 7, 5, 6, 9], [4, 8, 2, 2]], PAD)
    positions = m.pad_rows([[0, 1, 2, 3, 4, 3, 3, 4, 5], [0, 1, 1, 2]], 0)
    part = m.pad_rows([[0, 0, 0, 1, 1, 2, 3, 3, 3], [0, 1, 2, 2]], -1)
    found = model.score_each(tokens, positions, part, 3)
    assert found.shape == (2, 3)
    torch.testing.assert_close(torch.cat([found[0], found[1, :2]]), torch.cat(expected))
    ((found[0] ** 2).sum() + (found[1, :2] ** 2).sum()).backward()
    again = [p.grad for p in model.parameters() if p.grad is not None]
    torch.testing.assert_close(again, grads)


@pytest.mark.parametrize("price, parts", [(1000, 1), (16, 2), (3, 3), (0, 5)])
def test_rows_in_parts_give_the_same_outputs_and_gradients(price, parts, monkeypatch):
    monkeypatch.setattr(m, "PART", price)
    prompts = [[1], [2, 3], [4], [5], [6] * 9]
    responses = [[7] * 5, [8], [9] * 11, [1, 2], [3]]
    tokens, _ = m.tokens_and_mask(prompts, responses, PAD, 32)
    real, gradients = (tokens != PAD)[:, :, None], []
    calls = spied(monkeypatch, m.GPT, "hidden")
    for whole in (True, False):
        model = tiny()
        calls.clear()
        hidden = model.hidden(tokens) if whole else m.hidden_by_length(model, tokens)
        assert len(calls) == (1 if whole else parts)
        assert hidden.shape == (5, 12, 16)
        ((hidden * real) ** 2 * torch.arange(1, 6)[:, None, None]).sum().backward()
        grads = [p.grad for p in model.parameters() if p.grad is not None]
        gradients.append((hidden * real, grads))
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-4, atol=1e-4)


def test_rows_are_in_as_many_parts_as_pay(monkeypatch):
    model, calls = m.GPT(m.GPTConfig(V, layers=1, width=16)), spied(monkeypatch, m.GPT, "hidden")
    cases = ([40] * 30, [40]), ([10] * 20 + [30] * 20, [10, 30]), ([1, 100], [100])
    for lengths, widths in cases:
        calls.clear()
        m.hidden_by_length(model, m.pad_rows([[1] * n for n in lengths], PAD))
        assert [args[1].shape[1] for args, _, _ in calls] == widths


def test_copy_body_copies_all_but_the_scalar_head():
    policy, scalar = tiny(seed=1), tiny(m.ScalarGPT, seed=2)
    head = scalar.scalar.weight.clone()
    m.copy_body(policy, scalar)
    tokens = torch.randint(V, (2, 6))
    assert torch.equal(policy.hidden(tokens), scalar.hidden(tokens))
    assert torch.equal(head, scalar.scalar.weight) and scalar.scalar.bias.item() == 0
    assert policy.wte.weight.data_ptr() != scalar.wte.weight.data_ptr()


# --------------------------------------------------------------------------------------- sampling
def slow_greedy(model, prompt, max_new, eos):
    """One row, no cache, the whole forward pass for every token."""
    row = list(prompt)
    while len(row) < min(len(prompt) + max_new, CONTEXT):
        row.append(model(torch.tensor([row]))[0, -1].argmax().item())
        if row[-1] == eos:
            break
    return row[len(prompt) :]


def test_cached_greedy_sampling_equals_slow_decoding():
    # Any token can play the EOS. Prompts of up to 28 tokens let some rows hit the context's end.
    model, prompts, early, late = tiny(seed=3), random_prompts(12, 28), [], []
    endless = [slow_greedy(model, p, 13, -1) for p in prompts]
    for eos in range(V):
        expected = [r[: r.index(eos) + 1] if eos in r else r for r in endless]
        assert m.generate(model, prompts, 13, eos, temperature=0) == expected
        early.append(sum(len(r) <= 4 for r in expected))
        late.append(sum(len(r) > 8 for r in expected))
    # For some EOS, rows were dropped after four steps while others went on.
    assert any(e >= 4 and n >= 2 for e, n in zip(early, late)), (early, late)
    assert any(len(p) + len(r) == CONTEXT for p, r in zip(prompts, endless))


@pytest.mark.parametrize("prefix", [[3], [5, 1, 2, 7, 7, 2]])
def test_prompts_with_a_common_beginning_are_continued_alike(prefix):
    model = tiny(seed=3)
    prompts = [prefix + p for p in [[], [1], [4, 4, 9], [1, 2]]] + [prefix + [6] * 9]
    expected = [slow_greedy(model, p, 8, -1) for p in prompts]
    assert m.generate(model, prompts, 8, -1, temperature=0) == expected
    assert m.generate(model, [prefix] * 3, 8, -1, temperature=0) == [expected[0]] * 3


def test_a_prompt_that_comes_again_is_read_once(monkeypatch):
    model, some = tiny(seed=3), random_prompts(8, 20)
    prompts = [*some, *some[::-1], *some[:3]]
    expected = [slow_greedy(model, p, 8, -1) for p in prompts]
    calls = spied(monkeypatch, m.GPT, "hidden")
    assert m.generate(model, prompts, 8, -1, temperature=0) == expected
    assert len(calls[0][0][1]) == 8 and len(calls[1][0][1]) == 19


def test_samples_respect_max_new_context_eos_and_never_hold_pad():
    model, prompts, eos = tiny(), [*random_prompts(30, 31), [1] * 31], V - 1
    favour(model, eos, 2.0)
    favour(model, PAD, 2.0)
    torch.manual_seed(0)
    responses = m.generate(model, prompts, 10, eos)
    for prompt, response in zip(prompts, responses):
        assert 1 <= len(response) <= min(10, CONTEXT - len(prompt))
        assert all(0 <= token < V for token in response) and eos not in response[:-1]
        full = len(response) == min(10, CONTEXT - len(prompt))
        assert response[-1] == eos or full
    assert {r[-1] == eos for r in responses} == {True, False}
    assert len({len(r) for r in responses}) > 3


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_samples_follow_the_softmax_at_the_temperature(temperature):
    # Chi-square of 20 cells, 19 degrees of freedom: above 60 once in 200,000 draws.
    model, prompts, n = tiny(), [[1, 2, 3, 4], [5]], 4000
    torch.manual_seed(1)
    responses = m.generate(model, [p for p in prompts for _ in range(n)], 2, -1, temperature)
    for i, prompt in enumerate(prompts):
        mine = torch.tensor(responses[i * n : (i + 1) * n])
        first = (model(torch.tensor([prompt]))[0, -1] / temperature).softmax(dim=-1)
        longer = torch.tensor([prompt + [t] for t in range(V)])
        second = first @ (model(longer)[:, -1] / temperature).softmax(dim=-1)
        for column, p in enumerate((first, second)):
            seen = mine[:, column].bincount(minlength=V)
            assert ((seen - n * p) ** 2 / (n * p)).sum() < 60


def test_batches_have_as_many_rows_as_their_cache_may_take():
    # Keys and values of 4 bytes: 2 x 12 layers x 768 x 192 tokens x 4 = 14 MB a row, 75 at most.
    gpt2 = m.GPTConfig(50257, context=1024, layers=12, heads=12, width=768)
    assert m.rows_that_fit(gpt2, 192) == 2**30 // (2 * 12 * 768 * 192 * 4) == 75
    assert m.rows_that_fit(gpt2, 1024) == 14
    assert m.rows_that_fit(m.GPTConfig(1024), 256) == 256
    assert m.rows_that_fit(m.GPTConfig(50257, layers=48, width=1600), 10_000) == 1


def test_texts_are_sampled_in_batches_that_fit(monkeypatch):
    sizes = []
    monkeypatch.setattr(m, "generate", lambda model, rows, *rest: sizes.append(len(rows)) or rows)
    monkeypatch.setattr(m, "rows_that_fit", lambda config, longest: longest)
    tokenizer = SimpleNamespace(decode=str, eos=0)
    rows = [[i] * 3 for i in range(20)]
    assert m.sample_texts(tiny(), tokenizer, rows, 4) == list(map(str, rows))
    assert sizes == [7, 7, 6]  # of 3 + 4 tokens


def test_texts_are_sampled_from_short_to_long_and_come_in_the_order_asked(monkeypatch):
    read = []
    monkeypatch.setattr(m, "generate", lambda model, rows, *rest: read.extend(rows) or rows)
    rows = [[1] * n for n in (5, 2, 9, 2, 7)]
    texts = m.sample_texts(tiny(), SimpleNamespace(decode=len, eos=0), rows, 4)
    assert texts == [5, 2, 9, 2, 7] and list(map(len, read)) == [2, 2, 5, 7, 9]


def test_texts_are_sampled_at_the_temperature_and_the_length_asked_for(monkeypatch):
    calls = []
    monkeypatch.setattr(m, "generate", lambda model, rows, *rest: calls.append(rest) or rows)
    tokenizer = SimpleNamespace(decode=str, eos=7)
    m.sample_texts(tiny(), tokenizer, [[1]], 4, 0.0)
    m.sample_texts(tiny(), tokenizer, [[1]], 5)
    assert calls == [(4, 7, 0.0), (5, 7, 1.0)]


def test_a_samples_white_space_is_left_as_it_is(monkeypatch):
    monkeypatch.setattr(m, "generate", lambda model, rows, *rest: rows)
    tokenizer = SimpleNamespace(decode=lambda row: " a \n", eos=7)
    assert m.sample_texts(tiny(), tokenizer, [[1]], 4) == [" a \n"]


def test_scores_are_in_the_order_of_the_texts_over_several_batches(monkeypatch):
    monkeypatch.setattr(m, "rows_that_fit", lambda *args: 3)
    net = tiny(m.ScalarGPT)
    tokenizer = SimpleNamespace(prompt=lambda t: [int(t)], response=lambda t: [int(t), V - 1],
                                pad=PAD)  # fmt: skip
    prompts, responses = [str(i) for i in range(8)], [str(i) for i in range(8, 16)]
    expected = []
    for p, r in zip(prompts, responses):
        row = torch.tensor([[int(p), int(r), V - 1]])
        expected.append(net(row)[0, -1].item())
    found = m.score_texts(net, tokenizer, prompts, responses)
    assert found == pytest.approx(expected, rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("length", [CONTEXT, CONTEXT + 5])
def test_a_prompt_that_leaves_no_room_is_refused(length):
    with pytest.raises(ValueError, match=f"{length} tokens"):
        m.generate(tiny(), [[1], [2] * length], 4, V - 1)


# ------------------------------------------------------------------------------------ checkpoints
@pytest.mark.parametrize("kind", [m.GPT, m.ScalarGPT])
def test_save_and_load_keep_weights_extras_and_the_bias(tmp_path, kind):
    model, tokens = tiny(kind), batch()[0]
    if kind is m.ScalarGPT:
        model.scalar.bias.data -= 1.75
    save(tmp_path / "new" / "a.pt", model.train(), {"base": 7}, floor=-0.5, name="x")
    loaded, extra = load(tmp_path / "new" / "a.pt", "python x.py", V)
    assert type(loaded) is kind and loaded.config == model.config and not loaded.training
    assert extra == {"checksum": checksum(model), "made_from": {"base": 7}, "floor": -0.5,
                     "name": "x"}  # fmt: skip
    assert torch.equal(loaded(tokens), model.eval()(tokens))
    assert os.listdir(tmp_path / "new") == ["a.pt"]


def test_a_missing_or_foreign_or_truncated_file_is_a_user_error(tmp_path):
    path = tmp_path / "a.pt"
    with pytest.raises(UserError, match="run python sft.py first"):
        load(path, "python sft.py", V)
    save(path, tiny(), {})
    whole = path.read_bytes()
    with pytest.raises(UserError, match="another vocabulary"):
        load(path, "python sft.py", V + 1)
    for content in (b"", b"not a checkpoint", whole[: len(whole) // 2], whole[:-100]):
        path.write_bytes(content)
        with pytest.raises(UserError, match="damaged"):
            load(path, "python sft.py", V)
    for content in ({"weights": {}}, [1], tiny().state_dict(), {"class": "os", "config": {}}):
        torch.save(content, path)
        with pytest.raises(UserError, match="not a checkpoint"):
            load(path, "python sft.py", V)
    content = torch.load(io.BytesIO(whole), weights_only=True)
    torch.save({k: x for k, x in content.items() if k != "made_from"}, path)
    with pytest.raises(UserError, match="of an older version: run python sft.py again"):
        load(path, "python sft.py", V)


def test_weights_that_are_no_numbers_are_not_saved(tmp_path):
    model = tiny()
    model.wte.weight.data[0, 0] = torch.nan
    with pytest.raises(UserError, match="diverged"):
        save(tmp_path / "a.pt", model, {})
    assert not (tmp_path / "a.pt").exists()


class Malicious(str):
    def __reduce__(self):
        return os.mkdir, (str(self),)


def test_a_malicious_pickle_is_refused_and_not_executed(tmp_path):
    path, trace = tmp_path / "a.pt", tmp_path / "executed"
    for write in (
        lambda x: torch.save(x, path),
        lambda x: path.write_bytes(pickle.dumps(x, protocol=2)),
    ):
        write({"class": "GPT", "config": Malicious(trace)})
        with pytest.raises(UserError, match="damaged"):
            load(path, "python sft.py", V)
        assert not trace.exists()


@pytest.mark.parametrize("error", [OSError, RuntimeError])
def test_a_save_that_fails_halfway_leaves_the_earlier_file(tmp_path, monkeypatch, error):
    path = tmp_path / "a.pt"
    save(path, tiny(), {}, step=1)

    def disk_full(content, target):
        Path(target).write_bytes(b"half a file")
        raise error("No space left on device")

    monkeypatch.setattr(torch, "save", disk_full)
    with pytest.raises(UserError, match="cannot be written"):
        save(path, tiny(seed=1), {}, step=2)
    assert load(path, "python sft.py", V)[1]["step"] == 1


def test_a_place_that_cannot_be_written_is_a_user_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        save(tmp_path / "file" / "a.pt", tiny(), {})


def test_an_unknown_device_is_a_user_error():
    with pytest.raises(UserError, match="--device cpu"):
        pick_device("nonsense")
