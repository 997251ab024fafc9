"""PPO's formulas, hand-computed and against slow loops, the rollout, and a loop that must learn."""

import copy
import math
from types import SimpleNamespace

import pytest
import torch

from model import GPT, GPTConfig, ScalarGPT
from ppo import (
    explained_variance,
    gae,
    masked_mean,
    policy_loss,
    rollout,
    rollout_metrics,
    shaped_rewards,
    update_ema,
    value_loss,
    whiten,
)

V, EOS, PAD = 20, 19, 20
INF = float("inf")


def t(x):
    return torch.tensor(x, dtype=torch.float64)


def masks():
    """Prompts of 1, 3, 2 and 6 tokens; responses of 6, 2, 4 and 1; padding: (4,7)."""
    return t([[0, 1, 1, 1, 1, 1, 1], [0, 0, 0, 1, 1, 0, 0], [0, 0, 1, 1, 1, 1, 0], [0] * 6 + [1]])


def noise(seed, shape=(4, 7)):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# ------------------------------------------------------------------------------- rewards and GAE
def test_rewards_are_minus_beta_kl_with_the_score_on_the_last_real_token():
    mask = t([[0, 1, 1, 0], [0, 0, 1, 1]])
    logp = t([[9.0, -1.0, -2.0, 9.0], [9.0, 9.0, -0.5, -3.0]])
    ref = t([[-9.0, -3.0, -1.5, -9.0], [-9.0, -9.0, -0.5, -4.0]])
    # More likely than under the reference is punished; padding and prompts get nothing.
    expected = t([[0, -0.2, 0.05 + 7, 0], [0, 0, 0, -0.1 - 8]])
    torch.testing.assert_close(shaped_rewards(t([7.0, -8.0]), logp, ref, mask, 0.1), expected)


def test_rewards_without_beta_are_the_score_alone():
    rewards = shaped_rewards(t([1.0, 2, 3, 4]), noise(0), noise(1), masks(), 0.0)
    assert rewards.sum(dim=1).tolist() == [1, 2, 3, 4] and (rewards != 0).sum() == 4
    assert [rewards[b].nonzero().item() for b in range(4)] == [6, 4, 5, 6]


def slow_gae(rewards, values, mask, lam):
    """The definition, row by row: A_t is the sum over l of lam^l delta_{t+l}."""
    advantages = torch.zeros_like(rewards)
    for b in range(len(mask)):
        at = mask[b].nonzero().flatten().tolist()
        r, v = rewards[b, at].tolist(), [*values[b, at].tolist(), 0.0]
        deltas = [r[i] + v[i + 1] - v[i] for i in range(len(r))]
        for i, position in enumerate(at):
            advantages[b, position] = sum(lam ** (j - i) * deltas[j] for j in range(i, len(r)))
    return advantages


@pytest.mark.parametrize("lam", [0.0, 0.5, 0.95, 1.0])
def test_gae_equals_a_slow_sum_and_returns_are_advantages_plus_values(lam):
    # Rewards and values are noise outside of the mask too: nothing may leak in.
    rewards, values, mask = noise(0), noise(1), masks()
    advantages, returns = gae(rewards, values, mask, lam)
    torch.testing.assert_close(advantages, slow_gae(rewards, values, mask, lam))
    torch.testing.assert_close(returns, (advantages + values) * mask)
    assert (advantages[mask == 0] == 0).all() and (returns[mask == 0] == 0).all()


def test_gae_by_hand():
    rewards, values, mask = t([[9.0, 1, 2, 9]]), t([[9.0, 3, 5, 9]]), t([[0.0, 1, 1, 0]])
    # delta = 1 + 5 - 3 = 3 and 2 - 5 = -3
    assert gae(rewards, values, mask, 0.5)[0].tolist() == [[0, 1.5, -3, 0]]
    assert gae(rewards, values, mask, 0.5)[1].tolist() == [[0, 4.5, 2, 0]]


def test_gae_with_lambda_1_returns_the_reward_to_go():
    rewards, mask = noise(0) * masks(), masks()
    to_go = rewards.flip(1).cumsum(dim=1).flip(1) * mask
    torch.testing.assert_close(gae(rewards, noise(1), mask, 1.0)[1], to_go)


# ------------------------------------------------------------------------------------- whitening
def test_whitening_gives_mean_0_and_variance_1_over_the_mask_only():
    mask, x = masks(), 3 + 5 * noise(0)
    real = x[mask == 1]
    white = whiten(x, mask)
    expected = (real - real.mean()) / real.var(correction=0).sqrt()
    torch.testing.assert_close(white[mask == 1], expected, rtol=1e-5, atol=1e-8)
    assert (white[mask == 0] == 0).all()
    other = torch.where(mask == 0, 100.0, x)
    assert torch.equal(whiten(other, mask), white)


