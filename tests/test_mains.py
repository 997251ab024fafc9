"""What the mains pass on: rates, groups, splits, who feeds what, and what is saved where."""

import itertools
import json
import random

import numpy as np
import pytest
import regex
import torch

import evaluate
import ppo
import pretrain
import reward
import sft
from data import checkpoints, judges, world
from data.checkpoints import load, save
from data.files import UserError, write_jsonl
from data.forms import read, read_jsonl
from data.labelers import LABELERS, ranks_of, rate
from data.tokenizer import GPT2_SPLIT, TRAIN_SPLIT
from model import cosine, tokens_and_mask
from tests.small import (
    TOKENIZER,
    WORDS,
    model,
    optimizers_of,
    other_weights,
    run_ppo,
    run_pretrain,
    run_reward,
    run_sft,
    same_weights,
    spied,
    stopped,
)

KNOWN = ["What color is a lemon?", "Name two colors.", "What is the capital of Italy?"]


def rates_of(monkeypatch, kind) -> list[float]:
    """The learning rate of each step of an optimizer of this kind."""
    rates, step = [], kind.step

    def watched(self, *args):
        rates.append(self.param_groups[0]["lr"])
        assert len({group["lr"] for group in self.param_groups}) == 1
        return step(self, *args)

    monkeypatch.setattr(kind, "step", watched)
    return rates


# ------------------------------------------------------------------------------------ pretrain.py
def test_pretraining_decays_matrices_and_neither_biases_nor_layer_norms(folder, monkeypatch):
    made = optimizers_of(monkeypatch, torch.optim.AdamW)
    run_pretrain(folder, weight_decay=0.3)
    decayed, others = made[0].param_groups
    assert decayed["weight_decay"] == 0.3 and others["weight_decay"] == 0
    assert {p.dim() for p in decayed["params"]} == {2}
    assert {p.dim() for p in others["params"]} == {1}
    both = decayed["params"] + others["params"]
    assert len(both) == len(list(model(folder, "base").parameters()))


def test_pretraining_rates_follow_the_share_of_the_tokens_seen(folder, monkeypatch):
    rates = rates_of(monkeypatch, torch.optim.AdamW)
    losses = spied(monkeypatch, pretrain, "loss_of")
    run_pretrain(folder, lr=1e-2, batch=12, tokens=200, warmup=0.5, decay=0.25)
    seen, expected = 0, []
    for args, _, loss in losses:
        if loss.requires_grad:
            expected.append(1e-2 * max(0, min(1, seen / 200 / 0.5, (1 - seen / 200) / 0.25)))
            seen += sum(map(len, args[1]))
    assert rates == pytest.approx(expected) and len(rates) > 10
    assert rates[0] == 0 and max(rates) == 1e-2 and rates[-1] < 5e-3
    assert 200 <= seen < 200 + 12  # it stops as soon as the tokens are used up


def test_pretraining_never_sees_the_documents_whose_loss_it_reports(folder, monkeypatch):
    texts = [{"text": f"{i} {word} is {word}."} for i, word in enumerate(WORDS * 2)]
    write_jsonl(folder / "text.jsonl", texts)
    losses = spied(monkeypatch, pretrain, "loss_of")
    metrics = run_pretrain(folder, tokens=1000, batch=30, context=6)
    trained = {tuple(r) for args, _, loss in losses if loss.requires_grad for r in args[1]}
    held = {tuple(r) for args, _, loss in losses if not loss.requires_grad for r in args[1]}
    order = [record["text"] for record in texts]
    random.Random(0).shuffle(order)
    rows = [{tuple(row) for text in some for row in pretrain.rows_of(TOKENIZER.document(text), 6)}
            for some in (order[:-5], order[-5:])]  # fmt: skip
    assert [trained, held] == rows  # whole documents are held out, a quarter of twenty
    assert max(map(len, trained | held)) == 6  # a longer one takes several rows
    held = [tuple(args[1][0]) for args, _, loss in losses if not loss.requires_grad]
    nats = sum(loss_of_rows(model(folder, "base"), row) for row in held)
    assert metrics["loss"] == pytest.approx(nats / sum(len(row) - 1 for row in held), rel=1e-4)


def loss_of_rows(base, row) -> float:
    logp = base(torch.tensor([row])).log_softmax(dim=-1)[0]
    return -sum(logp[i, row[i + 1]].item() for i in range(len(row) - 1))


