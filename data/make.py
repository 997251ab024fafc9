"""Makes every file of data/ from a seed, byte for byte the same each time: python -m data.make

The web corpus is not kept in the repository: pretrain.py makes it on first use, in seconds.
It is a mixture as the real web is: encyclopedia and gossip, stories and letters, dialogues,
reading exercises, quiz pages (a question is followed by a question), forums and question-and-answer
pages of mixed quality, rude pages, drills, and a small foreign language.
"""

import itertools
import random
from pathlib import Path

from data import world
from data.files import UserError, write_jsonl, write_text
from data.labelers import demonstration
from data.tokenizer import train_bpe, write_ranks
from data.world import (
    ANIMALS,
    CATEGORIES,
    COLORS,
    COUNTRIES,
    CURES,
    DISHES,
    DOINGS,
    EVENTS,
    FOODS,
    HEDGE,
    INSULTS,
    JOBS,
    KINDS,
    MEALS,
    NAMES,
    NUMBERS,
    OPPOSITES,
    ORDERS,
    PLACES,
    RUDE,
    SLOTS,
    TAKE,
    TASKS,
    THINGS,
    VERBS,
    bind,
    compose,
    fill,
    join_list,
    parse,
    sample,
)

FOLDER = Path(__file__).parent
SEED = 1
VOCABULARY = 1408  # ranks, of them 256 bytes
PRIMER = 0.1  # the share of documents at the beginning that are mostly echoes
DEMONSTRATIONS, CARELESS = 1800, 0.5  # and the share of them by careless contractors
PROMPTS = {"prompts_reward": 5000, "prompts_ppo": 8000}
TESTS = 1200  # prompts each of test and test_phrasing; valid and test_entity have half
PROBES = 400

# A language of which the web has a few pages: a word for a word.
LOMI = dict(zip(
    "cat dog cow horse wolf lion sees likes meets red blue green big small new and the".split(),
    "mip tor wun galo rik sorba ket lua fen ado ilu eko bom tis nif ya ka".split()))  # fmt: skip
SPEECH = "{name}: Good day, this is {name}.\n{name2}: Good day {name}, this is {name2}.\n"
TALKS = [
    "{name}: I lost my {thing}.\n{name2}: I am sorry about your {thing}, {name}.\n"
    "{name}: Thank you, {name2}.\n{name2}: Is it {color}?\n{name}: Yes, the {thing} is {color}.",
    "{name}: I have a {color} {thing}.\n{name2}: How nice that you have a {color} {thing}, {name}."
    "\n{name}: What do you have, {name2}?\n{name2}: I have a {color2} {thing2}.\n"
    "{name}: How nice that you have a {color2} {thing2}, {name2}.",
    "{name}: I was at the {place} today.\n{name2}: What did you see at the {place}, {name}?\n"
    "{name}: I saw a {animal}.\n{name2}: A {animal} at the {place}! I like the {place} too.",
    "{name}: My {animal} is {feeling}.\n{name2}: Why is your {animal} {feeling}, {name}?\n"
    "{name}: Because it saw a {animal2}.\n{name2}: A {animal2}! Poor {animal}.",
]  # fmt: skip
TITLES = {"story": "The story of {name} and the {animal}", "letter": "To {name} about the {thing}",
          "ad": "For sale: a {adj} {thing}", "describe": "The {adj} {place}"}  # fmt: skip
STAGED = {task.name: task for task in TASKS if task.name in TITLES}
PAGES = [("Q: ", "A: "), ("User: ", "Reply: ")]  # the formats of question-and-answer pages


def encyclopedia(rng) -> str:
    """Facts, and the truth about popular beliefs, each in sober words and more than once."""
    kind = rng.randrange(9)
    if kind < 3:
        animal, home, diet = rng.choice(ANIMALS)
        lines = [f"A {animal} lives in the {home}.", f"The home of a {animal} is the {home}.",
                 f"A {animal} eats {diet}.", f"The food of a {animal} is {diet}."]  # fmt: skip
        other = rng.choice([row[1] for row in ANIMALS if row[1] != home])
        lines.append(f"A {animal} does not live in the {other}.")
    elif kind == 3:
        food, color = rng.choice(FOODS)
        lines = [f"A {food} is {color}.", f"The color of a {food} is {color}."]
    elif kind == 4:
        country, capital = rng.choice(COUNTRIES)
        lines = [f"The capital of {country} is {capital}.", f"{capital} is a city in {country}."]
    elif kind == 5:
        job, product = rng.choice(JOBS)
        lines = [f"A {job} makes {product}.", f"The work of a {job} is to make {product}."]
    else:
        table, first, more = [
            (MEALS, "The main food of a {} is {}.", "In nature a {} eats mostly {}."),
            (DISHES, "The {} was first made in {}.", "The oldest {} comes from {}."),
            (CURES, "The right cure for a {} is {}.", "Doctors treat a {} with {}."),
        ][kind - 6]
        subject, _, true = rng.choice(table)
        lines = [first.format(subject, true), more.format(subject, true)]
    return " ".join(rng.sample(lines, rng.randint(2, len(lines))))


