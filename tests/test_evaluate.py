"""The comparison of models: what each is asked, how it is judged, how the tables are printed."""

import json
import random
import re

import numpy as np
import pytest
import torch

import evaluate
from data import judges, world
from data.checkpoints import load, save
from data.files import UserError, write_jsonl
from data.forms import read_jsonl
from data.labelers import LABELERS, gold
from model import GPT, GPTConfig, ScalarGPT
from tests.small import TOKENIZER, model, other_weights, same_weights, spied

COLOR = "What color is a lemon?"


def test_answers_to_a_swapped_text_are_judged_by_the_new_text(monkeypatch):
    closed = evaluate.read_prompts("probes/closed_qa")
    asked = []

    def right_for(prompts):
        return lambda model_, tokenizer, new, max_new: asked.append(new) or [
            world.answer(world.parse(p), random.Random(0)) for p in prompts or new]  # fmt: skip

    monkeypatch.setattr(evaluate, "answer_all", right_for(None))
    assert sum(evaluate.swapped(None, None, closed, 8)) == len(closed)
    assert all(new != old for new, old in zip(asked[0], closed))
    for new, old in zip(asked[0], closed):  # one word is new, and the text had it nowhere
        (word,) = set(re.findall(r"\w+", new)) - set(re.findall(r"\w+", old))
        assert word in {w for words in world.FAMILIAR.values() for w in words}
    monkeypatch.setattr(evaluate, "answer_all", right_for(closed))
    assert sum(evaluate.swapped(None, None, closed, 8)) == 0


def test_the_taxes_are_1_for_whoever_has_kept_the_skills(folder, monkeypatch):
    closed = evaluate.read_prompts("probes/closed_qa")[:10]
    lomi = read_jsonl("data/probes/tax_lomi.jsonl")[:10]
    right = [r["completion"] for r in lomi]
    right += [world.answer(world.parse(p), random.Random(0)) for p in closed]
    temperatures = []

    def sampled(model_, tokenizer, rows, max_new, temperature):
        temperatures.append(temperature)
        assert TOKENIZER.eos not in rows[0] and len(rows) == 20
        return [text + "\nQ: more" for text in right]

    monkeypatch.setattr(evaluate, "sample_texts", sampled)
    base = GPT(GPTConfig(TOKENIZER.size, context=256, layers=1, heads=2, width=16))
    read, liked = [], torch.tensor([-1.0, -2, -3, -4]).repeat(10)

    def logprobs(tokens, mask):  # of four ways the first, the story's own, is the likeliest
        read.append(len(tokens))
        return mask * liked[:, None]

    monkeypatch.setattr(base, "logprobs", logprobs)
    found = evaluate.taxes(base, TOKENIZER, closed, 10, 64)
    assert found == {"tax_lomi": [1.0] * 10, "tax_reading": [1.0] * 10, "tax_cloze": [1.0] * 10}
    assert temperatures == [0.0] and read == [40]  # in one batch
    right[0], right[10], liked[7] = "wrong", "wrong", -0.5
    found = evaluate.taxes(base, TOKENIZER, closed, 10, 64)
    assert [sum(v) for v in found.values()] == [9, 9, 9] and found["tax_cloze"][1] == 0


def test_a_page_of_examples_has_right_answers_to_training_prompts_of_four_uses():
    for style in evaluate.FORMATS:
        page = evaluate.few_shot_page(style, 0)
        shots = [shot for shot in page.split(style[2]) if shot]
        assert len(shots) == len(evaluate.SHOTS) == 4
        for shot, use in zip(shots, evaluate.SHOTS):
            prompt, answer = shot.removeprefix(style[0]).split(style[1])
            request = world.parse(prompt)
            assert request.task.use == use and gold(prompt, answer) > 0.85
            assert world.split(request.core) == "train"


