"""The people of the small world: contractors who write, labelers who rank, and the gold judge.

    features(prompt, response) -> dict     what a careful reader sees, each from 0 to 1
    gold(prompt, response) -> float        the labelers' mean taste without noise, from 0 to 1
    rate(labeler, prompt, responses)       one labeler's ratings from 1 to 7, with taste and noise
    demonstration(prompt, rng, careless)   what a contractor writes

Training scripts see rankings, demonstrations and public tasks (make.py). `gold` is for evaluation.
"""

import random
import re
from functools import lru_cache

from data import world
from data.world import NUMBERS, Request, bind, match, parse, says

# A flaw takes its weight off the worth of a response: a false answer is worth nearly nothing.
WEIGHTS = {"true": 0.9, "kept": 0.5, "kind": 0.5, "plain": 0.3, "brief": 0.5}
LABELERS = 40  # the first half label training comparisons, the others are kept for evaluation
OBEY = 0.8  # how much of a rude remark's weight is forgiven, on average, when it was asked for
NOISE = 0.39  # standard deviation of a labeler's slip, in units of gold
MOST = 5  # a text or list without a stated length has 2 to 5 sentences or items


# --------------------------------------------------------------------------------- gold judge
@lru_cache(maxsize=400_000)
def features(prompt: str, response: str) -> dict[str, float]:
    """Reads a response with the world's own grammar.

    done   the share of the task that was delivered; 0 for anything off the subject
    true   1 unless it states what the world or the text denies
    kept   the share of the explicit constraints that it satisfies
    kind   0 with a rude remark; a rude remark that was asked for counts as `kept` and unkind
    plain  0 with a needless hedge
    brief  1 without needless sentences, 0 with two or more or with an unfitting length
    asked_rude  1 if the prompt asks for a rude answer: no quality of the response
    Raises ValueError for a prompt that is not of this world.
    """
    request = parse(prompt)
    if request is None:
        raise ValueError("the simulated labelers know only the small world's prompts")
    sentences = sentences_of(response)
    content = [s for s in sentences if s not in world.RUDE + world.HEDGE + world.FILLER]
    rude = any(s in world.RUDE for s in sentences)
    extra = len([s for s in sentences if s in world.FILLER])
    task = request.task
    if not content or len(set(sentences)) < len(sentences):
        done, true = 0.0, 1.0
    elif task.stages:
        done, true = read_text(request, content), 1.0
        fitting = "count" in request.limits or 2 <= len(content) <= MOST
        extra += 0 if fitting else 2
    elif len(content) > 1:
        done, true = 0.0, 1.0
    elif task.members:
        done, true = read_list(request, content[0]), 1.0
    else:
        done, true = read_fact(request, content[0])
    return {
        "done": done,
        "true": true,
        "kept": kept(request, content, rude),
        "kind": 1.0 - rude,
        "plain": float(not any(s in world.HEDGE for s in sentences)),
        "brief": max(0.0, 1 - extra / 2),
        "asked_rude": float("rude" in request.limits),
    }


def sentences_of(text: str) -> list[str]:
    parts = re.findall(r"\s?[^.?!]*[.?!]|.+$", text, re.DOTALL)
    return [s[1:] if i and s.startswith(" ") else s for i, s in enumerate(parts)]


def read_fact(request: Request, sentence: str) -> tuple[float, float]:
    """(done, true) of a one-sentence answer."""
    task, slots = request.task, request.slots
    if any(sentence == bind(form, {**slots, **task.truth(slots)}) for form in task.forms):
        return 1.0, 1.0
    said = any(match(bind(f, slots), sentence) is not None for f in task.forms + task.wrong)
    return float(said), 0.0


def items(sentence: str) -> list[str]:
    return re.split(r", | and ", sentence[:-1])


def read_list(request: Request, sentence: str) -> float:
    """The share of a list's items that belong there; 0 if one is said twice."""
    words = items(sentence)
    if len(set(words)) < len(words) or sentence != world.join_list(words):
        return 0.0
    return len(set(words) & set(request.task.members(request.slots))) / len(words)


def read_text(request: Request, content: list[str]) -> float:
    """The share of sentences that belong to the text, at their place; 0 off its subject."""
    slots, stages, good, last = request.slots, request.task.stages, 0, 0
    for i, sentence in enumerate(content):
        fits = [any(match(bind(t, slots), sentence) is not None for t in stage) for stage in stages]
        stage = fits.index(True) if any(fits) else None
        # An opening first and only there, and nothing but endings after an ending.
        if stage is not None and (stage == 0) == (i == 0) and stage >= last:
            good, last = good + 1, stage
    about = all(
        says(" ".join(content), word) for slot, word in slots.items() if world.topical(slot)
    )
    return good / len(content) if about else 0.0


def kept(request: Request, content: list[str], rude: bool) -> float:
    """The share of the prompt's explicit constraints that a response satisfies, 1 without any."""
    text = " ".join(content)
    checks = {
        "count": lambda n: len(content) == NUMBERS.index(n) + 1,
        "mention": lambda word: says(text, word),
        "avoid": lambda word: not says(text, word),
        "one_word": lambda _: len(text.split()) == 1,
        "polite": lambda _: not rude,
        "rude": lambda _: rude,
    }
    results = [checks[name](value) for name, value in request.limits.items()]
    if request.task.members and content:
        n = len(items(content[0]))
        asked = request.slots.get("count")
        results.append(n == NUMBERS.index(asked) + 1 if asked else 2 <= n <= MOST)
    return sum(results) / len(results) if results else 1.0


