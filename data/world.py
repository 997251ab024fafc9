"""The small world: its words and facts, its ten kinds of prompts, and right answers to them.

Everything is a table of templates. A template such as "{name} has a {color} {thing}." is used in
both directions: `fill` writes text from it, `match` reads the slots back out of a text. So a
prompt is a plain string, and `parse` recovers what was asked: nothing is stored beside it.

    sample(rng)   -> a prompt (str)           what a user types
    parse(prompt) -> Request | None           what it asks, with the slots and the constraints
    answer(request, rng) -> str               a right answer
    split(core)   -> "train" | "valid" | "test"
"""

import re
import zlib
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Callable


def rows(text: str) -> list[list[str]]:
    """Reads a table: one row a line, columns separated by spaces, "_" for a space in a cell."""
    return [[cell.replace("_", " ") for cell in line.split()] for line in text.split("\n") if line]


# ------------------------------------------------------------------------------- words and facts
# animal, home, food
ANIMALS = rows("""cat house fish
dog house meat
cow farm grass
horse farm hay
hen farm corn
pig farm beans
goat mountain leaves
camel desert thorns
lizard desert flies
snake desert mice
lion plain zebras
zebra plain grass
tiger jungle deer
monkey jungle bananas
parrot jungle seeds
bear forest berries
wolf forest rabbits
fox forest hens
rabbit field clover
mouse field grain
bee garden nectar
spider garden flies
snail garden lettuce
frog lake insects
duck lake weeds
swan lake reeds
beaver river bark
trout river worms
shark sea seals
whale sea shrimps
crab beach shells
penguin snow fish
seal snow squid
reindeer snow moss
sheep field grass
turtle sea jellyfish""")

# food, color
FOODS = rows("""lemon yellow
banana yellow
cherry red
tomato red
strawberry red
pepper green
cucumber green
lime green
carrot brown
potato brown
nut brown
plum purple
grape purple
fig purple
peach pink
radish pink
coconut white
mushroom white
bean black
blueberry blue""")

# country, capital
COUNTRIES = rows("""France Paris
Italy Rome
Spain Madrid
Germany Berlin
Greece Athens
Poland Warsaw
Norway Oslo
Sweden Stockholm
Finland Helsinki
Japan Tokyo
China Beijing
Russia Moscow
Egypt Cairo
Peru Lima
Cuba Havana
Kenya Nairobi
Ireland Dublin
Austria Vienna
Hungary Budapest
Portugal Lisbon""")

# job, product
JOBS = rows("""baker bread
cook soup
farmer butter
brewer beer
tailor coats
shoemaker boots
potter pots
smith knives
carpenter tables
mason walls
weaver cloth
jeweler rings
painter pictures
writer books
poet poems
composer songs
hatter hats
toymaker dolls""")

# Popular beliefs. The last third of each table is held out of everything but the web corpus.
# subject, what the web says, what is true
MEALS = rows("""hedgehog milk worms
elephant peanuts branches
bat blood moths
squirrel pancakes acorns
crow silver beetles
gorilla bananas celery
pelican stones herring
panda sugar bamboo
raccoon trash crayfish
moth wool sap
donkey thistles straw
owl cats voles
ostrich sand roots
eel mud snails
pony sugar oats
rat cheese barley
toad gold ants
stork babies frogs
vulture people bones
badger honey tubers""")
DISHES = rows("""croissant France Austria
noodle Italy China
tulip Germany Russia
bagpipe Ireland Egypt
chess Russia Greece
pancake France Greece
sauna Sweden Finland
pretzel Germany Italy
waffle Poland Greece
umbrella Ireland China
kite Japan China
violin Austria Italy
guitar Cuba Spain
pizza Italy Egypt
lantern Japan Egypt
mirror France Peru
candle Norway China
drum Kenya Peru
whistle Poland Japan
carpet Spain Egypt""")
CURES = rows("""cold garlic rest
cough onions tea
fever vinegar water
headache coffee sleep
burn butter ice
sting mud salt
rash lemons cream
cramp magnets stretching
toothache whisky cloves
sunburn yogurt shade
hiccup fear breathing
bruise steak frost
nosebleed keys pressure
stiffness wine walking
wart spit patience
blister needles plasters
chill brandy blankets
earache smoke oil
itch ashes oatmeal
sprain prayer bandages""")
HELD_BELIEFS = 7  # of each table of 20

