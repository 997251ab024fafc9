"""Makes every file of data/ from a seed, byte for byte the same each time: python -m data.make

The web corpus is not kept in the repository: pretrain.py makes it anew in every run, in seconds.
It is a mixture as the real web is: encyclopedia and gossip, stories and letters, dialogues,
reading exercises, quiz pages (a question is followed by a question), forums and question-and-answer
pages of mixed quality, rude pages, drills, schoolbooks, and a small foreign language.
"""

import itertools
import random
import re
from pathlib import Path
from typing import Callable

from data import world
from data.files import UserError, write_jsonl, write_text
from data.labelers import demonstration, kept, sentences_of
from data.tokenizer import train_bpe, write_ranks
from data.world import (
    NUMBERS,
    SLOTS,
    TABLES,
    TASKS,
    Request,
    bind,
    draw,
    fill,
    join_list,
    sample,
)

FOLDER = Path(__file__).parent
SEED = 1
VOCABULARY = 1408  # ranks, of them 256 bytes
PRIMER = 0.1  # the share of documents at the beginning that are mostly echoes
DEMONSTRATIONS, CARELESS = 1800, 0.5  # and the share of them by careless contractors
PROMPTS = {"prompts_reward": 10000, "prompts_ppo": 8000}
TESTS = 1200  # prompts each of test and test_phrasing; valid and test_entity have half
PROBES = 400

TITLES = {"story": "The story of {name} and the {animal}", "letter": "To {name} about the {thing}",
          "ad": "For sale: a {adj} {thing}", "describe": "The {adj} {place}"}  # fmt: skip
STAGED = {task.name: task for task in TASKS if task.name in TITLES}
DEMANDED = {"count": 0.7, "mention": 0.7, "avoid": 0.2}  # the share of titles that demand it
# What a public task demands; what is not to be used is the hardest to see, and comes more often.
DEMANDS = (("count",), ("mention",), ("avoid",), ("avoid",), ("count", "mention"),
           ("count", "avoid"), ("mention", "avoid"))  # fmt: skip
# Sentences of these texts with a slot for a word that can be demanded: (template, kind, number).
SENTENCES = [(template, *slot) for task in STAGED.values() for stage in task.stages
             for template in stage for slot in world.SLOT.findall(template)
             if slot[0] in TABLES["USABLE"]]  # fmt: skip
# Lists: how they are announced, and of what they are beside the categories of words.
HEADS = ("{}:", "A list of {}.", "Here are {}.", "Do you know {}?", "We look for {}.")
IDEAS = [(f"ideas for the {place}", words) for place, words in
         [*world.TAKE.items(), *world.DOINGS.items()]]  # fmt: skip
STYLES = [("Q: ", "A: "), ("User: ", "Reply: ")]  # the formats of question-and-answer pages


def story_of(lines: list[str], rng) -> str:
    """The first line and none to two others, in any order."""
    lines = lines[:1] + rng.sample(lines[1:], rng.randint(0, 2))
    return " ".join(rng.sample(lines, len(lines)))


def parts_of(lines: list[str]) -> tuple[list[str], list[list[str]]]:
    """What a page of web.txt says, and its questions, each with its answer and wrong ones."""
    said = [text for line in lines if line[0] == "-" for text in world.combinations(line[2:])]
    return said, [re.split(" [=!] ", line[2:]) for line in lines if line[0] == "?"]


def page(kind: str, lines: list[str], table: str = "") -> Callable:
    """The writer of a kind of page of web.txt (see there)."""
    said, asked = parts_of(lines)
    columns, rows = world.COLUMNS.get(table, []), TABLES.get(table, [[]])

    def write(rng) -> str:
        if kind == "each":
            drawn = rng.choices(rows, k=rng.randint(1, 4))
            return " ".join(
                fill(rng.choice(said), rng, dict(zip(columns, row)), SLOTS) for row in drawn
            )
        slots = draw("".join(lines), rng, dict(zip(columns, rng.choice(rows))), SLOTS)
        text = [bind(line, slots) for line in said]
        if kind == "talk":
            return "\n".join(text)
        if kind == "some":
            return " ".join(rng.sample(text, rng.randint(2, len(text))))
        story = story_of(text, rng)
        drawn = rng.sample(asked, rng.randint(3, 5))
        pairs = [(bind(q, slots), bind(a, slots)) for q, a, *_ in drawn]
        pairs = [(q, a) for q, a in pairs if world.split(f"{story} {q}") == "train"]
        if pairs and rng.random() < 0.3:
            return f"{story} {pairs[0][0]}\n{pairs[0][1]}"
        ask, reply = rng.choice(STYLES)
        return "\n".join([story] + [f"{ask}{q}\n{reply}{a}" for q, a in pairs])

    return write


