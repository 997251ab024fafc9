"""The loops of the scripts on tiny models: what is updated, by what, and what is left alone."""

import json

import pytest
import torch

import ppo
import pretrain
import reward
import sft
from data.checkpoints import load, save
from data.files import write_jsonl
from model import ScalarGPT, score_texts
from tests.small import (
    TOKENIZER,
    WORDS,
    model,
    optimizers_of,
    run_ppo,
    run_pretrain,
    run_reward,
    run_sft,
    same_weights,
)


# --------------------------------------------------------------------------------- every script
@pytest.mark.parametrize("run", [run_pretrain, run_sft, run_reward, run_ppo])
def test_gradients_are_of_one_step_and_clipped_to_norm_1(folder, monkeypatch, run):
    """With a learning rate of 0 each step of the same rows has the same gradient."""
    norms, clip = [], torch.nn.utils.clip_grad_norm_

    def watched(parameters, most):
        parameters = list(parameters)
        norms.append(clip(parameters, most).item())
        after = torch.cat([p.grad.flatten() for p in parameters if p.grad is not None]).norm()
        assert 0 < after.item() <= 1 + 1e-4 and most == 1.0
        clipped.update(map(id, parameters))
        return norms[-1]

    clipped = set()
    # Both are looked up first: the one may inherit its step from the other.
    for kind, step in [(kind, kind.step) for kind in (torch.optim.Adam, torch.optim.AdamW)]:

        def stepped(self, *args, step=step):
            assert id(self.param_groups[0]["params"][0]) in clipped  # clipped since the last step
            clipped.clear()
            return step(self, *args)

        monkeypatch.setattr(kind, "step", stepped)
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", watched)
    run(folder, lr=0.0)
    assert len(norms) >= 3
    if run is not run_ppo:  # its rows are sampled anew
        assert norms == pytest.approx([norms[0]] * len(norms), rel=1e-3)


# ----------------------------------------------------------------------------------------- SFT
def test_held_out_demonstrations_are_never_trained_on(folder, monkeypatch):
    pairs = [{"prompt": f"Say {word}.", "completion": word} for word in WORDS]
    write_jsonl(folder / "pairs.jsonl", pairs)
    seen, sft_loss = {True: set(), False: set()}, sft.sft_loss

    def watched(policy, tokens, mask):
        seen[torch.is_grad_enabled()] |= {tuple(row) for row in tokens.tolist()}
        return sft_loss(policy, tokens, mask)

    monkeypatch.setattr(sft, "sft_loss", watched)
    run_sft(folder, batch=3)
    texts = [{TOKENIZER.decode([x for x in row if x < TOKENIZER.eos]) for row in seen[training]}
             for training in (True, False)]  # fmt: skip
    assert texts[1] == {"Say one.\none"} and not texts[0] & texts[1] and len(texts[0]) == 9


# -------------------------------------------------------------------------------- reward model
def test_held_out_comparisons_are_of_prompts_that_are_never_trained_on(folder, monkeypatch):
    trained, measured, score, score_texts_ = set(), [], ScalarGPT.score_each, reward.score_texts

    def watched(self, tokens, positions, part, most):
        for row, of in zip(tokens, part):
            trained.add(TOKENIZER.decode(row[of == 0].tolist()))
        return score(self, tokens, positions, part, most)

    def scored(model_, tokenizer, prompts, responses):
        measured.append(set(prompts))
        return score_texts_(model_, tokenizer, prompts, responses)

    monkeypatch.setattr(ScalarGPT, "score_each", watched)
    monkeypatch.setattr(reward, "score_texts", scored)
    run_reward(folder)  # every prompt comes twice
    trained = {text.strip() for text in trained}
    assert measured[-1] == {"Say one."} and len(trained) == 9 and not measured[-1] & trained


def test_floor_and_spread_are_of_the_compared_samples_scores(folder):
    run_reward(folder, lr=1e-2)
    model_, extra = load(folder / "reward.pt", "", TOKENIZER.size)
    flat = [(f"Say {w}.", text) for w in WORDS[1:] * 2 for text in ("yes", "no no")]
    scores = torch.tensor(score_texts(model_, TOKENIZER, *map(list, zip(*flat))))
    assert extra["floor"] == pytest.approx(scores.quantile(0.01).item(), rel=1e-4)
    assert extra["spread"] == pytest.approx(scores.std().item(), rel=1e-4)


def test_the_reward_model_starts_as_the_sft_models_body(folder):
    run_reward(folder, lr=0.0)
    assert same_weights(model(folder, "sft"), model(folder, "reward"))
    assert not same_weights(model(folder, "base"), model(folder, "reward"))