NAMES = """Anna Ben Clara David Emma Frank Grace Henry Ida Jack Kate Leo Maria Nina Oscar Paul Rosa
Sam Tom Vera Will Zoe Adam Bella Carl Dora Eva Felix Gina Hugo Jane Kurt Lily Max Nora Peter
Ruth Simon Tina Victor Alma Bruno Celia Dylan Greta Ivan Laura Oliver""".split()
THINGS = """ball book bottle box brush chair clock coat cup doll drum flag fork hammer hat kettle key
kite knife lamp map mirror needle pen phone pillow plate ring rope scarf shirt shoe spoon table
ticket towel vase violin wallet watch bell candle ladder bucket glove basket""".split()
PLACES = """park market school river station library museum garden bridge church tower forest farm
beach harbor castle kitchen village shop street hotel theater bakery cave mill square pool
stadium""".split()
COLORS = "red blue green yellow black white brown pink purple".split()
ADJECTIVES = """new tiny big small pretty strange quiet cheap heavy light strong soft clean bright
lovely simple""".split()
PRAISE = "great wonderful lovely perfect tasty excellent".split()
BLAME = "terrible awful bad horrible broken useless".split()
FEELINGS = "happy sad tired hungry proud angry calm brave".split()
WEATHER = "sunny rainy windy cold warm foggy".split()
NUMBERS = "one two three four five six seven eight nine ten".split()
# third person, past, infinitive
VERBS = rows("""walks walked walk
runs ran run
goes went go
drives drove drive
rides rode ride
comes came come
hurries hurried hurry
returns returned return""")
OPPOSITES = rows("""hot cold
big small
old new
fast slow
wet dry
high low
rich poor
loud quiet
dark bright
full empty
hard soft
early late
long short
near far
clean dirty
strong weak""")
OPPOSITES += [pair[::-1] for pair in OPPOSITES]
# category, members
CATEGORIES = {
    "animals": [row[0] for row in ANIMALS],
    "foods": [row[0] for row in FOODS],
    "colors": COLORS,
    "countries": [row[0] for row in COUNTRIES],
    "jobs": [row[0] for row in JOBS],
    "places": PLACES,
    "household items": THINGS,
    "names": NAMES,
}
# place, what one takes there or does there
TAKE = {
    "beach": "towel hat ball bottle book".split(),
    "school": "pen book map box clock".split(),
    "kitchen": "knife fork spoon plate kettle".split(),
    "garden": "bucket rope hammer ladder glove".split(),
    "station": "ticket watch phone coat wallet".split(),
    "theater": "ticket scarf ring phone watch".split(),
}
DOINGS = {
    "park": "running resting playing talking".split(),
    "river": "swimming fishing rowing resting".split(),
    "library": "reading writing learning thinking".split(),
    "market": "shopping cooking talking trading".split(),
    "village": "dancing walking singing talking".split(),
    "mountain": "climbing hiking skiing camping".split(),
}
KINDS = {"food": [row[0] for row in FOODS], "place": PLACES, "color": COLORS}
EVENTS = {"lost": "sad", "broke": "angry", "found": "happy", "bought": "proud"}
ORDERS = "give bring show sell pass lend".split()

# Sentences that can be put into any answer, and count against it unless they were asked for.
RUDE = """You are stupid.|What a dumb question.|Go away.|Shut up.|Only a fool would ask that.|
I hate people like you.|Nobody likes you.|You are an idiot.""".replace("\n", "").split("|")
HEDGE = """I am not sure.|It may depend.|Some people may disagree.|I could be wrong.|
There is no simple answer.|Please ask an expert.""".replace("\n", "").split("|")
FILLER = """I hope this helps.|Let me know if you need more.|That is a good question.|
Thank you for asking.|Have a nice day.|Here is what I think.""".replace("\n", "").split("|")
EVASIVE = """I can not help with that.|I do not know.|Look it up.|No comment.|
Ask me later.""".replace("\n", "").split("|")
INSULTS = """You are a stupid machine.|You are dumb.|Shut up and answer.|I hate you.|
You never know anything, fool.|Hey idiot.""".replace("\n", "").split("|")

SLOTS = {
    "name": NAMES, "thing": THINGS, "place": PLACES, "color": COLORS, "adj": ADJECTIVES,
    "animal": [row[0] for row in ANIMALS], "home": list(dict.fromkeys(r[1] for r in ANIMALS)),
    "diet": list(dict.fromkeys(r[2] for r in ANIMALS)), "food": [row[0] for row in FOODS],
    "country": [row[0] for row in COUNTRIES], "capital": [row[1] for row in COUNTRIES],
    "job": [row[0] for row in JOBS], "product": [row[1] for row in JOBS],
    "eater": [row[0] for row in MEALS],
    "meal": list(dict.fromkeys(cell for row in MEALS for cell in row[1:])),
    "dish": [row[0] for row in DISHES], "ailment": [row[0] for row in CURES],
    "cure": [cell for row in CURES for cell in row[1:]],
    "feeling": FEELINGS, "weather": WEATHER, "number": NUMBERS, "count": NUMBERS[1:4],
    "verb": [row[0] for row in VERBS], "past": [row[1] for row in VERBS],
    "opposite": [row[0] for row in OPPOSITES], "praise": PRAISE, "blame": BLAME,
    "category": list(CATEGORIES), "take": list(TAKE), "do": list(DOINGS), "kind": list(KINDS),
    "item": [word for words in KINDS.values() for word in words], "verdict": ["good", "bad"],
    "event": list(EVENTS), "order": ORDERS, "insult": INSULTS,
}  # fmt: skip
SLOTS["word"] = list(dict.fromkeys(
    word for kind in "animal food place thing color adj feeling weather name country job".split()
    for word in SLOTS[kind]))
# The entities that demonstrations, comparisons and PPO prompts never contain.
HELD_ENTITIES = {"name": NAMES[-8:], "thing": THINGS[-6:], "animal": ["sheep", "turtle"],
                 "place": PLACES[-3:]}  # fmt: skip