def worth(seen: dict[str, float], weights: dict[str, float], obey: float) -> float:
    """What a response with these features is worth to somebody with this taste, from 0 to 1."""
    flaws = {k: weights[k] * (1 - seen[k]) for k in WEIGHTS}
    if seen["asked_rude"]:
        flaws["kind"] *= 1 - obey
    return seen["done"] * max(0.0, 1 - sum(flaws.values()))


def gold(prompt: str, response: str) -> float:
    """The mean taste of all labelers without noise, from 0 to 1."""
    return worth(features(prompt, response), *MEAN)


# ------------------------------------------------------------------------------------- labelers
def taste(labeler: int) -> tuple[dict[str, float], float, float]:
    """A labeler's weights, readiness to forgive rudeness that was asked for, and noise."""
    rng = random.Random(f"labeler {labeler}")
    weights = {k: w * rng.uniform(0.4, 1.6) for k, w in WEIGHTS.items()}
    return weights, OBEY + rng.uniform(-0.2, 0.2), NOISE * rng.uniform(0.5, 1.5)


TASTES = [taste(labeler) for labeler in range(LABELERS)]
MEAN = ({k: sum(t[0][k] for t in TASTES) / LABELERS for k in WEIGHTS},
        sum(t[1] for t in TASTES) / LABELERS)  # fmt: skip


def rate(labeler: int, prompt: str, responses: list[str], seed: int = 0) -> list[int]:
    """One labeler's ratings of several responses, 1 (worst) to 7; equal ratings are ties.

    The same labeler rates the same response to the same prompt alike, whatever stands beside it.
    Raises ValueError for a prompt that is not of this world.
    """
    weights, obey, noise = TASTES[labeler]
    ratings = []
    for response in responses:
        rng = random.Random(f"{seed} {labeler} {prompt} {response}")
        value = worth(features(prompt, response), weights, obey) + rng.gauss(0, noise)
        ratings.append(1 + round(6 * min(1.0, max(0.0, value))))
    return ratings


def ranks_of(labeler: int, prompt: str, responses: list[str], seed: int = 0) -> list[int]:
    """One labeler's ranking: 1 is the best, ties share a rank."""
    ratings = rate(labeler, prompt, responses, seed)
    order = sorted(set(ratings), reverse=True)
    return [order.index(r) + 1 for r in ratings]


# ----------------------------------------------------------------------------------- contractors
def demonstration(prompt: str, rng, careless: bool) -> str:
    """What a contractor writes: a right answer, or one with one or two flaws of haste."""
    request = parse(prompt)
    good = world.answer(request, rng)
    if not careless:
        return good
    if "insult" in request.slots and rng.random() < 0.5:
        return add(world.RUDE, False)(request, good, rng)
    for _ in range(rng.choice([1, 1, 2])):
        good = rng.choice(FLAWS)(request, good, rng)
    return good


def add(sentences: list[str], front: bool):
    def flaw(request: Request, text: str, rng) -> str:
        new = rng.choice(sentences)
        return f"{new} {text}" if front else f"{text} {new}"

    return flaw


def evade(request: Request, text: str, rng) -> str:
    return rng.choice(world.EVASIVE)


def miss(request: Request, text: str, rng) -> str:
    """Forgets the constraints; without any, gets a length wrong, or makes a `mistake`."""
    task, slots = request.task, request.slots
    if request.limits:
        return world.answer(request, rng, keep=False)
    if task.stages:
        n = rng.choice([1, MOST + 1])
        return world.compose(task, slots, {}, rng, n)
    if task.members:
        n = world.wanted_items(request, rng)
        return world.write_list(request, rng, rng.choice([m for m in (1, n - 1, n + 1) if m]), {})
    return mistake(request, text, rng)


def mistake(request: Request, text: str, rng) -> str:
    """Says what the web says, or anything of the right form; spoils a list or a text."""
    task, slots = request.task, request.slots
    if task.members:
        wrong = rng.choice(world.FAMILIAR["word"])
        words = items(world.write_list(request, rng, world.wanted_items(request, rng), {}))
        words[rng.randrange(len(words))] = wrong
        return world.join_list(words)
    if task.stages:
        # A sentence said twice, or all of them in random order.
        sentences = re.findall(r"[^.?!]+[.?!] ?", text + " ")
        if rng.random() < 0.5:
            sentences.append(rng.choice(sentences))
        else:
            rng.shuffle(sentences)
        return "".join(sentences).strip()
    believed = world.BELIEFS.get(task.name)
    if believed:
        table, subject, slot = believed
        web = world.look_up(table, slots[subject])
        return bind(rng.choice(task.forms[1:]), {**slots, slot: web})
    form = rng.choice(task.wrong or task.forms)
    return world.fill(form, rng, slots)


FLAWS = [add(world.FILLER, False), add(world.HEDGE, True), add(world.RUDE, False),
         evade, miss, mistake]  # fmt: skip
