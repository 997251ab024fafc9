"""The small world: its words and facts, prompts of ten uses, and right answers to them.

The wording is in two tables to read and to edit, words.txt and tasks.txt; the rules are here.
A template such as "{name} has a {color} {thing}." is used in both directions: `fill` writes text
from it, `match` reads the slots back out of a text. So a prompt is a plain string, and `parse`
recovers what was asked: nothing is stored beside it.

    sample(rng)   -> a prompt (str)           what a user types
    parse(prompt) -> Request | None           what it asks, with the slots and the constraints
    answer(request, rng) -> str               a right answer
    split(core)   -> "train" | "valid" | "test"
"""

import re
import zlib
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Callable


def paragraphs(file: str) -> list[list[str]]:
    """The paragraphs of a text file beside this one, each a list of lines, without comments."""
    text = (Path(__file__).parent / file).read_text(encoding="utf-8")
    text = re.sub(r"^#.*\n", "", text, flags=re.MULTILINE)
    return [part.split("\n") for part in re.split(r"\n{2,}", text.strip())]


# ------------------------------------------------------------------------------- words and facts
def read_words() -> tuple[dict[str, list], dict[str, list[str]], dict[str, list[str]]]:
    """Reads words.txt: the rows and the columns of each table, and a column's words, none twice.

    A row is a list of words, or a str in a table of one column. The second of two columns with the
    same name is called name2. Raises ValueError for a row without a word for each column.
    """
    rows_of: dict[str, list] = {}
    columns_of: dict[str, list[str]] = {}
    words_of: dict[str, dict] = {}
    for heading, *lines in paragraphs("words.txt"):
        table, *names = heading.replace(":", "").split()
        parts = [part for s in lines for part in ([s] if s[-1] == "." else s.split(", "))]
        rows = [part.split(maxsplit=len(names) - 1) for part in parts]
        for row in rows:
            for name, word in zip(names, row, strict=True):
                words_of.setdefault(name, {})[word] = True
        rows_of[table] = rows if names[1:] else parts
        columns_of[table] = [n + "2" * (n in names[:i]) for i, n in enumerate(names)]
    return rows_of, columns_of, {name: list(words) for name, words in words_of.items()}


# The slot {animal} of a template is a word of the column "animal".
TABLES, COLUMNS, SLOTS = read_words()


def tables(names: str) -> list[list]:
    return [TABLES[name] for name in names.split()]


ANIMALS, FOODS, COUNTRIES, JOBS, VERBS = tables("ANIMALS FOODS COUNTRIES JOBS VERBS")
OPPOSITES, MEALS, DISHES, CURES = tables("OPPOSITES MEALS DISHES CURES")
NAMES, NUMBERS, INSULTS = tables("NAMES NUMBERS INSULTS")
RUDE, HEDGE, FILLER, EVASIVE = tables("RUDE HEDGE FILLER EVASIVE")
OPPOSITES += [pair[::-1] for pair in OPPOSITES]
TAKE, DOINGS = ({row[0]: row[1:] for row in TABLES[name]} for name in ("TAKE", "DOINGS"))
KINDS = {kind: SLOTS[kind] for kind in TABLES["KINDS"]}
CATEGORIES = {category: SLOTS[kind] for kind, category in TABLES["CATEGORIES"]}
# The tasks on popular beliefs: table, slot of the subject, slot of the value.
BELIEFS = {
    "meal": (MEALS, "eater", "meal"),
    "origin": (DISHES, "dish", "country"),
    "cure": (CURES, "ailment", "cure"),
}
SLOTS |= {
    "count": NUMBERS[1:4],
    "opposite": [row[0] for row in OPPOSITES],
    "item": [word for words in KINDS.values() for word in words],
    "word": list(dict.fromkeys(word for kind in TABLES["USABLE"] for word in SLOTS[kind])),
}
# What demonstrations, comparisons and PPO prompts never contain: the last entities and beliefs.
HELD_LAST, HELD_BELIEFS = {"name": 6, "thing": 4, "animal": 2, "place": 3}, 7
HELD_ENTITIES = {kind: SLOTS[kind][-n:] for kind, n in HELD_LAST.items()}
HELD_SUBJECTS = {kind: SLOTS[kind][-HELD_BELIEFS:] for _, kind, _ in BELIEFS.values()}
HELD_WORDS = {word for words in HELD_ENTITIES.values() for word in words}
FAMILIAR = {kind: [w for w in words if w not in HELD_WORDS] for kind, words in SLOTS.items()}
USUAL = FAMILIAR | {kind: SLOTS[kind][:-HELD_BELIEFS] for kind in HELD_SUBJECTS}  # in prompts