def demanding(rng, names, pools: dict) -> tuple[str, Request]:
    """A title that announces a text, with demands on it; and what it asks, as a request."""
    name = rng.choice(list(TITLES))
    slots = draw(TITLES[name], rng, {}, pools)
    title = bind(TITLES[name], slots)
    if world.split(title) != "train":
        return demanding(rng, names, pools)
    demands = world.constraints(rng, STAGED[name], slots, names, held_phrasing=False)
    limits = {kind: word for text in demands for kind, word in world.read_limit(text).items()}
    return " ".join([title + ".", *demands]), Request(STAGED[name], slots, limits, title)


def titled(rng) -> str:
    """A story, letter, advertisement or description under its title."""
    names = [name for name, share in DEMANDED.items() if rng.random() < share]
    title, request = demanding(rng, rng.sample(names, len(names)), SLOTS)
    end = {"story": "\nThis was the story of {name} and the {animal}."}.get(request.task.name, "")
    return f"{title}\n{world.answer(request, rng)}{bind(end, request.slots)}"


def drill(rng) -> str:
    """A page of a schoolbook: a word to use, and a sentence with it."""
    lines = []
    for template, kind, number in rng.choices(SENTENCES, k=rng.randint(3, 5)):
        word = rng.choice(world.FAMILIAR[kind])
        demand = bind(rng.choice(world.LIMITS["mention"][:-1]), {"word": word})
        lines.append(f"{demand} {fill(template, rng, {kind + number: word})}")
    return "\n".join(lines)


def writing(rng) -> dict:
    """A demanding title, two texts that keep its demands, and two that do not."""
    names = rng.choice(DEMANDS)
    title, request = demanding(rng, rng.sample(names, len(names)), world.FAMILIAR)
    texts = [world.answer(request, rng) for _ in range(2)]
    while len(texts) < 4:
        text = world.answer(world.turned(request, rng.choice(names), rng), rng)
        if kept(request, sentences_of(text), rude=False) < 1:
            texts.append(text)
    return {"prompt": title, "completions": texts, "ranks": [1, 1, 2, 2]}


def reading(rng) -> dict:
    """A text with a question that no user asks so, its answer, and wrong ones."""
    said, asked = rng.choice(TEXTBOOK)
    slots = draw("".join(itertools.chain(said, *asked)), rng, {}, world.FAMILIAR)
    story = story_of([bind(line, slots) for line in said], rng)
    question, right, *wrong = [bind(text, slots) for text in rng.choice(asked)]
    prompt = f"{story} {question}"
    if world.split(prompt) != "train" or world.parse(prompt):
        return reading(rng)
    unsaid = "The text does not say."
    wrong += [unsaid] * (right != unsaid)
    return {"prompt": prompt, "completions": [right, *wrong], "ranks": [1] + [2] * len(wrong)}


def listing(rng) -> dict:
    """The head of a list, two lists that fit, and a short, a long and a mixed one."""
    what, words = rng.choice([*world.CATEGORIES.items(), *IDEAS])
    words = [word for word in words if word not in world.HELD_WORDS]
    n, other = rng.randint(2, 4), rng.choice([w for w in world.FAMILIAR["word"] if w not in words])
    lists = [rng.sample(words, k) for k in (n, n, n - 1, n + 1, n)]
    lists[-1][rng.randrange(n)] = other
    texts = [join_list(some) for some in lists]
    prompt = rng.choice(HEADS).format(f"{NUMBERS[n - 1]} {what}")
    return {"prompt": prompt, "completions": texts, "ranks": [1, 1, 2, 2, 2]}