# ----------------------------------------------------------------------------------------- sft.py
@pytest.mark.parametrize("run", [run_sft, run_reward])
def test_the_rate_falls_along_the_cosine_of_the_peak(folder, monkeypatch, run):
    rates = rates_of(monkeypatch, torch.optim.Adam)
    run(folder, lr=4e-3, batch=3, epochs=2)
    assert rates == pytest.approx([4e-3 * cosine(i, len(rates)) for i in range(len(rates))])
    assert len(rates) == 12 and rates[0] == 4e-3 and 4e-4 < rates[-1] < 6e-4


def test_the_held_out_loss_of_sft_is_per_token(folder):
    pairs = [{"prompt": f"Say {word}.", "completion": word + f" {word}" * (9 * (i == 0))}
             for i, word in enumerate(WORDS * 2)]  # fmt: skip
    pairs[10]["prompt"] = "Say eleven."  # held out are the first, of many tokens, and this one
    pairs[0]["prompt"] = "Say zero."
    write_jsonl(folder / "pairs.jsonl", pairs)
    metrics = run_sft(folder, lr=0.0)
    tuned, total, count = model(folder, "sft"), 0.0, 0
    for pair in (pairs[0], pairs[10]):
        rows = [TOKENIZER.prompt(pair["prompt"])], [TOKENIZER.response(pair["completion"])]
        tokens, mask = tokens_and_mask(*rows, TOKENIZER.pad, 64)
        total -= tuned.logprobs(tokens, mask).sum().item()
        count += len(rows[1][0])
    assert metrics["held_loss"] == pytest.approx(total / count, rel=1e-4) and count > 10


def test_held_out_demonstrations_are_those_whose_prompt_is_not_trained_on(folder):
    def read(prompts):
        write_jsonl(folder / "pairs.jsonl", [{"prompt": p, "completion": str(i)}
                                             for i, p in enumerate(prompts)])  # fmt: skip
        pairs, held = sft.read_pairs(str(folder / "pairs.jsonl"), TOKENIZER, 64)
        return [TOKENIZER.decode(r) for _, r in pairs], [TOKENIZER.decode(r) for _, r in held]

    prompts = [f"Say {i}." for i in range(20)]
    assert read(prompts) == ([str(i) for i in range(20) if i % 10], ["0", "10"])
    assert read([*prompts[:19], prompts[0]])[1] == ["10"]  # the first prompt is trained on as well
    assert read(prompts[:10] * 2)[1] == ["0", "10"]
    assert read(["Say 0."] * 20)[1] == ["0", "10"]  # all are: better than nothing


def test_every_epoch_of_sft_has_each_demonstration_once_in_another_order(folder, monkeypatch):
    batches = spied(monkeypatch, sft, "collate")
    run_sft(folder, batch=1, epochs=2, log=100)
    steps = [tuple(map(tuple, args[0][0])) for args, _, _ in batches if len(args[0]) == 1]
    first, second = steps[:18], steps[18:36]
    assert sorted(first) == sorted(second) and first != second


# -------------------------------------------------------------------------------------- reward.py
def numbered(policy, tokenizer, prompts, counts, max_new):
    """In place of `sample_responses`: the answers to each prompt are numbers."""
    return [[f"{i}." for i in range(k)] for k in counts]