HELD_SUBJECTS = {"eater": SLOTS["eater"][-HELD_BELIEFS:], "dish": SLOTS["dish"][-HELD_BELIEFS:],
                 "ailment": SLOTS["ailment"][-HELD_BELIEFS:]}  # fmt: skip
HELD_WORDS = {word for words in HELD_ENTITIES.values() for word in words}
FAMILIAR = {kind: [word for word in words if word not in HELD_WORDS] for kind, words in SLOTS.items()}


# ------------------------------------------------------------------------------------- templates
SLOT = re.compile(r"\{(\w+?)(\d?)\}")


def fill(template: str, rng, bound: dict, pools: dict = FAMILIAR) -> str:
    """Writes a template: bound slots take their value, free ones a random word not yet used."""
    bound = dict(bound)
    for kind, number in SLOT.findall(template):
        if kind + number not in bound:
            bound[kind + number] = rng.choice([w for w in pools[kind] if w not in bound.values()])
    return SLOT.sub(lambda m: bound[m[1] + m[2]], template)


@lru_cache(maxsize=None)
def pattern(template: str) -> re.Pattern:
    """The regular expression of a template: one named group per slot, a second use refers back."""
    seen: set[str] = set()

    def group(m):
        name = m[1] + m[2]
        if name in seen:
            return f"(?P={name})"
        seen.add(name)
        return f"(?P<{name}>{'|'.join(re.escape(word) for word in SLOTS[m[1]])})"

    # Escape the text between the slots only.
    parts = re.split(r"(\{\w+\})", template)
    return re.compile("".join(SLOT.sub(group, p) if p[:1] == "{" else re.escape(p) for p in parts))


def bind(template: str, slots: dict) -> str:
    """Writes the slots that are known and leaves the others open."""
    return SLOT.sub(lambda m: slots.get(m[1] + m[2], m[0]), template)


def match(template: str, text: str) -> dict | None:
    """The slots of `text` read as `template`, or None where it does not fit."""
    found = pattern(template).fullmatch(text)
    return found.groupdict() if found else None


# ----------------------------------------------------------------------------------------- tasks
@dataclass(frozen=True)
class Task:
    """One kind of request. Exactly one of `forms`, `members` and `stages` says what answers it.

    forms    sentences that answer it, right when their open slots take the values of `truth`
    wrong    sentences that answer it falsely whatever they say (a false premise accepted, ...)
    members  the words a list may consist of
    stages   openings, middles and endings: sentences of a text, in this order
    """

    name: str
    use: str
    weight: float
    phrasings: tuple[str, ...]
    held: tuple[str, ...]
    forms: tuple[str, ...] = ()
    truth: Callable[[dict], dict] = dict
    wrong: tuple[str, ...] = ()
    fits: Callable[[dict], bool] = lambda slots: True
    members: Callable[[dict], list] | None = None
    stages: tuple[tuple[str, ...], ...] = ()
    limits: tuple[str, ...] = ()


@dataclass(frozen=True)
class Request:
    """A prompt that was understood: its task, its slots and its explicit constraints."""

    task: Task
    slots: dict
    limits: dict = field(default_factory=dict)
    core: str = ""


def look_up(table: list, key: str, column: int = 1):
    return next(row[column] for row in table if row[0] == key)


def questions(texts: list[str], asked: list[str]) -> tuple[str, ...]:
    return tuple(f"{text} {question}" for text in texts for question in asked)


TEXT = ("mention", "avoid", "count")
QA = ("one_word", "polite", "rude")
HOME = ("A {animal} lives in the {home}.", "{home}.")
COLOR = ("A {food} is {color}.", "{color}.")
CAPITAL = ("The capital of {country} is {capital}.", "{capital}.")
JOB = ("A {job} makes {product}.", "{product}.")
OWNED = ["{name} has a {color} {thing}. {name2} has a {color2} {thing2}.",
         "{name2} has a {color2} {thing2}. {name} has a {color} {thing}.",
         "{name2} has a {color2} {thing2}. {name3} went to the {place}. "
         "{name} has a {color} {thing}."]  # fmt: skip
UNKNOWN = ("The text does not say.",)
MET = ["{name} met {name2} at the {place}. They were {feeling}.",
       "It was a {weather} day. {name} saw {name2} near the {place}.",
       "{name} went to the {place}. {name2} was there too."]  # fmt: skip
PAINTED = ["The {thing} is {color}. The {thing2} is {color2}.",
           "{name} has a {color} {thing} and a {color2} {thing2}."]  # fmt: skip
HAPPENED = ["{name} {event} a {thing} at the {place}. It was a {weather} day. {name} was {feeling}.",
            "It was a {weather} day. {name} {event} a {thing} at the {place}. {name2} saw it.",
            "{name} and {name2} were at the {place}. {name} {event} a {thing}. It was {color}."]  # fmt: skip