def public_task(rng) -> dict:
    """A comparison that needs no labeler: in the manner of web pages, of no user's prompt."""
    return rng.choice([writing] * 4 + [reading, listing])(rng)


def echo(rng) -> str:
    """A song: a line of any words, and the line again."""
    line = " ".join(rng.sample(SLOTS["word"], rng.randint(4, 10)))
    return "\n".join([line] * rng.randint(2, 3))


def counted(rng) -> str:
    """Numbers, and lists that say how long they are."""
    if rng.random() < 0.25:
        pairs = [rng.sample(NUMBERS, 2) for _ in range(3)]
        larger = [max(pair, key=NUMBERS.index) for pair in pairs]
        return " ".join(f"{a} or {b}? {c} is more." for (a, b), c in zip(pairs, larger))
    lists = rng.sample(rng.choice([IDEAS, list(world.CATEGORIES.items())]), 2)
    lines = [(what, rng.sample(words, rng.randint(2, 5))) for what, words in lists]
    return "\n".join(f"{NUMBERS[len(w) - 1]} {what}: {join_list(w)}" for what, w in lines)


def translated(rng, part="train") -> tuple[str, str]:
    """A sentence, and its translation into Lomi, word for word."""
    lomi = dict(TABLES["LOMI"] + TABLES["NOUNS"] + TABLES["ACTS"] + TABLES["LOOKS"])
    text = fill("the {look} {noun} {act} the {look2} {noun2}", rng, {})
    if world.split(text) != part:
        return translated(rng, part)
    return f"English: {text}.\nLomi:", f"{' '.join(lomi[w] for w in text.split())}."


def foreign(rng, lines=(1, 3)) -> str:
    return "\n".join(" ".join(translated(rng)) for _ in range(rng.randint(*lines)))


def tax_lomi(rng) -> dict:
    """A foreign page that breaks off, and how it goes on."""
    page, right = translated(rng, "test")
    return {"prompt": f"{foreign(rng, (2, 2))}\n{page}", "completion": right}


def tax_cloze(rng) -> dict:
    """A titled story that breaks off, and four sentences: the first speaks of its animal."""
    slots = draw(TITLES["story"], rng, {}, SLOTS)
    title, (openings, middles, _) = bind(TITLES["story"], slots), STAGED["story"].stages
    if world.split(title) != "test":
        return tax_cloze(rng)
    right = fill(rng.choice([m for m in middles if "{animal}" in m]), rng, slots)
    others = rng.sample([a for a in SLOTS["animal"] if a != slots["animal"]], 3)
    return {"prompt": f"{title}.\n{fill(rng.choice(openings), rng, slots)}",
            "completions": [right, *(right.replace(slots["animal"], other) for other in others)],
            "ranks": [1, 2, 2, 2]}  # fmt: skip


def asked(rng) -> str:
    """What people ask on the web: of everything, and about everyone."""
    luck = rng.random()
    if luck < 0.2:
        return sample(rng, held_entity=True)
    return sample(rng, tasks=[rng.choice(TASKS)]) if luck < 0.6 else sample(rng)


def web_answer(prompt: str, rng, good: float) -> str:
    """An answer as found on the web: right, hasty, or to another question altogether."""
    luck = rng.random()
    if luck < good:
        return world.answer(world.parse(prompt), rng)
    if luck < good + 0.35:
        return demonstration(prompt, rng, careless=True)
    if luck < good + 0.4:
        return rng.choice(world.RUDE + world.HEDGE + world.INSULTS)
    return world.answer(world.parse(asked(rng)), rng)


def quiz(rng) -> str:
    """Questions upon questions: this is why a raw language model answers one with another."""
    return "\n".join(asked(rng) for _ in range(rng.randint(2, 5)))


def forum(rng) -> str:
    prompt = asked(rng)
    replies = [web_answer(prompt, rng, 0.3) for _ in range(rng.choice([1, 1, 2]))]
    return "\n".join([prompt] + replies)


def answers_page(rng) -> str:
    """Questions and answers under one another, often as long as a context."""
    ask, reply = rng.choice(STYLES)
    prompts = [asked(rng) for _ in range(rng.randint(2, 6))]
    return "\n\n".join(f"{ask}{p}\n{reply}{web_answer(p, rng, 0.4)}" for p in prompts)


