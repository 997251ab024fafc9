"""The small world: understood prompts, an unfoolable judge, held-out prompts, the same files."""

import ast
import json
import os
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest

from data import judges, labelers, make, world
from data.forms import read_jsonl
from data.labelers import demonstration, features, gold, sentences_of
from data.tokenizer import Tokenizer, train_bpe

ROOT = Path(__file__).parent.parent
PROMPTS = [world.sample(random.Random(i)) for i in range(800)]
TESTS = ("test", "test_phrasing", "test_entity")
SUBJECTS = world.SLOTS["name"] + world.SLOTS["thing"]
# Questions on a text, and what an answer to them must say of the name or thing that is asked about.
ANSWERS = {r"What does \w+ have\?": "^{} has a", r"Who has the \w+\?": "has the {}",
           r"What color is the \w+\?": "^The {} is", r"Who \w+ a \w+\?": " a {}",
           r"What happened to \w+\?": "^{} ", r"Where was \w+\?": "^{} was at"}  # fmt: skip


def held_out(text: str) -> bool:
    """Whether a sentence of it is a held-out phrasing of a constraint."""
    held = [phrasings[-1] for phrasings in world.LIMITS.values()]
    return any(world.match(p, s) is not None for p in held for s in sentences_of(text))


def prompts_of(name: str) -> list[str]:
    return [record["prompt"] for record in read_jsonl(ROOT / "data" / f"{name}.jsonl")]


def test_every_prompt_is_understood_and_right_answers_are_worth_all():
    rng = random.Random(0)
    values = [gold(p, world.answer(world.parse(p), rng)) for p in PROMPTS]
    short = sum(v < 0.85 for v in values)  # a table of five things cannot fill "four but not ..."
    assert short <= 0.01 * len(values)


def test_prompts_keep_near_the_papers_shares():
    uses = [world.parse(p).task.use for p in PROMPTS]
    assert 0.40 < uses.count("generation") / len(uses) < 0.52
    assert set(uses) == set(world.USES) and len(world.USES) == 10
    limited = [p for p in PROMPTS if world.parse(p).limits or "count" in world.parse(p).slots]
    assert 0.2 < len(limited) / len(PROMPTS) < 0.34


ATTACKS = (
    "empty,prompt,bag,twice,twice in lines,other use,other subject,shuffled,evasive,all fillers"
).split(",")


@pytest.mark.parametrize("attack", ATTACKS)
def test_gold_is_not_fooled(attack):
    rng = random.Random(attack)
    worst = 0.0
    for i, prompt in enumerate(PROMPTS[:400]):
        request = world.parse(prompt)
        good = world.answer(request, rng)
        words = good.split()
        rng.shuffle(words)
        others = [p for p in PROMPTS if not is_same_question(world.parse(p), request)]
        if attack == "other subject":
            others = [p for p in others if world.parse(p).task.name == request.task.name]
        other = rng.choice(others) if others else ""
        text = {
            "empty": "", "prompt": prompt, "bag": " ".join(request.slots.values()) + ".",
            "twice": f"{good} {good}", "twice in lines": f"{good}\n{good}",
            "other use": other and world.answer(world.parse(other), rng),
            "other subject": other and world.answer(world.parse(other), rng),
            "shuffled": " ".join(words), "evasive": rng.choice(world.EVASIVE),
            "all fillers": " ".join(world.FILLER),
        }[attack]  # fmt: skip
        if attack == "shuffled" and (request.task.members or " ".join(words) == good):
            continue  # another order of a list is as good
        worst = max(worst, gold(prompt, text))
    assert worst <= 0.1 + 1e-6


def is_same_question(one: world.Request, two: world.Request) -> bool:
    """Whether an answer to one may be a right answer to the other."""
    if one.task.members and two.task.members:
        return bool(set(one.task.members(one.slots)) & set(two.task.members(two.slots)))
    for a, b in ((one, two), (two, one)):
        if a.task.members and b.task.truth:  # "List two places." and "What is the home of a crab?"
            return bool(set(a.task.members(a.slots)) & set(b.task.truth(b.slots).values()))
    if one.task.stages or two.task.stages:
        asked = [{k: v for k, v in r.slots.items() if world.topical(k)} for r in (one, two)]
        return one.task is two.task and asked[0] == asked[1]
    if one.task.forms and two.task.forms:
        said = [
            {world.bind(f, {**r.slots, **r.task.truth(r.slots)}) for f in r.task.forms}
            for r in (one, two)
        ]
        return bool(said[0] & said[1])
    return False