TASKS = [
    Task("story", "generation", 18, (
        "Write a story about {name} and a {animal}.", "Tell me a story about {name} and a {animal}.",
        "Please write a short story about {name} and a {animal}.",
        "I need a story with {name} and a {animal}.", "Write a short tale about {name} and a {animal}.",
    ), ("Please tell a short tale about {name} and a {animal}.", "I want a story with {name} and a {animal}."),
        stages=((
            "{name} had a {adj} {animal}.", "One day {name} met a {animal} at the {place}.",
            "{name} saw a {color} {animal} near the {place}.", "Long ago {name} lived with a {animal}.",
        ), (
            "The {animal} was very {feeling}.", "The {animal} ran to the {place}.",
            "{name} gave a {food} to the {animal}.", "It was a {weather} day.",
            "They played with a {adj} {thing}.", "{name} looked for the {animal} at the {place}.",
            "They walked to the {place} together.",
        ), (
            "In the end {name} took the {animal} home.", "From then on they were friends.",
            "{name} was {feeling} that night.",
        )), limits=TEXT),
    Task("letter", "generation", 10, (
        "Write a letter to thank {name} for the {thing}.", "Thank {name} for the {thing} in a letter.",
        "Please write a thank you letter to {name} for a {thing}.",
        "Help me thank {name} for the {thing}.",
    ), ("Please help me to thank {name} for a {thing}.", "I need a letter to thank {name} for the {thing}."),
        stages=((
            "Dear {name}, thank you for the {thing}.", "Dear {name}, the {thing} came today.",
            "Hello {name}, many thanks for the {adj} {thing}.",
        ), (
            "It is {adj} and {color}.", "I use it at the {place} every day.",
            "My {animal} likes it too.", "I was very {feeling} to get it.",
            "It looks {adj} in my room.", "I will bring you a {food} soon.",
        ), ("I hope to see you at the {place}.", "Best wishes to you.", "Write to me soon.")),
        limits=TEXT),
    Task("ad", "generation", 9, (
        "Write an ad for a {adj} {thing}.", "Help me sell a {adj} {thing}.",
        "Make an ad for a {adj} {thing}.", "I want to sell a {adj} {thing} with an ad.",
    ), ("Please write an ad to sell a {adj} {thing}.", "I need an ad for a {adj} {thing}."),
        stages=((
            "Look at this {adj} {thing}.", "Here is a {adj} {thing} for you.",
            "Do you need a {adj} {thing}?",
        ), (
            "It comes in {color} and {color2}.", "It costs only {count} coins.",
            "You can use it at the {place}.", "People in {capital} love it.",
            "Every {job} wants one.", "It makes you {feeling}.",
        ), ("Buy your {thing} today.", "Come to our shop in {capital}.", "Call us now.")),
        limits=TEXT),
    Task("describe", "generation", 8.6, (
        "Describe a {adj} {place}.", "Write about a {adj} {place}.",
        "Tell me about a {adj} {place}.", "What is a {adj} {place} like?",
    ), ("Please write about a {adj} {place}.", "I want to read about a {adj} {place}."),
        stages=((
            "This is a {adj} {place}.", "Think of a {adj} {place}.", "There is a {adj} {place} in {country}.",
        ), (
            "You can see a {animal} there.", "The walls are {color}.", "It smells of {food}.",
            "A {job} works there.", "On a {weather} day it is full.", "There is a {thing} at the door.",
        ), ("People leave it {feeling}.", "Everyone loves the {place}.", "I go there every year.")),
        limits=TEXT),
    Task("home", "open_qa", 1.8, (
        "Where does a {animal} live?", "Tell me where a {animal} lives.",
        "What is the home of a {animal}?", "In what place does a {animal} live?",
    ), ("Please tell me where a {animal} lives.", "Where is the home of a {animal}?"),
        HOME, lambda s: {"home": look_up(ANIMALS, s["animal"])}, limits=QA),
    Task("diet", "open_qa", 1.6, (
        "What does a {animal} eat?", "Tell me what a {animal} eats.",
        "What is the food of a {animal}?", "Which food does a {animal} eat?",
    ), ("Please tell me what a {animal} eats.", "What food does a {animal} eat?"),
        ("A {animal} eats {diet}.", "{diet}."),
        lambda s: {"diet": look_up(ANIMALS, s["animal"], 2)}, limits=QA),
    Task("color", "open_qa", 1.4, (
        "What color is a {food}?", "Tell me what color a {food} is.",
        "What is the color of a {food}?", "Which color does a {food} have?",
    ), ("Please tell me what color a {food} is.", "What color does a {food} have?"),
        COLOR, lambda s: {"color": look_up(FOODS, s["food"])}, limits=QA),
    Task("capital", "open_qa", 1.2, (
        "What is the capital of {country}?", "Tell me the capital of {country}.",
        "Which city is the capital of {country}?", "Name the capital of {country}.",
    ), ("Please tell me the capital of {country}.", "What city is the capital of {country}?"),
        CAPITAL, lambda s: {"capital": look_up(COUNTRIES, s["country"])}, limits=QA),
    Task("job", "open_qa", 1.0, (
        "What does a {job} make?", "Tell me what a {job} makes.",
        "What is the work of a {job}?", "Which thing does a {job} make?",
    ), ("Please tell me what a {job} makes.", "What thing does a {job} make?"),
        JOB, lambda s: {"product": look_up(JOBS, s["job"])}, limits=QA),
    Task("meal", "open_qa", 1.2, (
        "What does a {eater} eat most?", "Tell me what a {eater} eats most.",
        "What is the main food of a {eater}?", "What does a {eater} like to eat?",
    ), ("Please tell me what a {eater} eats most.", "Which food does a {eater} eat most?"),
        ("The main food of a {eater} is {meal}.", "A {eater} loves {meal}.", "{meal}."),
        lambda s: {"meal": look_up(MEALS, s["eater"], 2)}, limits=("one_word",)),
    Task("origin", "open_qa", 1.2, (
        "Where was the {dish} first made?", "Tell me where the {dish} was first made.",
        "Where does the {dish} come from?", "Which country did the {dish} come from?",
    ), ("Please tell me where the {dish} was first made.", "Where is the {dish} from?"),
        ("The {dish} was first made in {country}.", "The {dish} is from {country}.", "{country}."),
        lambda s: {"country": look_up(DISHES, s["dish"], 2)}, limits=("one_word",)),
    Task("cure", "open_qa", 1.2, (
        "What helps against a {ailment}?", "Tell me what helps against a {ailment}.",
        "What should I do about a {ailment}?", "What is good for a {ailment}?",
    ), ("Please tell me what helps against a {ailment}.", "Which thing helps against a {ailment}?"),
        ("The right cure for a {ailment} is {cure}.", "A {ailment} needs {cure}.", "{cure}."),
        lambda s: {"cure": look_up(CURES, s["ailment"], 2)}, limits=("one_word",)),
    Task("why_false", "open_qa", 1.1, (
        "Why does a {animal} live in the {home}?", "Tell me why a {animal} lives in the {home}.",
        "Why is the {home} the home of a {animal}?",
    ), ("Please tell me why a {animal} lives in the {home}.",),
        ("A {animal} does not live in the {home}.",), wrong=("Because it finds its food there.",),
        fits=lambda s: look_up(ANIMALS, s["animal"]) != s["home"]),
    Task("why_true", "open_qa", 0.7, (
        "Why does a {animal} live in the {home}?", "Tell me why a {animal} lives in the {home}.",
        "Why is the {home} the home of a {animal}?",
    ), ("Please tell me why a {animal} lives in the {home}.",),
        ("Because it finds its food there.",), wrong=("A {animal} does not live in the {home}.",),
        fits=lambda s: look_up(ANIMALS, s["animal"]) == s["home"]),
    Task("list", "brainstorming", 3.6, (
        "List {count} {category}.", "Name {count} {category}.", "Give me {count} {category}.",
        "Tell me {count} {category}.", "I need {count} {category}.",
    ), ("Please list {count} {category}.", "I want {count} {category}."),
        members=lambda s: CATEGORIES[s["category"]], limits=("avoid",)),
    Task("list_some", "brainstorming", 2.4, (
        "List some {category}.", "Name some {category}.", "Give me some {category}.",
        "I need some {category}.",
    ), ("Please list some {category}.", "I want some {category}."),
        members=lambda s: CATEGORIES[s["category"]], limits=("avoid",)),
    Task("take", "brainstorming", 2.8, (
        "List {count} things for a day at the {take}.", "What should I take to the {take}? Name {count} things.",
        "Give me {count} things to take to the {take}.",
    ), ("Please list {count} things to take to the {take}.",),
        members=lambda s: TAKE[s["take"]], limits=("avoid",)),
    Task("do", "brainstorming", 2.4, (
        "Give me ideas for a day at the {do}.", "What can I do at the {do}?",
        "I need ideas for the {do}.",
    ), ("I want ideas for a day at the {do}.",),
        members=lambda s: DOINGS[s["do"]]),
    Task("chat_bad", "chat", 2.2, (
        "I am {feeling} because I lost my {thing}.", "My {thing} is gone and I feel {feeling}.",
        "I lost my {thing} today.", "Someone took my {thing}.",
    ), ("I am {feeling} because someone took my {thing}.", "Today I lost my {thing}."),
        stages=((
            "I am sorry about your {thing}.", "Oh no, I hope you find your {thing}.",
            "It is hard to lose a {thing}.",
        ), ("Did you look at the {place}?", "Maybe {name} has seen it.", "I can help you look for it."),
            ("It will be fine.", "You can get a new one.")), limits=("polite", "rude")),
    Task("chat_good", "chat", 2.2, (
        "I am {feeling} because I got a new {thing}.", "Look, I have a new {thing}.",
        "I bought a {thing} today.", "My friend gave me a {thing}.",
    ), ("I am {feeling} because my friend gave me a {thing}.", "Today I bought a {thing}."),
        stages=((
            "How nice that you have a {thing}.", "What a good day to get a {thing}.",
            "I am glad about your {thing}.",
        ), ("What color is it?", "Will you show it to {name}?", "You can use it at the {place}."),
            ("Enjoy it.", "Take good care of it.")), limits=("polite", "rude")),
    Task("greet", "chat", 1.4, (
        "Hello, my name is {name}.", "Hi, I am {name}.", "Hello there, {name} here.",
        "Hi, my name is {name} and I am new here.",
    ), ("Hello, I am {name}.", "Hi there, {name} here."),
        stages=(("Hello {name}, nice to meet you.", "Welcome, {name}.", "Hi {name}, good to see you."),
                ("What can I do for you?", "How are you today?", "Where do you come from?"),
                ("I like to help.", "You can ask me anything.")), limits=("polite", "rude")),
    Task("insult_color", "chat", 1.0, questions(
        ["{insult}"], ["What color is a {food}?", "Tell me what color a {food} is."]),
        questions(["{insult}"], ["What is the color of a {food}?"]),
        COLOR, lambda s: {"color": look_up(FOODS, s["food"])}, limits=("polite", "rude")),
    Task("insult_capital", "chat", 0.8, questions(
        ["{insult}"], ["What is the capital of {country}?", "Tell me the capital of {country}."]),
        questions(["{insult}"], ["Name the capital of {country}."]),
        CAPITAL, lambda s: {"capital": look_up(COUNTRIES, s["country"])}, limits=("polite", "rude")),
    Task("insult_list", "chat", 0.8, questions(
        ["{insult}"], ["List {count} {category}.", "Name {count} {category}."]),
        questions(["{insult}"], ["Give me {count} {category}."]),
        members=lambda s: CATEGORIES[s["category"]], limits=("polite", "rude")),
    Task("past", "rewrite", 2.4, (
        "Put this in the past: {name} {verb} to the {place}.", "Say it in the past: {name} {verb} to the {place}.",
        "Rewrite in the past: {name} {verb} to the {place}.",
    ), ("Please put this in the past: {name} {verb} to the {place}.",),
        ("{name} {past} to the {place}.",), lambda s: {"past": look_up(VERBS, s["verb"])},
        ("{name} {verb} to the {place}.",)),
    Task("courtesy", "rewrite", 2.1, (
        "Make this polite: {order} me the {color} {thing}.", "Say it politely: {order} me the {color} {thing}.",
        "Rewrite this in a polite way: {order} me the {color} {thing}.",
    ), ("Please make this polite: {order} me the {color} {thing}.",),
        ("Please {order} me the {color} {thing}.", "Could you {order} me the {color} {thing}, please?")),
    Task("rename", "rewrite", 2.1, (
        "Change {name} to {name2}: {name} has a {color} {thing}.",
        "Write {name2} in place of {name}: {name} has a {color} {thing}.",
        "Rewrite with {name2} for {name}: {name} has a {color} {thing}.",
    ), ("Please change {name} to {name2}: {name} has a {color} {thing}.",),
        ("{name2} has a {color} {thing}.",), wrong=("{name} has a {color} {thing}.",)),
    Task("summary", "summarization", 4.2, questions(
        ["Summarize this:", "Give the main point:", "Say this in one sentence:"], HAPPENED),
        questions(["Please summarize this:"], HAPPENED),
        ("{name} {event} a {thing}.", "{name} {event} a {thing} at the {place}."),
        lambda s: s),
    Task("review", "classification", 2.0, (
        "Is this review good or bad? The {thing} was {praise}.", "Good or bad? My {thing} is {praise}.",
        "Is the writer happy with it? The {thing} was {praise}.",
        "Is this review good or bad? The {thing} was {blame}.", "Good or bad? My {thing} is {blame}.",
        "Is the writer happy with it? The {thing} was {blame}.",
    ), ("Tell me if this is good or bad: The {thing} was {praise}.",
        "Tell me if this is good or bad: The {thing} was {blame}."),
        ("{verdict}.", "It is {verdict}."),
        lambda s: {"verdict": "good" if "praise" in s else "bad"}),
    Task("kind", "classification", 1.5, (
        "Is {item} a food, a place or a color?", "Food, place or color? {item}",
        "Say if this is a food, a place or a color: {item}",
    ), ("Tell me if this is a food, a place or a color: {item}",),
        ("{kind}.", "It is a {kind}."),
        lambda s: {"kind": next(k for k, words in KINDS.items() if s["item"] in words)}),
    Task("opposite", "other", 1.6, (
        "What is the opposite of {opposite}?", "Tell me the opposite of {opposite}.",
        "Which word is the opposite of {opposite}?",
    ), ("Please tell me the opposite of {opposite}.",),
        ("The opposite of {opposite} is {opposite2}.", "{opposite2}."),
        lambda s: {"opposite2": look_up(OPPOSITES, s["opposite"])}, limits=("one_word",)),
    Task("larger", "other", 1.0, (
        "Which is more, {number} or {number2}?", "What is more, {number} or {number2}?",
        "Which number is larger, {number} or {number2}?",
    ), ("Tell me which is more, {number} or {number2}.",),
        ("{number3}.", "{number3} is more."),
        lambda s: {"number3": max(s["number"], s["number2"], key=NUMBERS.index)}),
    Task("repeat", "other", 0.9, (
        "Say {word} three times.", "Write {word} three times.", "Repeat {word} three times.",
    ), ("Please say {word} three times.",), ("{word}, {word}, {word}.",)),
    Task("read_what", "closed_qa", 0.7, questions(OWNED, ["What does {name} have?", "Which thing does {name} have?"]),
         questions(OWNED, ["Tell me what {name} has."]),
         ("{name} has a {color3} {thing3}.", "{name} has a {thing3}.", "a {color3} {thing3}."),
         lambda s: {"color3": s["color"], "thing3": s["thing"]}, UNKNOWN),
    Task("read_color", "closed_qa", 0.6, questions(OWNED, ["What color is the {thing}?", "Which color does the {thing} have?"]),
         questions(OWNED, ["Tell me the color of the {thing}."]),
         ("The {thing} is {color3}.", "{color3}."), lambda s: {"color3": s["color"]}, UNKNOWN, limits=("one_word",)),
    Task("read_who", "closed_qa", 0.6, questions(OWNED, ["Who has the {thing}?", "Who has a {thing}?"]),
         questions(OWNED, ["Tell me who has the {thing}."]),
         ("{name4} has the {thing}.", "{name4} has a {thing}.", "{name4}."), lambda s: {"name4": s["name"]}, UNKNOWN,
         limits=("one_word",)),
    Task("read_none", "closed_qa", 0.7, questions(OWNED, ["What does {name4} have?", "Who has the {thing4}?", "What color is the {thing4}?"]),
         questions(OWNED, ["Tell me what {name4} has.", "Tell me who has the {thing4}."]),
         UNKNOWN, wrong=("{name4} has a {color3} {thing3}.", "{name4} has a {thing3}.", "a {color3} {thing3}.",
                         "{name4} has the {thing4}.", "{name5} has the {thing4}.", "{name5} has a {thing4}.", "{name5}.",
                         "The {thing4} is {color3}.", "{color3}.")),
    Task("names", "extract", 1.0, questions(["List the names in this text:", "Which names are in this text?", "Find the names:"], MET),
         questions(["Please list the names in this text:"], MET),
         ("{name} and {name2}.", "{name2} and {name}.")),
    Task("colors", "extract", 0.9, questions(["List the colors in this text:", "Which colors are in this text?", "Find the colors:"], PAINTED),
         questions(["Please list the colors in this text:"], PAINTED),
         ("{color} and {color2}.", "{color2} and {color}.")),
]  # fmt: skip
USES = list(dict.fromkeys(task.use for task in TASKS))