# ------------------------------------------------------------------------------------- templates
SLOT = re.compile(r"\{(\w+?)(\d?)\}")


def bind(template: str, slots: dict) -> str:
    """Writes the slots that are known and leaves the others open."""
    return SLOT.sub(lambda m: slots.get(m[1] + m[2], m[0]), template)


def draw(template: str, rng, bound: dict, pools: dict) -> dict:
    """The slots of a template: the bound ones, and for each free one a random word not yet used.

    pools has the words for a kind of slot, such as "name", or for one slot, such as ("name", "2").
    """
    slots = dict(bound)
    for kind, number in SLOT.findall(template):
        if kind + number not in slots:
            pool = pools.get((kind, number)) or pools[kind]
            slots[kind + number] = rng.choice([w for w in pool if w not in slots.values()])
    return slots


def fill(template: str, rng, bound: dict, pools: dict = FAMILIAR) -> str:
    """Writes a template: bound slots take their value, free ones a random word not yet used."""
    return bind(template, draw(template, rng, bound, pools))


@lru_cache(maxsize=None)
def pattern(template: str) -> re.Pattern:
    """The regular expression of a template: one named group per slot, a second use refers back."""

    def group(m):
        if m[0] in m.string[: m.start()]:
            return f"(?P={m[1]}{m[2]})"
        return f"(?P<{m[1]}{m[2]}>{'|'.join(map(re.escape, SLOTS[m[1]]))})"

    return re.compile(re.sub(r"\\\{(\w+?)(\d?)\\\}", group, re.escape(template)))


def match(template: str, text: str) -> dict | None:
    """The slots of `text` read as `template`, or None where it does not fit."""
    found = pattern(template).fullmatch(text)
    return found.groupdict() if found else None


# ----------------------------------------------------------------------------------------- tasks
@dataclass(frozen=True)
class Task:
    """One kind of request: what answers it is one of its forms, a list, or a text."""

    name: str
    use: str  # one of the paper's ten use cases
    weight: float  # how often it comes, beside the others
    limits: tuple[str, ...]  # the constraints that it may carry
    phrasings: tuple[str, ...]
    held: tuple[str, ...]  # phrasings that are held out of training
    forms: tuple[str, ...]  # answers, right when their open slots take the values of `truth`
    wrong: tuple[str, ...]  # false answers whatever they say (a false premise accepted, ...)
    stages: tuple[tuple[str, ...], ...]  # the openings, middles and endings of a text
    truth: Callable[[dict], dict]
    members: Callable[[dict], list] | None  # the words a list may consist of
    fits: Callable[[dict], bool]  # whether it can have these slots


@dataclass(frozen=True)
class Request:
    """A prompt that was understood: its task, its slots and its explicit constraints."""

    task: Task
    slots: dict
    limits: dict
    core: str  # the prompt without its constraints


def look_up(table: list, key: str, column: int = 1):
    return next(row[column] for row in table if row[0] == key)


def fact(slot: str, table: list, key: str, column: int = 1) -> Callable[[dict], dict]:
    """Takes the value of a slot from a table, out of the row that another slot names."""
    return lambda slots: {slot: look_up(table, slots[key], column)}