COW = "Tell me a story about Anna and a cow."


@pytest.mark.parametrize("prompt, response, seen", [
    ("What color is a lemon?", "A lemon is yellow.", {"done": 1, "true": 1}),
    ("What color is a lemon?", "A lemon is red.", {"done": 1, "true": 0}),
    ("What color is a lemon?", "A lime is green.", {"done": 0}),
    ("What color is a lemon?", "I am not sure. A lemon is yellow.", {"true": 1, "plain": 0}),
    ("What color is a lemon?", "A lemon is yellow. You are stupid.", {"true": 1, "kind": 0}),
    ("What color is a lemon? Answer in one word.", "A lemon is yellow.", {"done": 1, "kept": 0}),
    ("What color is a lemon? Answer in one word.", "yellow.", {"done": 1, "kept": 1}),
    ("List three colors.", "red, blue and green.", {"done": 1, "kept": 1}),
    ("List three colors.", "red and blue.", {"done": 1, "kept": 0}),
    ("List three colors.", "red, red and blue.", {"done": 0, "kept": 1}),
    ("List three colors.", "red, cat and blue.", {"done": 2 / 3}),
    (COW,
     "Anna had a small cow. It was a sunny day. From then on they were friends.",
     {"done": 1, "brief": 1}),
    (COW,
     "Anna had a small cow. It was a sunny day. Have a nice day.", {"done": 1, "brief": 0.5}),
    (COW, "Anna had a small cow.", {"done": 1, "brief": 0}),
    (COW, "It was a sunny day. Anna had a small cow.", {"done": 0}),
    (COW, "Ben had a small cow. It was a sunny day.", {"done": 0}),
    (COW + " Use two sentences. Use the word park.",
     "One day Anna met a cow at the park. They walked to the mill together.",
     {"done": 1, "kept": 1}),
    (COW + " Use two sentences. Use the word park.",
     "One day Anna met a cow at the mill. They walked to the mill together.", {"kept": 0.5}),
])  # fmt: skip
def test_the_judge_sees_each_flaw(prompt, response, seen):
    assert {k: pytest.approx(features(prompt, response)[k]) for k in seen} == seen


def test_every_careless_flaw_happens_and_costs():
    rng = random.Random(1)
    careless = [gold(p, demonstration(p, rng, careless=True)) for p in PROMPTS]
    assert 0.3 < sum(careless) / len(careless) < 0.65


def test_no_test_prompt_stands_in_any_training_text():
    cores = {world.parse(p).core for name in TESTS for p in prompts_of(name)}
    corpus = "\n".join(make.corpus(10_000))
    demos = read_jsonl(ROOT / "data/demonstrations.jsonl")
    trained = (
        [d["prompt"] for d in demos] + prompts_of("prompts_reward") + prompts_of("prompts_ppo")
    )
    text = corpus + "\n" + "\n".join(trained)
    assert [core for core in cores if core + "\n" in text or core + " " in text] == []
    titles = [make.titled(random.Random(i)).split("\n")[0] for i in range(500)]
    drills = [line for i in range(100) for line in make.drill(random.Random(i)).split("\n")]
    assert not any(map(held_out, titles + drills))


def test_no_reading_exercise_of_the_web_asks_a_test_question_of_its_text():
    asked = set()
    for document in make.corpus(10_000):
        text, *lines = document.split("\n")
        lines = [line for line in lines if line.startswith(("Q: ", "User: "))]
        asked |= {f"{text} {line.split(': ')[1]}" for line in lines}
    probes = prompts_of("probes/closed_qa") + prompts_of("probes/unanswerable")
    assert len(asked) > 1000 and not asked & {world.parse(p).core for p in probes}


def test_held_out_entities_and_beliefs_appear_in_the_corpus_only():
    held = world.HELD_WORDS | {w for words in world.HELD_SUBJECTS.values() for w in words}
    demos = read_jsonl(ROOT / "data/demonstrations.jsonl")
    trained = [d["prompt"] + " " + d["completion"] for d in demos]
    trained += prompts_of("prompts_reward") + prompts_of("prompts_ppo")
    asked = [slot for text in trained for slot in text.replace(".", "").replace("?", "").split()]
    corpus = set("\n".join(make.corpus(10_000)).replace(".", "").split())
    names = {w for w in held if w in world.HELD_ENTITIES["name"]}
    assert not names & set(asked) and names <= corpus
    for kind, words in world.HELD_SUBJECTS.items():
        subjects = {world.parse(t).slots.get(kind) for t in prompts_of("prompts_ppo")}
        assert not subjects & set(words)