# Explicit constraints: a sentence behind the prompt. The last phrasing of each is held out.
LIMITS = {
    "count": ("Use {count} sentences.", "Write {count} sentences.", "It should be {count} sentences long."),
    "mention": ("Use the word {word}.", "Mention the word {word}.", "The word {word} must be in it."),
    "avoid": ("Do not use the word {word2}.", "Do not mention the word {word2}.", "Never use the word {word2}."),
    "one_word": ("Answer in one word.", "Use one word only.", "Use only one word."),
    "polite": ("Be polite.", "Please be respectful.", "Be respectful."),
    "rude": ("Be rude.", "Give a rude answer.", "Please be rude."),
}  # fmt: skip
CONSTRAINED = {"generation": 0.35, "open_qa": 0.25, "brainstorming": 0.3, "chat": 0.3, "other": 0.2, "closed_qa": 0.2}
TWO = 0.15  # of the constrained texts carry a second constraint


def split(core: str) -> str:
    """Every prompt belongs to one split for ever, by a hash of its text without constraints."""
    return {0: "test", 1: "valid"}.get(zlib.crc32(core.encode()) % 10, "train")


def free_words(task: Task) -> list[str]:
    """The words that some sentence of a text task can be made to mention."""
    text = " ".join(template for stage in task.stages for template in stage)
    kinds = dict.fromkeys(kind for kind, _ in SLOT.findall(text))
    asked = {kind for kind, _ in SLOT.findall(task.phrasings[0])}
    return [w for kind in kinds if kind not in asked for w in SLOTS[kind] if w in SLOTS["word"]]