def test_a_prompted_model_reads_the_page_and_answers_with_its_first_line(monkeypatch):
    rows = []
    monkeypatch.setattr(evaluate, "sample_texts", lambda model_, tokenizer, asked, new: (
        rows.extend(asked) or ["\n yellow.\nQ: more"] * len(asked)))  # fmt: skip
    base = GPT(GPTConfig(TOKENIZER.size, layers=1, heads=2, width=16))
    style = ("Q: ", "\nA: ", "\n\n")
    texts = evaluate.answer_all(base, TOKENIZER, ["Why?"], 8, style, "PAGE\n\n")
    assert texts == ["yellow."]
    assert TOKENIZER.decode(rows[0]) == "PAGE\n\nQ: Why?\nA:"
    assert evaluate.answer_all(base, TOKENIZER, ["Why?"], 8) == ["\n yellow.\nQ: more"]
    assert rows[1] == TOKENIZER.prompt("Why?")
    with pytest.raises(UserError, match="too long"):
        evaluate.answer_all(base, TOKENIZER, ["Why? " * 200], 8)


def small_asked(count=12) -> dict:
    probes = [probe for measure in judges.RATES.values() for probe in measure.probes]
    files = {file: file for file in evaluate.SETS.values()} | {x: f"probes/{x}" for x in probes}
    return {name: evaluate.read_prompts(file)[:count] for name, file in files.items()}


def test_every_metric_is_of_its_own_prompts_and_its_topics_fit(monkeypatch):
    asked = small_asked()
    config = evaluate.Config(count=12)

    def ask(prompts):  # right answers, which any judge can tell
        return evaluate.right_answers(prompts)

    texts, values = evaluate.measure(ask, None, TOKENIZER, asked, config)
    assert texts == evaluate.right_answers(asked["test"])
    topics = evaluate.topics_of(asked)
    assert topics.keys() == values.keys()
    for metric, mine in values.items():
        assert len(mine) == len(topics[metric]) > 0
    for metric, file in evaluate.SETS.items():
        assert values[metric] == [gold(p, t) for p, t in zip(asked[file], ask(asked[file]))]
        assert topics[metric] == [world.topic(p) for p in asked[file]]
    for metric, of in judges.RATES.items():
        prompts = [p for probe in of.probes for p in asked[probe]]
        assert values[metric] == [float(of.judge(p, t)) for p, t in zip(prompts, ask(prompts))]
        assert topics[metric] == [world.topic(p) for p in prompts]
    uses = [world.parse(p).task.use for p in asked["test"]]
    for use in set(uses):
        expected = [v for v, u in zip(values["gold"], uses) if u == use]
        assert values[f"gold_{use}"] == expected


def test_differences_are_the_better_model_minus_the_other_and_wins_are_the_firsts(monkeypatch):
    asked = small_asked()
    good, bad = evaluate.right_answers(asked["test"]), ["No comment."] * 12
    texts = {"gpt": bad, "prompted": bad, "sft": bad, "ppo": good, "round2": good, "right": good}
    values = {name: {"gold": evaluate.golds(asked["test"], texts[name])} for name in texts
              if name != "right"}  # fmt: skip
    results = evaluate.compare(values, texts, asked, 0)
    gain = np.mean(values["ppo"]["gold"])
    for pair, expected in (("prompted-gpt", 0), ("sft-prompted", 0), ("ppo-prompted", gain),
                           ("ppo-gpt", gain), ("ppo-sft", gain), ("round2-sft", gain)):  # fmt: skip
        assert results["differences"][f"gold {pair}"]["value"] == pytest.approx(expected)
    assert results["differences"]["gold sft-prompted"]["low"] < 0  # nothing is that sure
    # Three answers to the same prompt are one topic, in the models' intervals and the differences'.
    asked["test"] = asked["test"][:4] * 3
    texts["ppo"] = evaluate.right_answers(asked["test"][:7]) + bad[7:]
    values["ppo"]["gold"] = evaluate.golds(asked["test"], texts["ppo"])
    values["sft"]["gold"] = [0.0] * 12
    found, topics = evaluate.compare(values, texts, asked, 0), [*map(world.topic, asked["test"])]
    gains = judges.interval(values["ppo"]["gold"], topics=topics, signed=True)
    assert found["differences"]["gold ppo-sft"] == gains != judges.interval(values["ppo"]["gold"])
    assert found["models"]["ppo"]["gold"] == judges.interval(values["ppo"]["gold"], topics=topics)
    wins = results["wins"]
    assert wins["ppo/sft"]["value"] > 0.8 and wins["ppo/sft"]["gold"] == 1
    assert wins["right/gpt"]["gold"] == 1 and wins["sft/gpt"]["n"] == 0
    assert "ppo_ptx/sft" not in wins and set(results["models"]) == set(values)