def test_demonstrations_score_0_on_the_mean_after_reload(folder):
    run_reward(folder, lr=1e-2)
    demos = [json.loads(line) for line in (folder / "pairs.jsonl").read_text().splitlines()]
    both = [[d["prompt"] for d in demos], [d["completion"] for d in demos]]
    scores = torch.tensor(score_texts(model(folder, "reward"), TOKENIZER, *both))
    assert scores.mean().item() == pytest.approx(0, abs=1e-4)
    model_, worse = model(folder, "reward"), ["no no"] * len(demos)
    assert (torch.tensor(score_texts(model_, TOKENIZER, both[0], worse)) < scores).all()
    assert model_.scalar.bias.abs().item() > 1e-4  # it is kept there


# ----------------------------------------------------------------------------------------- PPO
def test_value_warmup_leaves_the_policy_as_it_is(folder):
    run_ppo(folder, iterations=0, value_warmup=3)
    assert same_weights(model(folder, "sft"), model(folder, "ppo"))
    run_ppo(folder, iterations=1, value_warmup=3)
    assert not same_weights(model(folder, "sft"), model(folder, "ppo"))


def test_the_average_of_the_policys_weights_is_the_product(folder):
    run_ppo(folder, ema=1.0)  # an average that never moves, of a policy that does
    assert same_weights(model(folder, "sft"), model(folder, "ppo"))


def test_the_average_is_moved_after_every_step(folder, monkeypatch):
    decays, update_ema = [], ppo.update_ema
    monkeypatch.setattr(ppo, "update_ema", lambda *x: (decays.append(x[2]), update_ema(*x)))
    run_ppo(folder, ema=0.7, inner_epochs=2)
    assert decays == [0.7] * 8


def test_the_policys_learning_rate_rises_from_a_tenth_and_the_value_networks_does_not(
    folder, monkeypatch
):
    rates, step = [], torch.optim.Adam.step

    def watched(self, *args):
        rates.append(self.param_groups[0]["lr"])
        return step(self, *args)

    monkeypatch.setattr(torch.optim.Adam, "step", watched)
    run_ppo(folder, iterations=4, warmup=2, minibatch=16, lr=1e-3, value_lr=5e-4, value_warmup=0)
    assert rates[::2] == pytest.approx([1e-4, 5.5e-4, 1e-3, 1e-3])
    assert rates[1::2] == [5e-4] * 4
    rates.clear()
    run_ppo(folder, iterations=1, warmup=0, minibatch=16, lr=1e-3, value_warmup=0)
    assert rates[0] == 1e-3


def test_values_and_returns_reach_the_value_loss_with_a_clip_in_spreads(folder, monkeypatch):
    calls, value_loss, rollout, batches = [], ppo.value_loss, ppo.rollout, []

    def watched(*args):
        calls.append(args)
        return value_loss(*args)

    monkeypatch.setattr(ppo, "value_loss", watched)
    monkeypatch.setattr(ppo, "rollout", lambda *x: batches.append(rollout(*x)) or batches[-1])
    model_, extra = load(folder / "reward.pt", "", TOKENIZER.size)
    save(folder / "reward.pt", model_, {}, floor=extra["floor"], spread=3.0)
    run_ppo(folder, iterations=1, value_warmup=0, minibatch=16, clip=0.1)
    values, old, returns, mask, clip = calls[0]
    assert clip == pytest.approx(0.3) and len(mask) == 16
    torch.testing.assert_close(values, old, rtol=1e-4, atol=1e-5)
    for mine, key in ((old, "values"), (returns, "returns")):
        torch.testing.assert_close(mine.sum(), batches[0][key].sum(), rtol=1e-4, atol=1e-4)


def test_the_reward_model_and_the_reference_stay_as_they_were(folder, monkeypatch):
    networks, rollout = [], ppo.rollout

    def watched(*args):
        networks.append(args[:4])
        return rollout(*args)

    monkeypatch.setattr(ppo, "rollout", watched)
    run_ppo(folder, value_lr=1e-2)
    policy, reference, value_net, reward_model = networks[-1]
    assert same_weights(model(folder, "sft"), reference)
    assert same_weights(model(folder, "reward"), reward_model)
    assert not same_weights(reference, policy) and not same_weights(reward_model, value_net)


def test_a_second_pass_is_compared_with_the_policy_that_sampled(folder, monkeypatch):
    moves, policy_loss = [], ppo.policy_loss

    def watched(logp, old_logp, *rest):
        moves.append((logp - old_logp).abs().max().item())
        return policy_loss(logp, old_logp, *rest)

    monkeypatch.setattr(ppo, "policy_loss", watched)
    run_ppo(folder, inner_epochs=2)
    # Two iterations of two passes over two minibatches: the first step of each is at ratio 1, and
    # in the second iteration the policy is no longer the reference.
    assert max(moves[0], moves[4]) < 1e-5 and len(moves) == 8
    assert min(moves[1:4] + moves[5:]) > 1e-4