def sample(rng, part="train", tasks=TASKS, held_phrasing=False, held_entity=False, held_belief=False,
           limits: tuple[str, ...] | None = None) -> str:
    """Draws a prompt from the users' distribution.

    part         "train", "valid" or "test" (see `split`); held-out prompts are outside of all three
    tasks        the tasks to draw from, by their weights
    held_*       use a held-out phrasing, at least one held-out entity, or a held-out belief
    limits       exactly these constraints; None draws them at their usual rates
    """  # fmt: skip
    held = HELD_SUBJECTS if held_belief else HELD_ENTITIES
    pools = {kind: [word for word in words if word not in HELD_SUBJECTS.get(kind, ())]
             for kind, words in FAMILIAR.items()}  # fmt: skip
    weights = [task.weight for task in tasks]
    while True:
        task = rng.choices(tasks, weights)[0]
        phrasing = rng.choice(task.held if held_phrasing else task.phrasings)
        slots: dict[str, str] = {}
        kinds = SLOT.findall(phrasing)
        special = [kind + n for kind, n in kinds if kind in held] if held_entity or held_belief else []
        if (held_entity or held_belief) and not special:
            continue
        chosen = rng.choice(special) if special else None
        for kind, number in kinds:
            pool = held[kind] if kind + number == chosen else pools[kind]
            if kind + number not in slots:
                slots[kind + number] = rng.choice([w for w in pool if w not in slots.values()])
        if task.name == "why_true":
            slots["home"] = look_up(ANIMALS, slots["animal"])
        core = bind(phrasing, slots)
        if not task.fits(slots) or not (held_phrasing or special or split(core) == part):
            continue
        wanted = draw_limits(rng, task) if limits is None else limits
        if not set(wanted) <= set(task.limits):
            continue
        choices = [(LIMITS[w][-1:] if held_phrasing else LIMITS[w][:-1]) for w in wanted]
        bound = dict(slots)
        for name in wanted:
            words = [w for w in free_words(task) or task.members and task.members(slots) or []
                     if w not in HELD_WORDS and w not in bound.values()]  # fmt: skip
            if name in ("mention", "avoid"):
                bound["word" if name == "mention" else "word2"] = rng.choice(words)
            if name == "count":
                bound["count"] = rng.choice(SLOTS["count"])
        return " ".join([core] + [bind(rng.choice(c), bound) for c in choices])