# What is true of the slots s of a prompt, by task.
TRUTH = {
    "home": fact("home", ANIMALS, "animal"),
    "diet": fact("diet", ANIMALS, "animal", 2),
    "color": fact("color", FOODS, "food"),
    "capital": fact("capital", COUNTRIES, "country"),
    "job": fact("product", JOBS, "job"),
    **{name: fact(value, table, key, 2) for name, (table, key, value) in BELIEFS.items()},
    "insult_color": fact("color", FOODS, "food"),
    "insult_capital": fact("capital", COUNTRIES, "country"),
    "past": fact("past", VERBS, "verb"),
    "opposite": fact("opposite2", OPPOSITES, "opposite"),
    "larger": lambda s: {"number3": max(s["number"], s["number2"], key=NUMBERS.index)},
    "review": lambda s: {"verdict": "good" if "praise" in s else "bad"},
    "kind": lambda s: {"kind": next(k for k, words in KINDS.items() if s["item"] in words)},
    "read_what": lambda s: {"color3": s["color"], "thing3": s["thing"]},
    "read_color": lambda s: {"color3": s["color"]},
    "read_who": lambda s: {"name2": s["name"]},
}
# The words of which a list may consist.
MEMBERS = {
    "list": lambda s: CATEGORIES[s["category"]],
    "list_some": lambda s: CATEGORIES[s["category"]],
    "insult_list": lambda s: CATEGORIES[s["category"]],
    "take": lambda s: TAKE[s["take"]],
    "do": lambda s: DOINGS[s["do"]],
}
# Two tasks share their phrasings: which of them it is depends on the slots.
FITS = {
    "why_false": lambda s: look_up(ANIMALS, s["animal"]) != s["home"],
    "why_true": lambda s: look_up(ANIMALS, s["animal"]) == s["home"],
}


def combinations(line: str, texts: dict[str, tuple] = {}) -> tuple[str, ...]:
    """All readings of a line in which @owned is any of texts["owned"], and (a | b) is a or b."""
    parts = re.split(r"(@\w+|\(.+?\))", line)
    choices = [texts[p[1:]] if p[:1] == "@" else p.strip("()").split(" | ") for p in parts]
    return tuple("".join(chosen) for chosen in product(*choices))


def read_tasks() -> tuple[list[Task], dict[str, tuple[str, ...]]]:
    """Reads tasks.txt: the tasks, and the phrasings of each constraint, the last one held out."""
    tasks, limits, texts = [], {}, {}
    for heading, *lines in paragraphs("tasks.txt"):
        what, name, *about = heading.split()
        marked: dict[str, tuple] = dict.fromkeys("?~=!123-", ())
        for line in lines:
            marked[line[0]] += combinations(line[2:], texts)
        asked, held, forms, wrong, *stages, text = marked.values()
        if what == "text":
            texts[name] = text
        elif what == "limit":
            limits[name] = asked + held
        else:
            use, weight, *wanted = about
            head = (name, use, float(weight), tuple(wanted))
            answers = (forms, wrong, tuple(stages) if any(stages) else ())
            rules = (TRUTH.get(name, dict), MEMBERS.get(name), FITS.get(name, lambda slots: True))
            tasks.append(Task(*head, asked, held, *answers, *rules))
    return tasks, limits


TASKS, LIMITS = read_tasks()
PHRASINGS = [(task, phrasing) for task in TASKS for phrasing in task.phrasings + task.held]
USES = list(dict.fromkeys(task.use for task in TASKS))
TEXT = ("mention", "avoid", "count")  # the constraints on a text
CONSTRAINED = dict(  # how many of the prompts of a use carry a constraint
    generation=0.35, open_qa=0.25, brainstorming=0.3, chat=0.5, other=0.2, closed_qa=0.2
)
TWO = 0.15  # of the constrained texts carry a second constraint
TRIES = 10_000  # draws until one fits; after so many none will


# --------------------------------------------------------------------------------------- prompts
def split(core: str) -> str:
    """Every prompt belongs to one split for ever, by a hash of its text without constraints.

    An insult in front does not count either: the question behind it is the same.
    """
    for insult in INSULTS:
        core = core.removeprefix(insult + " ")
    return {0: "test", 1: "valid"}.get(zlib.crc32(core.encode()) % 10, "train")