def test_whitening_equal_values_gives_0():
    assert whiten(torch.full((4, 7), 2.5, dtype=torch.float64), masks()).abs().max() == 0


# ----------------------------------------------------------------------------------- policy loss
# ratio, advantage, loss, slope of the loss along the log-probability, at clip 0.2
CASES = [
    (1.1, 2.0, -2.2, -2.2),
    (1.5, 2.0, -2.4, 0.0),  # already raised enough: no more gain
    (0.5, 2.0, -1.0, -1.0),  # moved the wrong way: the pessimistic side pulls back
    (0.9, -2.0, 1.8, 1.8),
    (0.5, -2.0, 1.6, 0.0),
    (1.5, -2.0, 3.0, 3.0),
]


@pytest.mark.parametrize("ratio, advantage, loss, slope", CASES)
def test_policy_loss_by_hand_and_gradient_zero_where_clipped(ratio, advantage, loss, slope):
    old = t([[-5.0, -2.0, -5.0]])
    logp = (old + t([[3.0, math.log(ratio), -3.0]])).requires_grad_()
    value = policy_loss(logp, old, t([[50.0, advantage, -50.0]]), t([[0, 1, 0]]), 0.2)
    value.backward()
    assert value.item() == pytest.approx(loss)
    torch.testing.assert_close(logp.grad, t([[0.0, slope, 0.0]]))


def test_policy_loss_is_a_mean_over_tokens_not_over_rows():
    ratios, advantages = t([list(c) for c in zip(*CASES)])[:2]
    expected = sum(c[2] for c in CASES) / 6
    mask = t([[0, 1, 1, 1, 1, 1, 0], [0, 1, 0, 0, 0, 0, 0]])
    logp, a = noise(0, (2, 7)), noise(1, (2, 7))
    logp[mask == 1], a[mask == 1] = ratios.log(), advantages
    assert policy_loss(logp, t([[0.0] * 7] * 2), a, mask, 0.2).item() == pytest.approx(expected)


def test_policy_loss_at_ratio_1_is_minus_the_mean_advantage_with_its_gradient():
    mask, advantages, logp = masks(), noise(0), noise(1).requires_grad_()
    value = policy_loss(logp, logp.detach(), advantages, mask, 0.2)
    value.backward()
    torch.testing.assert_close(value, -advantages[mask == 1].mean())
    torch.testing.assert_close(logp.grad, -advantages * mask / 13)


def test_policy_loss_with_an_infinite_clip_is_importance_sampling():
    logp, old, a, mask = noise(0), noise(1), noise(2), masks()
    expected = -masked_mean(a * (logp - old).exp(), mask)
    torch.testing.assert_close(policy_loss(logp, old, a, mask, INF), expected)


# ------------------------------------------------------------------------------------ value loss
@pytest.mark.parametrize(
    "value, target, loss, slope",
    [
        (0.1, 2.0, 0.5 * 1.9**2, -1.9),  # inside of the clip: plain squared error
        (1.0, 2.0, 0.5 * 1.8**2, 0.0),  # moved far enough from 0 towards 2: counts as 0.2
        (3.0, 0.1, 0.5 * 2.9**2, 2.9),  # overshot: the unclipped error is worse
        (-1.0, 2.0, 0.5 * 3.0**2, -3.0),  # moved the wrong way
    ],
)
def test_value_loss_by_hand_with_a_clip_of_02(value, target, loss, slope):
    values = t([[9.0, value], [value, 9.0]]).requires_grad_()
    mask = t([[0, 1], [1, 0]])
    result = value_loss(values, t([[0.0] * 2] * 2), t([[target] * 2] * 2), mask, 0.2)
    result.backward()
    assert result.item() == pytest.approx(loss)
    torch.testing.assert_close(values.grad, mask * slope / 2)  # a mean of two tokens