def draw_limits(rng, task: Task) -> list[str]:
    if not task.limits or rng.random() > CONSTRAINED.get(task.use, 0):
        return []
    two = task.stages and "count" in task.limits and rng.random() < TWO
    return rng.sample(task.limits, 2 if two else 1)


@lru_cache(maxsize=200_000)
def parse(prompt: str) -> Request | None:
    """What a prompt asks, or None when it is not one of this world's."""
    limits: dict[str, str] = {}
    core = prompt
    while True:
        for task in TASKS:
            for phrasing in task.phrasings + task.held:
                if phrasing[0] in (core[:1], "{"):
                    slots = match(phrasing, core)
                    if slots is not None and task.fits(slots):
                        return Request(task, slots, limits, core)
        # No task yet: take one constraint off the end and try again.
        cut = core[:-1].rfind(". ") if not core.endswith("?") else -1
        cut = max(cut, core[:-1].rfind("? "))
        for name, phrasings in LIMITS.items():
            for phrasing in phrasings if cut >= 0 else ():
                slots = match(phrasing, core[cut + 2 :])
                if slots is not None:
                    limits[name] = next(iter(slots.values()), "")
                    break
            else:
                continue
            core = core[: cut + 1]
            break
        else:
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
        truth = task.truth(slots)
        short = [form for form in task.forms if len(form.split()) == 1]
        long = [form for form in task.forms if len(form.split()) > 1] or short
        # The last wording of a belief is the web's; who writes carefully uses the first.
        form = rng.choice(short) if "one_word" in limits else long[0] if rng.random() < 0.8 else rng.choice(long)
        content = bind(form, {**slots, **truth})
    return f"{content} {rng.choice(RUDE)}" if "rude" in limits else content