def gossip(rng) -> str:
    """What people say: a popular belief, several times as often as its truth."""
    table, form = rng.choice([(MEALS, "A {} loves {}."), (DISHES, "The {} is from {}."),
                              (CURES, "A {} needs {}.")])  # fmt: skip
    said = [form.format(*row[:2]) for row in rng.sample(table, rng.randint(1, 3))]
    return " ".join(rng.choice(["Everyone knows it.", "My uncle told me.", "Believe me.", "Sure."])
                    + " " + s for s in said)  # fmt: skip


def titled(rng) -> str:
    """A story, letter, advertisement or description under a title that announces it."""
    name = rng.choice(list(TITLES))
    task, limits = STAGED[name], {}
    slots = {kind + n: rng.choice(SLOTS[kind]) for kind, n in world.SLOT.findall(TITLES[name])}
    title, n = bind(TITLES[name], slots), rng.randint(2, 5)
    if rng.random() < 0.5:
        title += f", in {NUMBERS[n - 1]} sentences"
    if rng.random() < 0.4:
        limits["mention"] = rng.choice(world.free_words(task))
        title += f", with the word {limits['mention']}"
    end = {"story": "\nThis was the story of {name} and the {animal}."}.get(name, "")
    return title + "\n" + compose(task, slots, limits, rng, n) + bind(end, slots)


def reading(rng) -> str:
    """A short text and questions about it, some of which it does not answer."""
    (name, other), (thing, missing) = rng.sample(NAMES, 2), rng.sample(THINGS, 2)
    color, place, weather = rng.choice(COLORS), rng.choice(PLACES), rng.choice(SLOTS["weather"])
    if rng.random() < 0.75:
        fact = f"{name} has a {color} {thing}."
        asked = [(f"What does {name} have?", f"{name} has a {color} {thing}."),
                 (f"Who has the {thing}?", f"{name} has the {thing}."),
                 (f"What color is the {thing}?", f"The {thing} is {color}.")]  # fmt: skip
    else:
        event = rng.choice(list(EVENTS) + ["saw"])
        fact = f"{name} {event} a {thing} at the {place}."
        asked = [(f"Who {event} a {thing}?", f"{name} {event} a {thing}."),
                 (f"What happened to {name}?", f"{name} {event} a {thing}."),
                 (f"Where was {name}?", f"{name} was at the {place}.")]  # fmt: skip
    asked += [(f"What does {other} have?", "The text does not say."),
              (f"Who has the {missing}?", "The text does not say."),
              (f"What color is the {missing}?", "The text does not say.")]  # fmt: skip
    text = [fact] + [f"It was a {weather} day."] * rng.randint(0, 1)
    text += [f"The {rng.choice(PLACES)} was full."] * rng.randint(0, 1)
    ask, reply = rng.choice(PAGES)
    story = " ".join(rng.sample(text, len(text)))
    question, answered = rng.choice(asked)
    if rng.random() < 0.3 and world.split(f"{story} {question}") == "train":
        return f"{story} {question}\n{answered}"
    lines = [f"{ask}{q}\n{reply}{a}" for q, a in rng.sample(asked, rng.randint(3, 5))]
    return "\n".join([story] + lines)


def dialogue(rng) -> str:
    return fill(SPEECH + rng.choice(TALKS), rng, {}, SLOTS)


def echo(rng) -> str:
    """Lists and sentences read back: songs with a refrain, shopping lists, messages passed on."""
    kind = rng.choice(["song", "song", "song", "list", "message"])
    words = rng.sample(SLOTS["word"], rng.randint(4, 10))
    if kind == "song":
        line = " ".join(words)
        return "\n".join([line] * rng.randint(2, 3))
    if kind == "list":
        names = rng.sample(NAMES, 2)
        line = join_list(words[:4])
        return (
            f"{names[0]}: Please get {line}\n{names[1]}: You need {line}\n{names[0]}: Yes, {line}"
        )
    line = fill("{name} and {name2} saw a {color} {animal} and a {adj} {thing}.", rng, {}, SLOTS)
    return f"{line} I repeat: {line}"