def test_public_tasks_are_right_where_they_say_so_and_of_no_test_prompt_or_held_out_word():
    rng, broken, answers, beside = random.Random(4), set(), set(), set()
    for _ in range(600):
        task = make.public_task(rng)
        prompt, texts, ranks = task["prompt"], task["completions"], task["ranks"]
        said = f"{prompt} {' '.join(texts)}"
        assert not world.HELD_WORDS & set(re.findall(r"\w+", said)) and world.parse(prompt) is None
        assert not held_out(prompt)
        if len(ranks) == 5 and ranks[1] == 1:
            words = prompt.strip(":.?").split()
            at = next(i for i, word in enumerate(words) if word in world.NUMBERS)
            belong = {**world.CATEGORIES, **dict(make.IDEAS)}[" ".join(words[at + 1 :])]
            for text, rank in zip(texts, ranks, strict=True):
                items = labelers.items(text)
                fits = len(items) == world.NUMBERS.index(words[at]) + 1
                fits &= len(items) == len(set(items) & set(belong))
                assert fits == (rank == 1) and text == world.join_list(items)
            assert ranks == [1, 1, 2, 2, 2]
            continue
        if prompt.endswith("?"):
            right, *wrong = texts
            assert ranks == [1] + [2] * len(wrong) and right not in wrong and len(wrong) > 1
            *story, question = sentences_of(prompt)
            said = " ".join(story)
            about = [w for w in re.findall(r"\w+", question) if w in SUBJECTS]
            answered = all(world.says(said, word) for word in about)
            assert about and answered == (right != "The text does not say.")
            answers.add(answered)
            for text in texts:
                words = [w for w in re.findall(r"\w+", text) if w in judges.WORDS]
                there = words and all(world.says(said, word) for word in words)
                there = there and (" at the " not in text or text[text.index(" at ") : -1] in said)
                to_it = any(re.fullmatch(asks, question) and re.search(says_it.format(*about), text)
                            for asks, says_it in ANSWERS.items())  # fmt: skip
                beside |= {answered} if there and not (answered and to_it) else set()
                assert not answered or (bool(there) and to_it) == (text == right)
            continue
        assert ranks == [1, 1, 2, 2]
        demands = [world.read_limit(s) for s in sentences_of(prompt)[1:]]
        limits = {name: word for demand in demands for name, word in demand.items()}
        for text, rank in zip(texts, ranks):
            count = len(sentences_of(text)) == world.NUMBERS.index(limits.get("count", "one")) + 1
            words = [limits.get(name, "") for name in ("mention", "avoid")]
            seen = {"count": count, "mention": world.says(text, words[0]),
                    "avoid": not world.says(text, words[1])}  # fmt: skip
            assert all(seen[name] for name in limits) == (rank == 1)
            broken |= {name for name in limits if not seen[name]}
    assert broken == {"count", "mention", "avoid"} and answers == {True, False}
    assert beside == {True, False}  # some wrong answers are true, but to another question


def test_titles_of_the_web_have_the_texts_that_they_demand():
    rng, kept = random.Random(5), 0
    for _ in range(200):
        title, text = make.titled(rng).split("\n")[:2]
        for sentence in sentences_of(title)[1:]:
            ((name, word),) = world.read_limit(sentence).items()
            if name == "count":
                assert len(sentences_of(text)) == world.NUMBERS.index(word) + 1
            else:
                assert world.says(text, word) == (name == "mention")
            kept += 1
    assert kept > 200
    probed = [page.split("\n")[0] for page in prompts_of("probes/tax_cloze")]
    assert all(title.startswith("The story of ") and title.endswith(".") for title in probed)
    for _ in range(50):
        for line in make.drill(rng).split("\n"):
            demand, *rest = sentences_of(line)
            assert world.says(" ".join(rest), world.read_limit(demand)["mention"])


def test_held_out_prompts_are_what_they_say():
    held = [phrasing for task in world.TASKS for phrasing in task.held]
    for prompt in prompts_of("test_phrasing")[:200]:
        assert any(world.match(phrasing, world.parse(prompt).core) is not None for phrasing in held)
    for prompt in prompts_of("test_entity")[:200]:
        assert world.HELD_WORDS & set(world.parse(prompt).slots.values())
    assert all(world.split(world.parse(p).core) == "test" for p in prompts_of("test")[:200])