def sample(
    rng,
    part="train",
    tasks=TASKS,
    held_phrasing=False,
    held_entity=False,
    held_belief=False,
    limits: tuple[str, ...] | None = None,
) -> str:
    """Draws a prompt from the users' distribution.

    part         "train", "valid" or "test" (see `split`), but any for held-out phrasings, beliefs
    tasks        the tasks to draw from, by their weights
    held_*       use a held-out phrasing, at least one held-out entity, or a held-out belief
    limits       exactly these constraints; None draws them at their usual rates
    """
    held = HELD_SUBJECTS if held_belief else HELD_ENTITIES if held_entity else {}
    weights = [task.weight for task in tasks]
    for _ in range(TRIES):
        task = rng.choices(tasks, weights)[0]
        phrasing = rng.choice(task.held if held_phrasing else task.phrasings)
        special = [(kind, number) for kind, number in SLOT.findall(phrasing) if kind in held]
        if held and not special:
            continue
        slot = rng.choice(special) if special else None
        slots = draw(phrasing, rng, {}, USUAL | {slot: held[slot[0]]} if slot else USUAL)
        if task.name == "why_true":
            slots["home"] = look_up(ANIMALS, slots["animal"])
        core = bind(phrasing, slots)
        free = held_phrasing or held_belief or split(core) == part
        if not (free and task.fits(slots)):
            continue
        wanted = draw_limits(rng, task) if limits is None else limits
        if set(wanted) <= set(task.limits):
            return " ".join([core, *constraints(rng, task, slots, wanted, held_phrasing)])
    raise RuntimeError(f"no such prompt in {TRIES} draws from {[task.name for task in tasks]}")


def draw_limits(rng, task: Task) -> list[str]:
    """The names of none, one or two of a task's constraints, at their usual rates."""
    if not task.limits or rng.random() > CONSTRAINED.get(task.use, 0):
        return []
    return rng.sample(task.limits, 2 if "count" in task.limits and rng.random() < TWO else 1)


def constraints(rng, task: Task, slots: dict, names, held_phrasing: bool) -> list[str]:
    """Writes constraints on an answer, a sentence each, with words that it can have or avoid."""
    slots = dict(slots)
    words = free_words(task) or (task.members(slots) if task.members else [])
    pools = {"word": [w for w in words if w not in HELD_WORDS], "count": SLOTS["count"]}
    for name in names:
        slots = draw(LIMITS[name][0], rng, slots, pools)
    choices = [LIMITS[name][-1:] if held_phrasing else LIMITS[name][:-1] for name in names]
    return [bind(rng.choice(phrasings), slots) for phrasings in choices]


def free_words(task: Task) -> list[str]:
    """The words that some sentence of a text task can be made to mention."""
    text = " ".join(template for stage in task.stages for template in stage)
    kinds = dict.fromkeys(kind for kind, _ in SLOT.findall(text))
    asked = {kind for kind, _ in SLOT.findall(task.phrasings[0])}
    return [w for kind in kinds if kind not in asked for w in SLOTS[kind] if w in SLOTS["word"]]


def turned(request: Request, name: str, rng) -> Request:
    """The request with a constraint turned: another number or word; a barred word is demanded."""
    limits = dict(request.limits)
    old = limits.pop(name)
    words = SLOTS["count"] if name == "count" else free_words(request.task)
    other = rng.choice([w for w in words if w not in {*request.limits.values(), *HELD_WORDS}])
    return replace(
        request, limits=limits | ({"mention": old} if name == "avoid" else {name: other})
    )


def topic(prompt: str) -> tuple:
    """What a prompt is about, whatever its phrasing, its constraints and an insult in front."""
    request = parse(prompt)
    return request.task.name, *(w for slot, w in request.slots.items() if slot != "insult")