def test_training_comparisons_are_ranked_by_labelers_of_the_first_half_each_with_its_own_taste(
    folder, monkeypatch
):
    prompts = [world.sample(random.Random(i)) for i in range(200)]
    write_jsonl(folder / "many.jsonl", [{"prompt": prompt} for prompt in prompts])
    monkeypatch.setattr(reward, "sample_responses", numbered)
    many = str(folder / "many.jsonl")
    config = reward.Config(prompts=many, valid=many, out=str(folder), seed=5, count=200)
    comparisons, _, _ = reward.collect(config, [model(folder, "sft")], TOKENIZER, random.Random(0))
    labelers = {c["labeler"] for c in comparisons}
    assert labelers == set(range(LABELERS // 2))
    for c in comparisons:
        assert c["ranks"] == ranks_of(c["labeler"], c["prompt"], c["completions"], 5)
        assert 4 <= len(c["ranks"]) <= 9
    assert {len(c["ranks"]) for c in comparisons} == set(range(4, 10))
    assert read_jsonl(folder / "comparisons.jsonl") == comparisons


def test_policies_are_sampled_in_turn_and_the_last_on_what_is_held_out(folder, monkeypatch):
    one, other = model(folder, "base"), model(folder, "sft")
    calls, file = [], str(folder / "known.jsonl")
    write_jsonl(file, [{"prompt": p} for p in KNOWN])

    def sampled(policy, tokenizer, prompts, counts, max_new):
        calls.append((policy, list(prompts), list(counts)))
        return [[f"answer {i} to {p}" for i in range(k)] for p, k in zip(prompts, counts)]

    monkeypatch.setattr(reward, "sample_responses", sampled)
    config = reward.Config(prompts=file, valid=file, out=str(folder), count=12)
    comparisons, held, _ = reward.collect(config, [one, other], TOKENIZER, random.Random(3))
    assert [(policy, prompts) for policy, prompts, _ in calls] == [
        (one, KNOWN[::2]), (other, KNOWN[1::2]), (other, KNOWN)]  # fmt: skip
    assert calls[-1][2] == [4, 4, 4] and [c["prompt"] for c in held] == KNOWN
    for c in comparisons + held:
        assert all(text.endswith(c["prompt"]) for text in c["completions"])


def test_a_round_samples_from_the_newest_policy_and_starts_from_the_sft_model(folder, monkeypatch):
    save(folder / "ppo.pt", other_weights(model(folder, "sft"), 1.0), {})
    first = {"prompt": KNOWN[0], "completions": ["a", "b"], "ranks": [1, 2], "labeler": 0}
    write_jsonl(folder / "comparisons.jsonl", [first])
    calls, trained = spied(monkeypatch, reward, "collect"), spied(monkeypatch, reward, "train")
    scaled = spied(monkeypatch, reward, "scale")
    monkeypatch.setattr(reward, "sample_responses", numbered)
    reward.main(reward.Config(out=str(folder), device="cpu", round=2, count=8, public=5, epochs=1))
    ((policy,),) = (args[1] for args, _, _ in calls)
    assert same_weights(policy, model(folder, "ppo"))
    ((args, _, _),) = trained
    assert same_weights(args[1], model(folder, "sft"))
    assert len(args[2]) == 8 + 1 + 5  # with round 1's and public tasks
    public = [c for c in args[2] if "labeler" not in c]  # no scores of them for PPO
    assert len(public) == 5 and all("labeler" in c for c in scaled[0][0][2])
    asked = [c["prompt"] for c in read_jsonl(folder / "comparisons2.jsonl")]
    assert asked == [r["prompt"] for r in read_jsonl("data/prompts_reward.jsonl")][8:16]
    assert args[2] == sorted(args[2], key=lambda c: len(
        TOKENIZER.prompt(c["prompt"] + "".join(c["completions"]))))  # fmt: skip


def test_a_batch_of_comparisons_has_every_response_with_its_eos_and_ranks_padded_with_0():
    group = [{"prompt": "a", "completions": ["b", "c d", "e"], "ranks": [2, 1, 2]},
             {"prompt": "f g", "completions": ["h", "i"], "ranks": [1, 2]}]  # fmt: skip
    tokens, positions, part, ranks = reward.collate(group, TOKENIZER, 64, "cpu")
    assert ranks.tolist() == [[2, 1, 2], [1, 2, 0]]
    assert (part == -1).equal(tokens == TOKENIZER.pad)
    for record, *row in zip(group, tokens, positions, part):
        prompt = TOKENIZER.prompt(record["prompt"])
        for k, response in enumerate([prompt, *map(TOKENIZER.response, record["completions"])]):
            found, places = (x[row[2] == k].tolist() for x in row[:2])
            assert found == response and len(response) > 1
            start = len(prompt) if k else 0  # each response goes on from the prompt
            assert places == list(range(start, start + len(response)))
    cut = reward.collate(group, TOKENIZER, len(TOKENIZER.prompt("f g")) + 1, "cpu")
    assert cut[1].max() == len(TOKENIZER.prompt("f g")) and (cut[2][1] >= 1).sum() == 2


def test_a_scorer_that_ranks_as_people_did_has_an_accuracy_of_1(folder, monkeypatch):
    held = [{"prompt": "a", "completions": ["x", "yy", "zzz"], "ranks": [3, 1, 2]},
            {"prompt": "b", "completions": ["v", "ww"], "ranks": [1, 2]}]  # fmt: skip
    scores = [-3.0, -1.0, -2.0, 5.0, 4.0]
    monkeypatch.setattr(reward, "score_texts", lambda *args: scores)
    right = reward.measure(None, TOKENIZER, held, 0)
    assert right["accuracy"]["value"] == 1 and right["accuracy"]["n"] == 4
    monkeypatch.setattr(reward, "score_texts", lambda *args: [-x for x in scores])
    assert reward.measure(None, TOKENIZER, held, 0)["accuracy"]["value"] == 0
    lengths = [float(len(TOKENIZER.encode(t))) for c in held for t in c["completions"]]
    expected = np.corrcoef(scores, lengths)[0, 1]
    assert right["length_correlation"] == pytest.approx(expected, rel=1e-5)


def test_every_round_asks_the_next_prompts_of_the_file(folder):
    file = folder / "known.jsonl"
    write_jsonl(file, [{"prompt": p} for p in KNOWN])
    for count, round, asked in ((2, 1, [0, 1]), (2, 2, [2, 0]), (9, 3, [0, 1, 2]), (1, 3, [2])):
        config = reward.Config(prompts=str(file), count=count, round=round)
        assert reward.prompts_of(config, TOKENIZER, 64) == [KNOWN[i] for i in asked]


# ----------------------------------------------------------------------------------------- ppo.py
def test_the_rollout_is_given_floor_reference_and_reward_model_of_its_round(folder, monkeypatch):
    twins = {"ppo": 0.5, "reward2": 0.7}
    save(folder / "ppo.pt", other_weights(model(folder, "sft"), twins["ppo"]), {})
    save(folder / "reward2.pt", other_weights(model(folder, "reward"), twins["reward2"]), {},
         floor=-7.0, spread=2.0)  # fmt: skip
    calls = spied(monkeypatch, ppo, "rollout")
    starts = []
    monkeypatch.setattr(ppo, "generate", lambda policy, *rest: starts.append(
        same_weights(policy, model(folder, "ppo"))) or [[TOKENIZER.eos]] * 16)  # fmt: skip
    run_ppo(folder, round=2, iterations=1, value_warmup=0)
    policy, reference, value_net, reward_model, prompts, _, _, floor = calls[0][0]
    assert starts == [True] and floor == -7.0
    assert same_weights(reference, model(folder, "sft"))
    assert same_weights(reward_model, model(folder, "reward2")) and value_net is not reward_model
    extra = load(folder / "ppo2.pt", "", TOKENIZER.size)[1]
    assert set(extra["made_from"]) == {"sft", "ppo", "reward2"} and len(prompts) == 16


def test_the_policys_rate_starts_at_a_tenth_however_long_the_value_network_learned_alone(
    folder, monkeypatch
):
    steps, update = [], ppo.update_ema
    optimizers = optimizers_of(monkeypatch, torch.optim.Adam)

    def watched(*args):
        steps.append(optimizers[0].param_groups[0]["lr"])
        return update(*args)

    monkeypatch.setattr(ppo, "update_ema", watched)
    run_ppo(folder, iterations=4, warmup=2, value_warmup=3, minibatch=16, lr=1e-3)
    assert steps == pytest.approx([1e-4, 5.5e-4, 1e-3, 1e-3])


def test_prompts_are_each_asked_once_before_any_is_asked_again():
    prompts = [[i] for i in range(10)]
    batches = ppo.prompt_batches(prompts, 5, 4, random.Random(0))
    assert [len(batch) for batch in batches] == [5] * 4
    for a, b in (batches[:2], batches[2:]):
        assert sorted(a + b) == prompts
    assert batches[0] + batches[1] != batches[2] + batches[3]
    assert sorted(map(len, ppo.prompt_batches(prompts, 25, 2, random.Random(0)))) == [25, 25]
    for batch in ppo.prompt_batches(prompts, 4, 50, random.Random(0)):  # 10 is no multiple of 4
        assert len(set(map(tuple, batch))) == 4
    few = ppo.prompt_batches(prompts, 25, 1, random.Random(0))[0]
    assert all(prompt in few for prompt in prompts)


def test_minibatches_have_every_episode_once_a_pass_and_keep_rows_together():
    config = ppo.Config(episodes=6, minibatch=2, inner_epochs=3)
    batch = {"mask": torch.arange(6.0)[:, None], "scores": 10 * torch.arange(6.0)}
    torch.manual_seed(0)
    parts = list(ppo.minibatches(batch, config))
    assert len(parts) == 9 and all(len(part["scores"]) == 2 for part in parts)
    passes = [torch.cat([p["scores"] for p in parts[i : i + 3]]).tolist() for i in (0, 3, 6)]
    assert all(sorted(order) == [0, 10, 20, 30, 40, 50] for order in passes)
    assert len(set(map(tuple, passes))) > 1
    for part in parts:
        assert torch.equal(10 * part["mask"][:, 0], part["scores"])


def test_ptx_adds_to_ppos_own_gradient(folder, monkeypatch):
    monkeypatch.setattr(ppo.make, "corpus", lambda count: ["one is one."])
    weight = model(folder, "sft").ln_f.bias

    def loss(logp, *rest):  # a gradient of ones on the policy, whatever was sampled
        return policies[0].ln_f.bias.sum() + 0.0 * logp.sum()

    policies, seen, clip, roll = [], [], torch.nn.utils.clip_grad_norm_, ppo.rollout
    monkeypatch.setattr(ppo, "rollout", lambda *args: policies.append(args[0]) or roll(*args))
    monkeypatch.setattr(ppo, "policy_loss", loss)

    def watched(parameters, most):
        parameters = list(parameters)
        if parameters[0] is policies[0].wte.weight:
            seen.append(policies[0].ln_f.bias.grad.clone())
        return clip(parameters, most)

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", watched)
    run_ppo(folder, ptx_coef=3.0, lr=0.0, iterations=1, value_warmup=0, minibatch=16)
    policy = model(folder, "sft")
    web = pretrain.loss_of(policy, [TOKENIZER.document("one is one.")], TOKENIZER.pad, "cpu")
    (3.0 * web).backward()
    expected = torch.ones_like(weight) + policy.ln_f.bias.grad
    torch.testing.assert_close(seen[0], expected, rtol=1e-4, atol=1e-5)


def test_snapshots_hold_the_average_every_so_many_iterations(folder, monkeypatch):
    kept, update = [], ppo.update_ema
    monkeypatch.setattr(ppo, "update_ema", lambda average, *rest: (
        update(average, *rest), kept.append(average.wte.weight.clone())))  # fmt: skip
    run_ppo(folder, iterations=5, snapshots=2, minibatch=16, ema=0.5)
    files = sorted(file.name for file in (folder / "snapshots").glob("*.pt"))
    assert files == ["ppo_2.pt", "ppo_4.pt"]
    for number in (2, 4):
        saved = load(folder / "snapshots" / f"ppo_{number}.pt", "", TOKENIZER.size)[0]
        assert torch.equal(saved.wte.weight, kept[number - 1])
    assert torch.equal(model(folder, "ppo").wte.weight, kept[-1])


def test_the_average_starts_as_the_rounds_policy_and_has_its_last_step_in_it(folder, monkeypatch):
    save(folder / "ppo.pt", other_weights(model(folder, "sft"), 0.5), {})
    save(folder / "reward2.pt", model(folder, "reward"), {}, floor=-1.0, spread=1.0)
    run_ppo(folder, round=2, ema=1.0)
    assert same_weights(model(folder, "ppo2"), model(folder, "ppo"))
    rollouts = spied(monkeypatch, ppo, "rollout")
    run_ppo(folder, round=2, ema=0.0)
    policy = rollouts[-1][0][0]
    assert same_weights(model(folder, "ppo2"), policy)
    assert not same_weights(policy, model(folder, "ppo"))


def test_step_metrics_are_half_the_squared_log_ratio_and_the_share_outside_the_clip():
    logp = torch.tensor([[0.0, 0.19, -0.1], [0.0, -0.3, 9.0]])
    mask = torch.tensor([[0.0, 1, 1], [0, 1, 0]])
    found = ppo.step_metrics(logp, torch.zeros(2, 3), mask, 0.2)
    assert found["approx_kl"].item() == pytest.approx((0.0361 + 0.01 + 0.09) / 2 / 3, rel=1e-4)
    # It is the ratio that is clipped: e^0.19 = 1.21 is outside.
    assert found["clipfrac"].item() == pytest.approx(2 / 3)
    means = ppo.mean_of([{"a": torch.tensor(1.0)}, {"a": torch.tensor(4.0)}])
    assert means == {"a": 2.5}


def test_metrics_of_a_step_are_of_the_logprobs_that_its_loss_compares(folder, monkeypatch):
    losses, metrics = (spied(monkeypatch, ppo, name) for name in ("policy_loss", "step_metrics"))
    run_ppo(folder, inner_epochs=2, iterations=1, value_warmup=0, clip=0.01)
    assert len(losses) == len(metrics) == 4
    for (loss, _, _), (metric, _, _) in zip(losses, metrics):
        assert loss[0] is metric[0] and loss[1] is metric[1] and loss[3] is metric[2]
        assert loss[4] == metric[3] == 0.01
    line = json.loads((folder / "ppo.jsonl").read_text().splitlines()[-1])
    for name in ("approx_kl", "clipfrac"):
        means = np.mean([result[name].item() for _, _, result in metrics])
        assert line[name] == pytest.approx(means, rel=1e-4) and line[name] > 0
    means = np.mean([result.item() for _, _, result in losses])
    assert line["policy_loss"] == pytest.approx(means, rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("run, module, name", [
    (run_pretrain, pretrain, "base"), (run_sft, sft, "sft"), (run_reward, reward, "reward"),
    (run_ppo, ppo, "ppo"),
])  # fmt: skip
def test_a_stopped_script_goes_on_to_the_same_weights(folder, monkeypatch, run, module, name):
    """With its random state: PPO samples anew in every iteration."""
    short = {} if run is run_ppo else {"batch": 4}
    changes = {"iterations": 3} if run is run_ppo else {}
    run(folder, **short, **changes)
    expected = model(folder, name)
    (folder / f"{name}.pt").unlink()
    if name == "base":  # its product is what the fixture's sft model does not need
        (folder / "base.state").unlink(missing_ok=True)
    stopped(monkeypatch, 2, run, folder, **short, **changes)
    monkeypatch.setattr(checkpoints, "keep", lambda *args: None)
    torch.manual_seed(12345)
    run(folder, **short, **changes, resume=True)
    assert same_weights(expected, model(folder, name))


# ------------------------------------------------------------------------------------------ data/
def test_another_labelers_agreement_is_not_a_labelers_with_itself():
    prompts = [world.sample(random.Random(i)) for i in range(300)]
    comparisons = []
    for i, prompt in enumerate(prompts):
        texts = [*evaluate.right_answers([prompt]), "No comment.", "You are stupid.", "It is red."]
        labeler = i % 20
        comparisons.append({"prompt": prompt, "completions": texts, "labeler": labeler,
                            "ranks": ranks_of(labeler, prompt, texts, 3)})  # fmt: skip
    found, pairs = judges.agreement(comparisons, 3), []
    for i, c in enumerate(comparisons):
        second = judges.colleague(c["labeler"], i)
        assert second != c["labeler"] and second < LABELERS // 2
        ratings = rate(second, c["prompt"], c["completions"], 3)
        for a, b in itertools.combinations(range(4), 2):
            if ratings[a] != ratings[b] and c["ranks"][a] != c["ranks"][b]:
                pairs.append((ratings[a] > ratings[b]) == (c["ranks"][a] < c["ranks"][b]))
    assert found["n"] == len(pairs) and found["value"] == pytest.approx(np.mean(pairs))
    assert 0.6 < found["value"] < 0.99


@pytest.mark.parametrize("completions, ranks", [
    (["a", "b", "c"], [1, 2]), (["a", "b"], [1, 2, 3]), (["a"], [1]), (["a", "b"], [0, 1]),
    (["a", 5], [1, 2]), (["a", "b"], [1, True]), (["a", "b"], [1, 2.0]),
])  # fmt: skip
def test_completions_and_ranks_that_do_not_fit_are_refused(tmp_path, completions, ranks):
    file = tmp_path / "a.jsonl"
    record = {"prompt": "a", "completions": completions, "ranks": ranks}
    file.write_text(json.dumps(record) + "\n")
    with pytest.raises(UserError, match="two or more completions|as ranks: a whole number from 1"):
        read(file, "comparisons")


def test_lines_end_at_newlines_alone(tmp_path):
    """Unicode has other line separators, which JSON lets stand in a text."""
    records = [{"text": "a\u2028b\x85c\x0cd\re"}, {"text": "\u2029"}]
    write_jsonl(tmp_path / "a.jsonl", records)
    assert read_jsonl(tmp_path / "a.jsonl") == records


@pytest.mark.parametrize("text", [
    "Don't say snake_case, __init__ or 3.14!", "one  two\n three\t", "Zoë’s naïve 東京 42, a_b1_c",
])  # fmt: skip
def test_training_splits_a_text_as_encoding_does_and_loses_no_letter(text):
    parts = regex.findall(GPT2_SPLIT, text)  # tiktoken brings it along
    assert TRAIN_SPLIT.findall(text) == parts and "".join(parts) == text