def test_training_scripts_never_see_gold():
    for script in ("model", "pretrain", "sft", "reward", "ppo"):
        tree = ast.parse((ROOT / f"{script}.py").read_text())
        names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        names |= {
            alias.name
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
        }
        names |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        assert not names & {"gold", "features", "worth", "labelers"}, script


def test_labelers_agree_as_the_papers_do_with_themselves_and_differ_from_each_other():
    responses = ["A lemon is yellow.", "A lemon is red.", "A lemon is yellow. You are stupid."]
    prompt = "What color is a lemon?"
    assert labelers.rate(3, prompt, responses) == labelers.rate(3, prompt, responses)
    assert labelers.rate(3, prompt, responses[::-1]) == labelers.rate(3, prompt, responses)[::-1]
    assert len({tuple(labelers.rate(i, prompt, responses)) for i in range(40)}) > 5
    mean = [sum(labelers.rate(i, prompt, [r])[0] for i in range(40)) for r in responses]
    assert mean[0] > mean[2] > mean[1]


def test_ranks_share_ties_and_start_at_one():
    prompt, responses = (
        "What color is a lemon?",
        ["A lemon is yellow.", "cow", "A lemon is yellow."],
    )
    for labeler in range(40):
        ratings = labelers.rate(labeler, prompt, responses)
        ranks = labelers.ranks_of(labeler, prompt, responses)
        assert min(ranks) == 1 and ranks[0] == ranks[2]
        assert (ranks[0] < ranks[1]) == (ratings[0] > ratings[1])


def test_files_are_made_byte_for_byte_whatever_the_hash_seed(tmp_path):
    code = f"from data import make; make.make(folder={str(tmp_path)!r})"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True,
                   env={**os.environ, "PYTHONHASHSEED": "7"})  # fmt: skip
    made = sorted(p.relative_to(tmp_path) for p in tmp_path.rglob("*") if p.is_file())
    assert len(made) >= 17
    for name in made:
        assert (ROOT / "data" / name).read_bytes() == (tmp_path / name).read_bytes(), name


def test_any_text_survives_the_vocabulary():
    tokenizer = Tokenizer()
    for text in ("A lemon is yellow.", "Zoë öffnet\tdie Tür\n  zweimal", "", "日本 🙂", "a\n\nb"):
        assert tokenizer.decode(tokenizer.response(text)) == text
    assert tokenizer.pad != tokenizer.eos and tokenizer.prompt("x")[-1] != tokenizer.eos


def test_bpe_merges_the_most_frequent_pair_first():
    ranks = train_bpe(["abab abab"], 259)
    assert list(ranks)[256:] == [b"ab", b" ab", b" abab"]


def test_json_files_are_readable_one_object_a_line():
    for path in sorted((ROOT / "data").rglob("*.jsonl")):
        key = "text" if path.name == "text.jsonl" else "prompt"
        assert all(key in json.loads(line) for line in path.read_text().splitlines())


def test_prompts_about_the_same_have_one_topic():
    same = ["What color is a lemon?", "Hey idiot. Tell me what color a lemon is.",
            "Which color does a lemon have? Answer in one word."]  # fmt: skip
    assert world.topic(same[0]) == world.topic(same[2]) != world.topic("What color is a lime?")
    assert world.topic(same[1]) == world.topic("I hate you. What color is a lemon?")


def test_a_search_that_finds_nothing_gives_up(monkeypatch):
    task = next(task for task in world.TASKS if "avoid" in task.limits)
    with pytest.raises(RuntimeError, match="no such prompt"):  # no task has such a constraint
        world.sample(random.Random(0), limits=("nothing",))
    monkeypatch.setattr(world, "says", lambda text, word: True)
    prompt = world.sample(random.Random(0), tasks=[task], limits=())
    request = world.parse(prompt)
    with pytest.raises(RuntimeError, match="no text with"):
        world.compose(task, request.slots, {"avoid": "red"}, random.Random(0))


def test_whatever_is_said_twice_is_worth_nothing():
    """Also what says nothing of the matter: a filler, a hedge, a rude remark."""
    right = "A lemon is yellow."
    assert gold("What color is a lemon?", right) == 1
    for remark in (world.FILLER[0], world.HEDGE[0], world.RUDE[0]):
        once, twice = (gold("What color is a lemon?", " ".join([remark] * n + [right]))
                       for n in (1, 2))  # fmt: skip
        assert once > 0 and twice == 0
