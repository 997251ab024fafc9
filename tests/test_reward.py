"""The K-way ranking loss: hand-computed, against a slow loop, and its invariances."""

import math
import random
from itertools import combinations
from types import SimpleNamespace

import pytest
import torch

import model
from model import GPTConfig, ScalarGPT, tokens_and_mask
from reward import bradley_terry_loss


def loss(scores, ranks):
    scores = torch.as_tensor(scores, dtype=torch.float64)
    return bradley_terry_loss(scores, torch.as_tensor(ranks)).item()


def nats(d):
    """-log sigmoid(d): the loss of a pair that is d apart."""
    return math.log1p(math.exp(-d))


def random_batch(seed, count=6):
    """Scores (B,9) and ranks (B,9) of K in 2..9 responses, with ties and padding."""
    rng, ranks = random.Random(seed), []
    for _ in range(count):
        k = rng.randint(2, 9)
        ranks.append([rng.randint(1, k) for _ in range(k)] + [0] * (9 - k))
    g = torch.Generator().manual_seed(seed)
    return torch.randn(count, 9, generator=g, dtype=torch.float64) * 2, torch.tensor(ranks)


def slow_loss(scores, ranks):
    """Equation 1 pair by pair, in plain floats."""
    prompts = []
    for s, r in zip(scores.tolist(), ranks.tolist()):
        pairs = []
        for i, j in combinations([k for k in range(len(r)) if r[k] > 0], 2):
            if r[i] != r[j]:
                winner, loser = (i, j) if r[i] < r[j] else (j, i)
                pairs.append(nats(s[winner] - s[loser]))
        if pairs:
            prompts.append(sum(pairs) / len(pairs))
    return sum(prompts) / len(prompts)


def test_two_responses_cost_log_one_plus_exp_of_minus_the_margin():
    assert loss([[1.5, 0.5]], [[1, 2]]) == pytest.approx(0.3132616875)  # log(1 + e^-1)
    assert loss([[1.5, 0.5]], [[2, 1]]) == pytest.approx(1.3132616875)  # log(1 + e)
    assert loss([[0.7, 0.7]], [[1, 2]]) == pytest.approx(0.6931471806)  # log 2


def test_three_responses_are_the_mean_of_their_three_pairs():
    # Best 0, middle 2, worst 1: margins 0-2, 0-1 and 2-1.
    expected = (nats(-2) + nats(-1) + nats(1)) / 3
    assert loss([[0.0, 1.0, 2.0]], [[1, 3, 2]]) == pytest.approx(expected)


def test_ties_are_left_out_and_the_mean_is_over_untied_pairs():
    # Two share the first rank: their margin of 5 counts nowhere, and the divisor is 2, not 3.
    expected = (nats(6 - 0) + nats(1 - 0)) / 2
    assert loss([[6.0, 1.0, 0.0]], [[1, 1, 2]]) == pytest.approx(expected)


def test_a_prompt_of_ties_only_is_left_out_of_the_mean():
    scores = [[3.0, 1.0, 2.0], [0.0, 1.0, 9.0]]
    assert loss(scores, [[1, 2, 0], [1, 1, 1]]) == pytest.approx(nats(2))
    assert loss(scores, [[1, 1, 0], [1, 1, 1]]) == 0.0


def test_a_batch_of_ties_only_has_a_zero_and_finite_gradient():
    scores = torch.randn(2, 3, requires_grad=True)
    bradley_terry_loss(scores, torch.ones(2, 3, dtype=torch.int64)).backward()
    assert (scores.grad == 0).all()


def test_padding_has_no_effect_and_no_gradient():
    ranks = torch.tensor([[1, 2, 0, 0], [2, 1, 3, 1]])
    scores = torch.tensor([[1.0, 0.0, 7.0, -9.0], [0.5, 0.1, -1.0, 2.0]], requires_grad=True)
    value = bradley_terry_loss(scores, ranks)
    value.backward()
    assert (scores.grad[0, 2:] == 0).all() and (scores.grad[ranks > 0] != 0).all()
    other = torch.where(ranks == 0, 100.0, scores.detach())
    assert bradley_terry_loss(other, ranks).item() == value.item()
    wide = [torch.nn.functional.pad(x, (0, 3)) for x in (scores, ranks)]
    torch.testing.assert_close(bradley_terry_loss(*wide), value)


@pytest.mark.parametrize("seed", range(20))
def test_loss_equals_a_slow_loop_over_pairs(seed):
    scores, ranks = random_batch(seed)
    assert loss(scores, ranks) == pytest.approx(slow_loss(scores, ranks), rel=1e-12)