def test_ptx_raises_the_likelihood_of_the_web(folder, monkeypatch):
    texts = [f"{word} is {word}." * (1 + i % 3) for i, word in enumerate(WORDS)]  # and padding
    monkeypatch.setattr(ppo.make, "corpus", lambda count: texts)
    run_ppo(folder, ptx_coef=1e4, ema=0.0, iterations=4)
    rows = [TOKENIZER.document(text) for text in texts]
    losses = [pretrain.loss_of(model(folder, name), rows, TOKENIZER.pad, "cpu").item()
              for name in ("sft", "ppo_ptx")]  # fmt: skip
    assert losses[1] < losses[0] - 0.1


def test_ptx_adds_the_coefficient_times_the_gradient_of_the_webs_loss(folder, monkeypatch):
    """Without any reward and at a learning rate of 0 nothing else is left of the gradient."""
    texts = ["one is one."]  # every row of the batch
    monkeypatch.setattr(ppo.make, "corpus", lambda count: texts)
    monkeypatch.setattr(ppo, "policy_loss", lambda logp, *rest: 0.0 * logp.sum())
    seen, clip = [], torch.nn.utils.clip_grad_norm_

    def watched(parameters, most):
        parameters = list(parameters)
        seen.append([p.grad.clone() for p in parameters if p.grad is not None])
        return clip(parameters, most)

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", watched)
    run_ppo(folder, ptx_coef=3.0, lr=0.0, iterations=1, value_warmup=0, minibatch=16)
    policy = model(folder, "sft")
    loss = pretrain.loss_of(policy, [TOKENIZER.document(texts[0])], TOKENIZER.pad, "cpu")
    (3.0 * loss).backward()
    expected = [p.grad for p in policy.parameters() if p.grad is not None]
    assert len(seen[0]) == len(expected) > 5
    for one, other in zip(seen[0], expected):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_the_gradient_is_clipped_with_the_webs_part_in_it(folder, monkeypatch):
    monkeypatch.setattr(ppo.make, "corpus", lambda count: ["one is one."])
    norms, step = [], torch.optim.Adam.step

    def stepped(self, *args):
        grads = [p.grad for p in self.param_groups[0]["params"] if p.grad is not None]
        norms.append(torch.cat([grad.flatten() for grad in grads]).norm().item())
        return step(self, *args)

    monkeypatch.setattr(torch.optim.Adam, "step", stepped)
    run_ppo(folder, ptx_coef=1e4, value_warmup=0)
    assert norms[::2] == pytest.approx([1.0] * 4, rel=1e-3) and max(norms) < 1.001


def test_ptx_rows_fit_a_model_of_a_short_context(folder, monkeypatch):
    monkeypatch.setattr(ppo.make, "corpus", lambda count: ["one is one. " * 99])
    run_ppo(folder, ptx_coef=0.5)  # a context of 64, where a row has 128 tokens at most
    assert not same_weights(model(folder, "sft"), model(folder, "ppo_ptx"))


def test_no_learning_rate_is_negative_while_the_value_network_learns_alone(folder, monkeypatch):
    rates, update = [], ppo.value_loss

    def watched(*args):
        rates.extend(g["lr"] for optimizer in optimizers for g in optimizer.param_groups)
        return update(*args)

    optimizers = optimizers_of(monkeypatch, torch.optim.Adam)
    monkeypatch.setattr(ppo, "value_loss", watched)
    run_ppo(folder, warmup=2, value_warmup=4, lr=1e-3)
    assert len(optimizers) == 2 and min(rates) > 0 and len(rates) >= 20


def test_scores_and_lengths_that_do_not_vary_have_no_correlation(folder):
    """A correlation of NaN would be no JSON."""
    metrics = run_reward(folder)  # what is held out has lengths of 1 and 2 words
    assert -1 <= metrics["length_correlation"] <= 1
    ranked = [{"prompt": f"Say {word}.", "chosen": "yes", "rejected": "no"} for word in WORDS * 2]
    write_jsonl(folder / "ranked.jsonl", ranked)
    assert "length_correlation" not in run_reward(folder)
    for line in (folder / "reward.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    with pytest.raises(ValueError):
        write_jsonl(folder / "a.jsonl", [{"loss": float("nan")}])


def test_checkpoints_say_what_they_were_trained_from(folder):
    checksums = {name: load(folder / f"{name}.pt", "", TOKENIZER.size)[1]["checksum"]
                 for name in ("base", "sft", "reward")}  # fmt: skip
    for run, name, parents in (
        (run_sft, "sft", ["base"]), (run_reward, "reward", ["sft"]),
        (run_ppo, "ppo", ["reward", "sft"]),
    ):  # fmt: skip
        run(folder)
        extra = load(folder / f"{name}.pt", "", TOKENIZER.size)[1]
        assert extra["made_from"] == {parent: checksums[parent] for parent in parents}
        checksums[name] = extra["checksum"]
    assert len(set(checksums.values())) == 4