def test_wins_are_judged_by_labelers_whose_rankings_trained_nothing(monkeypatch):
    asked = []
    monkeypatch.setattr(judges, "rate", lambda who, *rest: asked.append(who) or [2, 1])
    judges.win_rate([COLOR] * 45, ["a"] * 45, ["b"] * 45, 0)
    assert asked == [LABELERS // 2 + i % (LABELERS // 2) for i in range(45)]


def test_the_few_shot_format_is_the_one_with_the_most_gold(folder, monkeypatch, capsys):
    """A stub of each model answers rightly, prompted GPT in the second format alone."""
    chosen = []

    def answer_all(policy, tokenizer, prompts, max_new, style=None, page=""):
        if style is not None:
            chosen.append(style)
            assert page == evaluate.few_shot_page(style, 0)
        if style in (evaluate.FORMATS[0], evaluate.FORMATS[2]):
            return ["No comment."] * len(prompts)
        return evaluate.right_answers(prompts)

    save(folder / "ppo.pt", other_weights(model(folder, "sft"), 0.5), {})
    monkeypatch.setattr(evaluate, "answer_all", answer_all)
    monkeypatch.setattr(evaluate, "taxes", lambda *args: {"tax_lomi": [1.0, 0.0]})
    four = spied(monkeypatch, evaluate, "sample_responses")
    results = evaluate.main(evaluate.Config(out=str(folder), device="cpu", count=6, max_new=2))
    assert results["few_shot_format"] == evaluate.FORMATS[1][0]
    assert chosen[:3] == list(evaluate.FORMATS) and set(chosen[3:]) == {evaluate.FORMATS[1]}
    assert "swapped" not in results["models"]["prompted"]
    assert results["models"]["gpt"]["tax_lomi"]["value"] == 0.5
    (((policy, _, prompts, counts, _), _, _),) = four
    assert same_weights(policy, model(folder, "sft")) and counts == [4] * 6
    assert prompts == evaluate.read_prompts("valid")[:6]


@pytest.fixture
def models(folder):
    """A folder of tiny models whose context has room for the page of examples."""
    torch.manual_seed(3)
    shape = GPTConfig(TOKENIZER.size, context=256, layers=1, heads=2, width=16)
    for name in ("base", "sft", "ppo", "ppo_ptx", "ppo2"):
        save(folder / f"{name}.pt", GPT(shape), {})
    save(folder / "reward.pt", ScalarGPT(shape), {}, floor=-1.0, spread=1.0)
    return folder


def run_evaluate(folder, **changes):
    settings = {"count": 5, "max_new": 4, "samples": 2, **changes}
    return evaluate.main(evaluate.Config(out=str(folder), device="cpu", **settings))


def test_a_models_answers_do_not_depend_on_the_models_beside_it(models, monkeypatch):
    measured = spied(monkeypatch, evaluate, "measure")

    def answers():
        measured.clear()
        results = run_evaluate(models)
        return results, dict(zip(results["models"], [texts for _, _, (texts, _) in measured]))

    (every, texts), own = answers(), run_evaluate(models, prompt=COLOR)
    assert list(texts) == ["gpt", "prompted", "sft", "ppo", "ppo_ptx", "round2"]
    assert len(set(map(tuple, texts.values()))) == 6
    for file in ("ppo_ptx.pt", "ppo2.pt"):
        (models / file).unlink()
        fewer, same = answers()
        assert same == {name: texts[name] for name in same} and len(same) < len(texts)
        assert fewer["models"] == {name: every["models"][name] for name in same}
        assert fewer["wins"] == {pair: every["wins"][pair] for pair in fewer["wins"]}
        assert fewer["labelers"] == every["labelers"] and fewer["seed"] == 0
    fewer_own = run_evaluate(models, prompt=COLOR)
    assert fewer_own == {name: own[name] for name in fewer_own} and len(fewer_own) == 4
    for name in ("base", "ppo"):
        (models / f"{name}.pt").unlink()
    assert run_evaluate(models, prompt=COLOR) == {"sft": own["sft"]}
    assert run_evaluate(models, prompt=COLOR, seed=1) != {"sft": own["sft"]}


def test_what_is_written_is_what_is_returned_and_samples_are_of_all_models(models, capsys):
    results = run_evaluate(models, seed=2)
    written = json.loads((models / "evaluate.json").read_text())
    assert written == json.loads(json.dumps(results)) and written["seed"] == 2
    printed = capsys.readouterr().out
    shown = printed.split("\n> ")[1:]
    test = evaluate.read_prompts("test")[:5]
    assert len(shown) == 2 and all(part.splitlines()[0] in test for part in shown)
    for part in shown:
        prompt, *answers = [line for line in part.splitlines() if line and "wrote" not in line]
        assert [line.split()[0] for line in answers] == list(results["models"])
        for line in answers:
            text = line.split(" | ", 1)[1]
            assert f"gold {gold(prompt, eval(text)):.2f} | " in line
    assert f"wrote {models}/evaluate.json in" in printed.splitlines()[-1]


def test_the_tables_have_each_number_in_its_models_column(capsys):
    def entry(value, n=7):
        return {"value": value, "low": value - 0.01, "high": value + 0.01, "n": n}

    metrics = ("gold", "constraint", "toxic_basic", "tax_lomi")
    names = ("gpt", "prompted", "sft", "ppo")
    values = {name: {m: entry(0.1 * i + 0.02 * j) for j, m in enumerate(metrics)}
              for i, name in enumerate(names, 1)}  # fmt: skip
    del values["prompted"]["tax_lomi"]
    differences = {f"{m} ppo-{name}": entry(0.1 * i + 0.02 * j)
                   for i, name in enumerate(("sft", "prompted", "gpt"), 1)
                   for j, m in enumerate(metrics)}  # fmt: skip
    del differences["tax_lomi ppo-prompted"]
    differences["constraint ppo-prompted"] = entry(-0.5)  # not as the paper says
    differences["constraint ppo-sft"] = differences["constraint ppo-gpt"] = entry(0.5)
    differences["tax_lomi ppo-gpt"] = entry(-0.3)
    wins = {"ppo/sft": {**entry(0.66, 90), "gold": 0.75}, "sft/gpt": {**entry(0.6), "gold": None}}
    labelers = {"rm_own": entry(0.71, 33), "rm_clear": {"value": None, "n": 0}}
    evaluate.show({"models": values, "differences": differences, "wins": wins,
                   "labelers": labelers})  # fmt: skip
    lines = capsys.readouterr().out.splitlines()
    rows = {}
    for line in lines:
        if line:
            rows.setdefault(line.split()[0], []).append(line)
    assert lines[0].split() == ["n", *names]
    for j, metric in enumerate(metrics):
        shown = rows[metric][0].split()[1:]
        cells = [f"{0.1 * i + 0.02 * j:.2f}" for i in range(1, 5)]
        found = [cell.split("[")[0] for cell in shown[1:] if not cell.endswith("]") or "[" in cell]
        expected = [c if (metric, i) != ("tax_lomi", 1) else "-" for i, c in enumerate(cells)]
        assert shown[0] == "7" and [x for x in found if x] == expected
    assert "PPO beside" in "".join(lines)
    heads = next(line for line in lines if line.startswith("PPO beside"))
    assert heads.index("SFT") < heads.index("GPT prompted") < heads.rindex("GPT ")
    beside = {metric: rows[metric][1] for metric in metrics}
    assert [beside["gold"].index(x) for x in ("0.10 [", "0.20 [", "0.30 [")] == sorted(
        beside["gold"].index(x) for x in ("0.10 [", "0.20 [", "0.30 ["))  # fmt: skip
    assert not beside["gold"].rstrip().endswith(")")  # gold is no claim of the paper
    assert "does not hold (up" in beside["constraint"]  # told by the difference to prompted GPT
    assert "does not hold" in beside["toxic_basic"]
    assert "  holds (down)" in beside["tax_lomi"]  # there is no prompted one: by GPT's
    assert rows["ppo/sft"][0].split() == ["ppo/sft", "90", "0.66", "[0.65,0.67]", "0.75"]
    assert rows["sft/gpt"][0].split()[-1] == "-"
    assert rows["rm_own"][0].split() == ["rm_own", "33", "0.71", "[0.70,0.72]"]
    assert rows["rm_clear"][0].split() == ["rm_clear", "0", "-"]


def test_a_models_answer_to_ones_own_prompt_has_its_own_score(models, monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(evaluate, "score_texts", lambda net, tokenizer, prompts, texts: (
        asked.append((net, prompts, texts)) or [float(len(asked))]))  # fmt: skip
    answers = run_evaluate(models, prompt=COLOR)
    printed = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in printed] == list(answers)
    for i, (name, (text,)) in enumerate(answers.items(), 1):
        assert f"{name:9} reward {i:6.2f} | {text!r}" in printed
        net, prompts, texts = asked[i - 1]
        assert (prompts, texts) == ([COLOR], [text]) and same_weights(net, model(models, "reward"))
    assert not (models / "evaluate.json").exists()


def test_prompts_of_ones_own_are_answered_side_by_side_and_written_for_people(
    models, monkeypatch, capsys
):
    monkeypatch.setattr(evaluate, "score_texts", lambda net, tokenizer, prompts, texts: (
        [float(len(p)) for p in prompts]))  # fmt: skip
    own = ["How do I cook?", "How do I cook rice?", "How do I cook?", "Tell me."]
    write_jsonl(models / "own.jsonl", [{"prompt": p} for p in own])
    answers = run_evaluate(models, prompts=str(models / "own.jsonl"), samples=2)
    printed = capsys.readouterr().out
    unlike = [own[0], own[1], own[3]]  # each prompt once
    assert all(len(texts) == 3 for texts in answers.values())
    assert sum(f"\n> {prompt}\n" in printed for prompt in unlike) == 2
    mean = sum(map(len, unlike)) / 3
    for name, texts in answers.items():
        assert f"\n{name:9} {mean:6.2f}\n" in printed.split(f"by {models}/reward.pt, n 3")[1]
        assert sum(f"{name:9} reward {len(p):6.2f} | {t!r}" in printed
                   for p, t in zip(unlike, texts)) == 2  # fmt: skip
    key = read_jsonl(models / "answers_key.jsonl")
    assert [c["prompt"] for c in key] == unlike
    for i, c in enumerate(key):
        said = {name: c["completions"][place] for name, place in c["places"].items()}
        assert said == {name: texts[i] for name, texts in answers.items()}
    # A person who prefers longer answers.
    write_jsonl(models / "ranked.jsonl", [
        {"prompt": c["prompt"], "completions": c["completions"],
         "ranks": [1 + len(own[1] * 9) - len(text) for text in c["completions"]]}
        for c in read_jsonl(models / "answers.jsonl")])  # fmt: skip
    found = run_evaluate(models, rankings=str(models / "ranked.jsonl"))
    pairs = [(len(a), len(b)) for a, b in zip(answers["ppo"], answers["sft"]) if len(a) != len(b)]
    assert found["ppo/sft"]["n"] == len(pairs)
    assert found["ppo/sft"]["value"] == pytest.approx(np.mean([a > b for a, b in pairs]))
    assert "ppo to sft" in capsys.readouterr().out and not (models / "evaluate.json").exists()


def test_a_rates_sets_are_what_their_names_say():
    asked = small_asked(200)
    held = [any(w in world.HELD_WORDS for w in re.findall(r"\w+", p)) for p in
            asked[evaluate.SETS["gold_entity"]]]  # fmt: skip
    assert all(held)
    for metric in ("gold", "gold_phrasing"):
        words = [w for p in asked[evaluate.SETS[metric]] for w in re.findall(r"\w+", p)]
        assert not set(words) & set(world.HELD_WORDS)
    usual = {world.split(world.parse(p).core) for p in asked[evaluate.SETS["gold"]]}
    assert usual == {"test"}


def test_gold_of_an_answer_that_is_half_right_is_between_0_and_1():
    prompts = [COLOR, COLOR, COLOR]
    texts = ["I am not sure. A lemon is yellow.", "A lemon is yellow.", "No comment."]
    found = evaluate.golds(prompts, texts)
    assert found == [gold(p, t) for p, t in zip(prompts, texts)]
    assert found[1] == 1 and 0 < found[0] < 1


def test_right_answers_are_the_same_whenever_they_are_asked_for():
    prompts = evaluate.read_prompts("test")[:50]
    assert evaluate.right_answers(prompts) == evaluate.right_answers(prompts)
    assert evaluate.right_answers(prompts[::-1]) == evaluate.right_answers(prompts)[::-1]
    expected = [r["prompt"] for r in read_jsonl("data/test.jsonl")]
    assert evaluate.read_prompts("test") == expected  # in the file's order


def test_the_page_of_examples_stands_in_the_format_of_the_question(models):
    for i, style in enumerate(evaluate.FORMATS):
        config = evaluate.Config(seed=4)
        ask = evaluate.contestants({"gpt": 1, "sft": 2}, TOKENIZER, config, i)
        assert list(ask) == ["gpt", "prompted", "sft"]
        assert ask["prompted"].keywords["style"] == style
        assert ask["prompted"].keywords["page"] == evaluate.few_shot_page(style, 4)
        assert ask["prompted"].args == ask["gpt"].args == (1, TOKENIZER)
        assert "style" not in ask["gpt"].keywords and ask["sft"].args == (2, TOKENIZER)
        assert all(asked.keywords["max_new"] == 64 for asked in ask.values())
    assert list(evaluate.contestants({"sft": 2}, TOKENIZER, config, 0)) == ["sft"]


@pytest.mark.parametrize("sign", [1, -1])
def test_who_scores_by_gold_sees_every_broken_constraint(models, monkeypatch, sign):
    monkeypatch.setattr(evaluate, "score_texts", lambda net, tokenizer, prompts, texts: [
        sign * gold(p, t) for p, t in zip(prompts, texts)])  # fmt: skip
    config = evaluate.Config(out=str(models), max_new=1, count=20)
    found = evaluate.labelers_beside(None, model(models, "sft"), TOKENIZER, [COLOR], config)
    assert [found[f"rm_sees_{name}"]["value"] for name in judges.PROBED] == [sign == 1] * 4


def test_the_reward_model_is_measured_on_four_sft_samples_of_each_prompt(models, monkeypatch):
    reports = spied(monkeypatch, judges, "report")
    agreements = spied(monkeypatch, judges, "agreement")
    comparison = {"prompt": COLOR, "completions": ["It is red.", "A lemon is yellow."],
                  "ranks": [2, 1]}  # fmt: skip
    write_jsonl(models / "comparisons.jsonl", [comparison])
    prompts = evaluate.read_prompts("valid")[:3]
    net, sft = load(models / "reward.pt", "", TOKENIZER.size)[0], model(models, "sft")
    config = evaluate.Config(out=str(models), max_new=4, seed=9, count=5)
    found = evaluate.labelers_beside(net, sft, TOKENIZER, prompts, config)
    ((asked, four, scores, seed), _, _) = reports[0]
    assert asked == prompts and [len(texts) for texts in four] == [4] * 3 and seed == 9
    flat = [(p, t) for p, texts in zip(prompts, four) for t in texts]
    assert scores == evaluate.score_texts(net, TOKENIZER, *zip(*flat))
    assert "agreement" not in found and not agreements  # nobody knows who ranked
    assert all(found[f"rm_sees_{name}"]["n"] == 5 for name in judges.PROBED)
    torch.manual_seed(12345)  # whatever was sampled before
    assert evaluate.labelers_beside(net, sft, TOKENIZER, prompts, config) == found
    assert reports[1][0] == reports[0][0]
    write_jsonl(models / "comparisons.jsonl", [{**comparison, "labeler": 3}])
    found = evaluate.labelers_beside(net, sft, TOKENIZER, prompts, config)
    assert found["agreement"] == judges.agreement([{**comparison, "labeler": 3}], 9)
    assert found["agreement"]["n"] == 1