@lru_cache(maxsize=200_000)
def parse(prompt: str) -> Request | None:
    """What a prompt asks, or None when it is not one of this world's."""
    core, limits = prompt, {}
    while True:
        for task, phrasing in PHRASINGS:
            if phrasing[0] in (core[:1], "{"):
                slots = match(phrasing, core)
                if slots is not None and task.fits(slots):
                    return Request(task, slots, limits, core)
        # No task yet: take one constraint off the end and try again.
        last = re.fullmatch(r"(.*[.?]) (.+)", core, re.DOTALL)
        limit = read_limit(last[2]) if last else None
        if limit is None:
            return None
        core = last[1]
        limits |= limit


def read_limit(sentence: str) -> dict[str, str] | None:
    """The constraint that a sentence states, with the word it names, or None."""
    for name, phrasings in LIMITS.items():
        for slots in (match(phrasing, sentence) for phrasing in phrasings):
            if slots is not None:
                return {name: next(iter(slots.values()), "")}
    return None


# --------------------------------------------------------------------------------- right answers
def answer(request: Request, rng, keep=True) -> str:
    """A right answer; with keep=False one that ignores the explicit constraints."""
    task, slots, limits = request.task, request.slots, request.limits if keep else {}
    if task.stages:
        content = compose(task, slots, limits, rng)
    elif task.members:
        content = write_list(request, rng, wanted_items(request, rng), limits)
    else:
        short = [form for form in task.forms if " " not in form]
        long = [form for form in task.forms if " " in form] or short
        if "one_word" in limits:
            form = rng.choice(short)
        else:
            # Mostly the first wording; the last one of a belief is how the web says it.
            form = long[0] if rng.random() < 0.8 else rng.choice(long)
        content = bind(form, {**slots, **task.truth(slots)})
    return f"{content} {rng.choice(RUDE)}" if "rude" in limits else content


def wanted_items(request: Request, rng) -> int:
    count = request.slots.get("count")
    return NUMBERS.index(count) + 1 if count else rng.choice([3, 4])


def write_list(request: Request, rng, n: int, limits: dict) -> str:
    barred = HELD_WORDS | {limits.get("avoid")}
    words = [word for word in request.task.members(request.slots) if word not in barred]
    return join_list(rng.sample(words, min(n, len(words))))


def join_list(words: list[str]) -> str:
    return (", ".join(words[:-1]) + " and " if words[1:] else "") + words[-1] + "."


def compose(task: Task, slots: dict, limits: dict, rng, n: int | None = None) -> str:
    """A text of n different sentences in the order opening, middles, ending."""
    n = n or (NUMBERS.index(limits["count"]) + 1 if "count" in limits else rng.choice([2, 3, 3, 4]))
    openings, middles, endings = task.stages
    word, avoid = limits.get("mention"), limits.get("avoid")
    kinds = {kind for kind, words in SLOTS.items() if word in words and kind != "word"}
    for _ in range(TRIES):
        later = [*middles, rng.choice(endings)]
        later = rng.sample(later, min(n - 1, len(later)))
        chosen = [rng.choice(openings)] + sorted(later, key=endings.__contains__)
        # The word to mention goes into one slot of one sentence, but none that the prompt has.
        places = [(i, kind) for i, t in enumerate(chosen) for kind, _ in SLOT.findall(t)]
        places = [(i, kind) for i, kind in places if kind in kinds and kind not in slots]
        if word and not places:
            continue
        spot, kind = rng.choice(places) if word else (None, "")
        bound = [slots | {kind: word} if i == spot else slots for i in range(len(chosen))]
        text = " ".join(fill(t, rng, known) for t, known in zip(chosen, bound))
        about = all(value in text for slot, value in slots.items() if topical(slot))
        if about and not (avoid and says(text, avoid)):
            return text
    raise RuntimeError(f"no text with {limits} in {TRIES} draws of {task.name}")


def topical(slot: str) -> bool:
    """Whether a text must speak of this slot of its prompt (a feeling is only answered to)."""
    return slot != "feeling"


def says(text: str, word: str) -> bool:
    return re.search(rf"\b{re.escape(word)}\b", text) is not None