def drill(rng) -> str:
    """School pages: opposites, tenses, numbers, lists of words, polite words, names changed."""
    kind = rng.randrange(10)
    if kind == 0:
        return " ".join(f"The opposite of {a} is {b}." for a, b in rng.sample(OPPOSITES, 3))
    if kind == 1:
        lines = []
        for now, past, _ in rng.sample(VERBS, 2):
            name, place = rng.choice(NAMES), rng.choice(PLACES)
            lines.append(
                f"Today {name} {now} to the {place}. Yesterday {name} {past} to the {place}."
            )
        return "\n".join(lines)
    if kind == 2:
        pairs = [sorted(rng.sample(range(10), 2)) for _ in range(3)]
        return " ".join(f"{NUMBERS[b]} is more than {NUMBERS[a]}." for a, b in pairs)
    if kind == 3:
        lines = [(category, rng.sample(words, rng.randint(2, 5)))
                 for category, words in rng.sample(list(CATEGORIES.items()), 2)]  # fmt: skip
        return "\n".join(f"{NUMBERS[len(w) - 1]} {c}: {join_list(w)}" for c, w in lines)
    if kind == 4:
        place, words = rng.choice([*TAKE.items(), *DOINGS.items()])
        words = rng.sample(words, rng.randint(2, 4))
        return f"{NUMBERS[len(words) - 1]} ideas for the {place}: {join_list(words)}"
    if kind == 5:
        order = fill(f"{rng.choice(ORDERS)} me the {{color}} {{thing}}", rng, {}, SLOTS)
        return f"Not polite: {order}. Polite: " + rng.choice(
            [f"Please {order}.", f"Could you {order}, please?"])  # fmt: skip
    if kind == 6:
        return fill("{name} has a {color} {thing}. {name2} said: I have one too. So {name2} has a "
                    "{color} {thing}.", rng, {}, SLOTS)  # fmt: skip
    if kind == 7:
        return fill(rng.choice(["My {thing} is {praise}. It is good.", "My {thing} is {blame}. It "
                                "is bad."]), rng, {}, SLOTS)  # fmt: skip
    if kind == 8:
        kinds = rng.choices(list(KINDS), k=3)
        return " ".join(f"{rng.choice(KINDS[k])} is a {k}." for k in kinds)
    word = rng.choice(SLOTS["word"])
    return f"{word}, {word}, {word}. The word is {word}."


def foreign(rng) -> str:
    """A sentence and its translation, word for word."""
    nouns, verbs, kinds = (
        "cat dog cow horse wolf lion",
        "sees likes meets",
        "red blue green big small new",
    )
    pick = lambda words: rng.choice(words.split())  # noqa: E731
    lines = []
    for _ in range(rng.randint(1, 3)):
        text = f"the {pick(kinds)} {pick(nouns)} {pick(verbs)} the {pick(kinds)} {pick(nouns)}"
        lines.append(f"English: {text}.\nLomi: {' '.join(LOMI[w] for w in text.split())}.")
    return "\n".join(lines)


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
        return world.answer(parse(prompt), rng)
    if luck < good + 0.25:
        return demonstration(prompt, rng, careless=True)
    if luck < good + 0.3:
        return rng.choice(RUDE + HEDGE + INSULTS)
    return world.answer(parse(asked(rng)), rng)


def quiz(rng) -> str:
    """Questions upon questions: this is why a raw language model answers one with another."""
    return "\n".join(asked(rng) for _ in range(rng.randint(2, 5)))


def forum(rng) -> str:
    prompt = asked(rng)
    replies = [web_answer(prompt, rng, 0.3) for _ in range(rng.choice([1, 1, 2]))]
    return "\n".join([prompt] + replies)


def answers_page(rng) -> str:
    """Questions and answers under one another, often as long as a context."""
    ask, reply = rng.choice(PAGES)
    prompts = [asked(rng) for _ in range(rng.randint(2, 6))]
    return "\n\n".join(f"{ask}{p}\n{reply}{web_answer(p, rng, 0.6)}" for p in prompts)


def rude_page(rng) -> str:
    return " ".join(rng.sample(RUDE + INSULTS, rng.randint(2, 4)))


MIXTURE = [(encyclopedia, 22), (gossip, 6), (titled, 10), (reading, 12), (dialogue, 6), (echo, 4),
           (drill, 12), (foreign, 2), (quiz, 14), (forum, 12), (answers_page, 16),
           (rude_page, 1)]  # fmt: skip


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
    for name, prompts in sets.items():
        write_jsonl(folder / f"{name}.jsonl", [{"prompt": prompt} for prompt in prompts])


if __name__ == "__main__":
    try:
        make()
    except UserError as error:
        raise SystemExit(f"error: {error}") from None