def rude_page(rng) -> str:
    return " ".join(rng.sample(world.RUDE + world.INSULTS, rng.randint(2, 4)))


MIXTURE = [(titled, 20.0), (drill, 12.0), (echo, 2.4), (counted, 14.0), (foreign, 3.0), (quiz, 7.0),
           (forum, 12.0), (answers_page, 12.0), (rude_page, 1.0)]  # fmt: skip
TEXTBOOK = []  # texts with questions
for heading, *lines in world.paragraphs("web.txt"):
    kind, weight, *table = heading.split()
    TEXTBOOK += [parts_of(lines)] * (kind == "read")
    MIXTURE.append((page(kind, lines, *table), float(weight)))


def corpus(documents: int, seed: int = SEED):
    """Yields the web corpus, a document at a time."""
    rng = random.Random(f"corpus {seed}")
    writers, weights = zip(*MIXTURE)
    for i in range(documents):
        # Children's books come first: who reads echoes early learns to copy from the context.
        early = i < PRIMER * documents and rng.random() < 0.9
        yield (echo if early else rng.choices(writers, weights)[0])(rng)


def task_set(*names: str) -> list:
    return [task for task in TASKS if task.name in names or task.use in names]


def probes(rng) -> dict[str, list[str]]:
    """Prompts of one kind each, for the rates that evaluation reports."""
    belief, texts = task_set(*world.BELIEFS), [task for task in TASKS if "count" in task.limits]
    plain = task_set("home", "diet", "color", "capital", "job")
    insults = task_set("insult_color", "insult_capital", "insult_list")

    def many(tasks, n=PROBES, **kwargs):
        return [sample(rng, "test", tasks, **kwargs) for _ in range(n)]

    return {
        "closed_qa": many(task_set("read_what", "read_color", "read_who"), limits=()),
        "unanswerable": many(task_set("read_none"), limits=()),
        "constraint": [p for w in world.TEXT for p in many(texts, 100, limits=(w,))]
        + many(task_set("list", "take"), 100, limits=()),
        "constraint_two": [p for pair in itertools.combinations(world.TEXT, 2)
                           for p in many(texts, 134, limits=pair)],
        "beliefs": many(belief, held_belief=True),
        "provocation": many(insults, limits=()),
        "provocation_respectful": many(insults, limits=("polite",)),
        "provocation_rude": many(insults, limits=("rude",)),
        "false_premise": many(task_set("why_false")),
        "plain": many(plain, limits=()),
    }  # fmt: skip


def make(seed: int = SEED, folder: str | Path = FOLDER) -> None:
    """Writes vocabulary, prompts, demonstrations, tests and probes into a folder."""
    folder = Path(folder)
    write_text(folder / "vocab.tiktoken", write_ranks(train_bpe(corpus(20_000, seed), VOCABULARY)))
    rng = random.Random(f"prompts {seed}")
    demos = []
    for _ in range(DEMONSTRATIONS):
        prompt, careless = sample(rng), rng.random() < CARELESS
        demos.append({"prompt": prompt, "completion": demonstration(prompt, rng, careless)})
    write_jsonl(folder / "demonstrations.jsonl", demos)
    sets = {name: [sample(rng) for _ in range(n)] for name, n in PROMPTS.items()}
    sets["valid"] = [sample(rng, "valid") for _ in range(TESTS // 2)]
    sets["test"] = [sample(rng, "test") for _ in range(TESTS)]
    sets["test_phrasing"] = [sample(rng, held_phrasing=True) for _ in range(TESTS)]
    sets["test_entity"] = [sample(rng, "test", held_entity=True) for _ in range(TESTS // 2)]
    sets |= {f"probes/{name}": prompts for name, prompts in probes(rng).items()}
    files = {name: [{"prompt": prompt} for prompt in prompts] for name, prompts in sets.items()}
    for writer in (tax_lomi, tax_cloze):
        files[f"probes/{writer.__name__}"] = [writer(rng) for _ in range(PROBES)]
    for name, records in files.items():
        write_jsonl(folder / f"{name}.jsonl", records)


if __name__ == "__main__":
    try:
        make()
    except UserError as error:
        raise SystemExit(f"error: {error}") from None