@pytest.mark.parametrize("seed", range(5))
def test_policy_loss_and_value_loss_equal_slow_loops(seed):
    mask, (now, old, first, second) = masks(), (noise(seed + i) for i in range(0, 40, 10))
    policy, value, n = 0.0, 0.0, 0
    for b, i in mask.nonzero().tolist():
        ratio, gain = math.exp(now[b, i] - old[b, i]), first[b, i].item()
        policy -= min(gain * ratio, gain * min(max(ratio, 0.8), 1.2))
        v, before, target = now[b, i].item(), old[b, i].item(), second[b, i].item()
        near = before + min(max(v - before, -0.2), 0.2)
        value += 0.5 * max((v - target) ** 2, (near - target) ** 2)
        n += 1
    rows = torch.tensor([2, 0, 3, 1])  # the order of rows does not matter
    for loss, inputs, expected in (
        (policy_loss, (now, old, first), policy), (value_loss, (now, old, second), value),
    ):  # fmt: skip
        assert loss(*inputs, mask, 0.2).item() == pytest.approx(expected / n)
        shuffled = loss(*(x[rows] for x in inputs), mask[rows], 0.2)
        assert shuffled.item() == pytest.approx(expected / n)


def test_value_loss_with_an_infinite_clip_is_half_the_mean_squared_error():
    values, old, returns, mask = noise(0), noise(1), noise(2), masks()
    expected = 0.5 * (values - returns)[mask == 1].pow(2).mean()
    torch.testing.assert_close(value_loss(values, old, returns, mask, INF), expected)


def test_explained_variance_is_1_for_perfect_and_0_for_constant_values():
    returns, mask = noise(0), masks()
    assert explained_variance(torch.where(mask == 1, returns, 9.0), returns, mask).item() == 1
    assert explained_variance(mask * 3, returns, mask).item() == pytest.approx(0, abs=1e-12)
    # Returns 0 and 2, values 0 and 1: errors 0 and 1 have variance 1/4, the returns have 1.
    values, returns, mask = t([[0.0, 9], [1, 9]]), t([[0.0, 5], [2, 7]]), t([[1, 0], [1, 0]])
    assert explained_variance(values, returns, mask).item() == pytest.approx(0.75)


def test_ema_moves_every_weight_by_one_minus_decay():
    average, model = torch.nn.Linear(2, 3), torch.nn.Linear(2, 3)
    for network, value in ((average, 1.0), (model, 2.0)):
        for p in network.parameters():
            torch.nn.init.constant_(p, value)
    for expected in (1.1, 1.19, 1.271):
        update_ema(average, model, 0.9)
        for p, q in zip(average.parameters(), model.parameters()):
            torch.testing.assert_close(p.detach(), torch.full_like(p, expected))
            assert (q == 2).all()


# -------------------------------------------------------------------------------------- rollouts
def test_logged_metrics_by_hand_whatever_stands_on_padding():
    mask = t([[0, 1, 1, 0], [0, 0, 1, 0]])
    batch = {
        "mask": mask, "scores": t([2.0, -1.0]), "ended": t([0.0, 0.0]),
        "logp": t([[9, -1, -2, 9], [9, 9, -3, 9]]),
        "ref_logp": t([[5, -2, -2.5, 7], [5, 5, -2, 7]]),
        "values": t([[8, 1, 2, 8], [8, 8, 4, 8]]), "returns": t([[0, 1, 3, 0], [0, 0, 5, 0]]),
    }  # fmt: skip
    expected = {
        "score": 0.5, "kl": (1.5 - 1) / 2, "entropy": 2.0, "length": 1.5, "no_eos": 1.0,
        "explained_variance": 1 - (2 / 9) / (8 / 3),  # errors 0, 1, 1; returns 1, 3, 5
    }  # fmt: skip
    assert rollout_metrics(batch) == pytest.approx(expected)


class CountsThrees:
    """A stand-in for the reward model: the share of response tokens that are 3."""

    def score(self, tokens, mask):
        return ((tokens == 3) * mask).sum(dim=1) / mask.sum(dim=1)


TOKENIZER = SimpleNamespace(eos=EOS, pad=PAD)
PROMPTS = [[1], [2, 4, 5], [6, 7], [8, 9, 10, 11, 12]] * 8


def tiny(kind=GPT, seed=0):
    """Random weights, with EOS and 3 likely enough: responses both end and do not."""
    torch.manual_seed(seed)
    model = kind(GPTConfig(V, context=16, layers=2, heads=2, width=16)).eval()
    with torch.no_grad():
        for token in (3, EOS):
            row = model.wte.weight[token]
            model.ln_f.bias += 1.5 * row / row.pow(2).sum()
    return model


def roll(policy, reference, floor=-0.25, lam=1.0, prompts=PROMPTS):
    config = SimpleNamespace(max_new=6, beta=0.5, lam=lam)
    networks = policy, reference, tiny(ScalarGPT, 5), CountsThrees()
    return rollout(*networks, prompts, TOKENIZER, config, floor)