def test_loss_of_k9_weighs_as_much_as_k4():
    # Perfect rankings with equal scores cost log 2 each, whatever K is.
    nine, four = list(range(1, 10)), [1, 2, 3, 4] + [0] * 5
    for ranks in (nine, four):
        assert loss([[0.0] * 9], [ranks]) == pytest.approx(math.log(2))
    # Together they cost the mean of the two prompts, not of the 36 + 6 pairs.
    scores, ranks = random_batch(1, count=2)
    ranks = torch.tensor([nine, four])
    apart = [loss(scores[i : i + 1], ranks[i : i + 1]) for i in (0, 1)]
    assert apart[0] != pytest.approx(apart[1], rel=0.01)
    assert loss(scores, ranks) == pytest.approx(sum(apart) / 2)


def test_loss_ignores_each_prompts_offset_and_all_orders():
    scores, ranks = random_batch(3)
    expected, g = loss(scores, ranks), torch.Generator().manual_seed(0)
    offsets = torch.randn(len(scores), 1, generator=g, dtype=torch.float64) * 5
    assert loss(scores + offsets, ranks) == pytest.approx(expected)
    prompts, responses = torch.randperm(6, generator=g), torch.randperm(9, generator=g)
    assert loss(scores[prompts], ranks[prompts]) == pytest.approx(expected)
    assert loss(scores[:, responses], ranks[:, responses]) == pytest.approx(expected)
    # Ranks are an order: their distances do not count.
    assert loss(scores, ranks * 3) == pytest.approx(expected)


def test_gradient_raises_the_winner_and_lowers_the_loser():
    scores = torch.zeros(2, 3, dtype=torch.float64, requires_grad=True)
    bradley_terry_loss(scores, torch.tensor([[1, 2, 3], [2, 1, 0]])).backward()
    # At equal scores each pair pulls with 1/2; three pairs or one; two prompts.
    expected = [[-1 / 6, 0, 1 / 6], [1 / 4, -1 / 4, 0]]
    torch.testing.assert_close(scores.grad, torch.tensor(expected, dtype=torch.float64))


def test_extreme_margins_stay_finite():
    assert loss([[1e4, -1e4]], [[1, 2]]) == 0.0
    assert loss([[1e4, -1e4]], [[2, 1]]) == pytest.approx(2e4)


def test_scores_of_another_shape_are_refused():
    # (2,1) against (2,3) would broadcast without a word.
    with pytest.raises(AssertionError):
        bradley_terry_loss(torch.zeros(2, 1), torch.tensor([[1, 2, 3], [1, 2, 3]]))


def test_samples_return_to_their_prompts_in_order(monkeypatch):
    # A "model" that answers with its prompt, though sampling sorts the prompts by length.
    monkeypatch.setattr(model, "generate", lambda policy, rows, *rest: rows)
    policy = SimpleNamespace(config=model.GPTConfig(20))
    tokenizer = SimpleNamespace(prompt=list, decode="".join, eos=None)
    prompts = ["longest", "a", "four", "bc"]
    texts = model.sample_responses(policy, tokenizer, prompts, [2, 3, 1, 4], 8)
    assert texts == [["longest"] * 2, ["a"] * 3, ["four"], ["bc"] * 4]


def test_a_tiny_reward_model_learns_to_count_a_token():
    torch.manual_seed(0)
    scorer = ScalarGPT(GPTConfig(20, context=16, layers=1, heads=2, width=16))
    optimizer, rng = torch.optim.Adam(scorer.parameters(), lr=1e-2), random.Random(0)

    def batch():
        """16 prompts with K in 2..4 responses of 1 to 6 tokens; more of token 3 ranks higher."""
        groups = [
            [[rng.choice([3, 4, 5]) for _ in range(rng.randint(1, 6))] for _ in range(k)]
            for k in (2, 3, 4, 4) * 4
        ]
        ranks = torch.tensor([[7 - r.count(3) for r in g] + [0] * (4 - len(g)) for g in groups])
        flat = [r for g in groups for r in g]
        return *tokens_and_mask([[1, 2]] * len(flat), flat, 20, 32), ranks

    history = []
    for _ in range(40):
        tokens, mask, ranks = batch()
        scores = torch.zeros(ranks.shape).masked_scatter(ranks > 0, scorer.score(tokens, mask))
        value = bradley_terry_loss(scores, ranks)
        history.append(value.item())
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    # Guessing costs log 2 = 0.69 a pair.
    assert history[0] > 0.4 and sum(history[-10:]) / 10 < 0.15