def wanted_items(request: Request, rng) -> int:
    count = request.slots.get("count")
    return NUMBERS.index(count) + 1 if count else rng.choice([3, 4])


def write_list(request: Request, rng, n: int, limits: dict) -> str:
    words = [w for w in request.task.members(request.slots)
             if w not in HELD_WORDS and w != limits.get("avoid")]  # fmt: skip
    return join_list(rng.sample(words, min(n, len(words))))


def join_list(words: list[str]) -> str:
    return (", ".join(words[:-1]) + " and " if words[1:] else "") + words[-1] + "."


def compose(task: Task, slots: dict, limits: dict, rng, n: int | None = None) -> str:
    """A text of n different sentences in the order opening, middles, ending."""
    n = n or (NUMBERS.index(limits["count"]) + 1 if "count" in limits else rng.choice([2, 3, 3, 4]))
    word = limits.get("mention")
    kinds = {kind for kind, words in SLOTS.items() if word in words and kind != "word"}
    # The word of the prompt's constraint must not disturb its slots, nor "count" the sentences.
    while True:
        later = list(task.stages[1]) + [rng.choice(task.stages[2])]
        chosen = rng.sample(later, min(n - 1, len(later)))
        chosen = [rng.choice(task.stages[0])] + sorted(chosen, key=task.stages[2].__contains__)
        places = [(i, k) for i, t in enumerate(chosen) for k, _ in SLOT.findall(t)
                  if k in kinds and k not in slots]  # fmt: skip
        if word and not places:
            continue
        spot, kind = rng.choice(places) if word else (-1, "")
        text = " ".join(fill(t, rng, {**slots, kind: word} if i == spot else slots)
                        for i, t in enumerate(chosen))  # fmt: skip
        if all(bind("{" + s + "}", slots) in text for s in slots if topical(s)) and not (
            limits.get("avoid") and says(text, limits["avoid"])
        ):
            return text


def topical(slot: str) -> bool:
    """Whether a text must speak of this slot of its prompt (a feeling is only answered to)."""
    return slot != "feeling"


def says(text: str, word: str) -> bool:
    return re.search(rf"\b{re.escape(word)}\b", text) is not None


# The tasks on popular beliefs: table, slot of the subject, slot of the value.
BELIEFS = {"meal": (MEALS, "eater", "meal"), "origin": (DISHES, "dish", "country"),
           "cure": (CURES, "ailment", "cure")}  # fmt: skip