def test_first_update_has_ratio_1_and_no_kl():
    policy = tiny()
    batch = roll(policy, copy.deepcopy(policy))
    mask, logp = batch["mask"], policy.logprobs(batch["tokens"], batch["mask"])
    assert torch.equal(batch["logp"], batch["ref_logp"])
    # The minibatches of a step have other neighbours, which must not matter.
    part = policy.logprobs(batch["tokens"][::3], mask[::3])
    torch.testing.assert_close((part - batch["logp"][::3]).exp(), torch.ones_like(part))
    value = policy_loss(logp, batch["logp"], batch["advantages"], mask, 0.2)
    assert value.item() == pytest.approx(0, abs=1e-6)  # whitened: their mean is 0
    value.backward()
    assert policy.wte.weight.grad.abs().max() > 1e-3
    # Without KL and with lambda 1 the return of every token is the score.
    scores = batch["scores"][:, None] * mask
    torch.testing.assert_close(batch["returns"], scores, rtol=1e-5, atol=1e-6)


def test_rollout_marks_responses_and_gives_the_floor_to_those_without_eos():
    batch = roll(tiny(), tiny(), floor=-0.25)
    tokens, mask = batch["tokens"], batch["mask"]
    for b, prompt in enumerate(PROMPTS):
        row, n = tokens[b].tolist(), len(prompt)
        response = [x for x in row[n:] if x != PAD]
        assert row[:n] == prompt and mask[b].tolist() == [
            float(n <= i < n + len(response)) for i in range(len(row))
        ]
        ended = response[-1] == EOS
        expected = response.count(3) / len(response) if ended else -0.25
        assert batch["scores"][b].item() == pytest.approx(expected)
        assert batch["ended"][b].item() == ended
    assert {0.0, 1.0} == set(batch["ended"].tolist())


@pytest.mark.parametrize("floor", [-7.0, 7.0])
def test_the_floor_takes_the_place_of_the_score_of_whatever_does_not_end(floor):
    batch = roll(tiny(), tiny(), floor=floor)
    assert ((batch["scores"] == floor) == (batch["ended"] == 0)).all()


def test_rollout_charges_the_kl_to_the_reference_and_whitens_last():
    batch = roll(tiny(), tiny(seed=1), lam=0.9)
    mask = batch["mask"]
    kl = (batch["logp"] - batch["ref_logp"]) * mask
    assert kl.sum(dim=1).mean() > 0.1  # different models; the policy's own samples
    rewards = shaped_rewards(batch["scores"], batch["logp"], batch["ref_logp"], mask, 0.5)
    advantages, returns = gae(rewards, batch["values"], mask, 0.9)
    torch.testing.assert_close(batch["returns"], returns)
    torch.testing.assert_close(batch["advantages"], whiten(advantages, mask))
    assert not any(x.requires_grad for x in batch.values())


# ------------------------------------------------------------------------------------- the whole
def train(lr, seed=0):
    """A small PPO from the functions above; returns the mean score of each iteration."""
    policy, value_net, history = tiny(seed=seed), tiny(ScalarGPT, 5), []
    networks = policy, copy.deepcopy(policy), value_net, CountsThrees()
    adams = [torch.optim.Adam(n.parameters(), lr=lr) for n in (policy, value_net)]
    config, keys = SimpleNamespace(max_new=6, beta=0.02, lam=0.95), "mask logp values returns"
    for _ in range(20):
        batch = rollout(*networks, PROMPTS * 2, TOKENIZER, config, 0.0)
        history.append(batch["scores"].mean().item())
        for part in torch.randperm(64).split(16):
            tokens, advantages = batch["tokens"][part], batch["advantages"][part]
            mask, logp, values, returns = (batch[k][part] for k in keys.split())
            losses = (
                policy_loss(policy.logprobs(tokens, mask), logp, advantages, mask, 0.2),
                value_loss(value_net.values(tokens, mask), values, returns, mask, 0.2),
            )
            for loss, adam in zip(losses, adams):
                adam.zero_grad()
                loss.backward()
                adam.step()
    return history


def test_ppo_raises_a_synthetic_reward_and_a_learning_rate_of_0_does_not():
    learned, still = train(1e-2), train(0.0)
    start = sum(still) / len(still)
    assert start < 0.2 and sum(learned[-3:]) / 3 > 0.5
    # Two means of 320 scores that spread by less than 0.3 differ by less than 0.1 by chance.
    assert abs(sum(still[-5:]) - sum(still[:5])) / 5 < 0.1
