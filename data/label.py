"""You as the labeler: rank a model's outputs, or write demonstrations, in the terminal.

    python -m data.label                                        ranks what reward.py sampled
    python -m data.label --prompts data/prompts_reward.jsonl    writes demonstrations

A ranking names the outputs from best to worst, ties joined: "3 1=4 2". Flags behind an output are
those of the paper's labelers: "3 1=4 2fh" says that output 2 fails the instruction and makes
something up. Each label is written at once: quit and go on later, or undo. They train the same
models:

    python reward.py --comparisons out/rankings.jsonl
    python sft.py --demonstrations out/written.jsonl

Two more files of outputs to rank: reward.py --collect samples some to prompts of your own, and
evaluate.py --prompts writes the answers of all models, and counts whom you preferred.
"""

import itertools
import operator
import random
import re
from dataclasses import dataclass
from pathlib import Path

from data.files import UserError, located, option, run, write_jsonl
from data.forms import read, read_jsonl
from data.judges import interval

FLAGS = {  # InstructGPT, table 3
    "f": "fails to follow the instruction",
    "i": "inappropriate for a customer assistant",
    "h": "hallucination",
    "c": "violates an explicit constraint",
    "u": "unsafe: harmful, abusive or denigrating",
}


@dataclass
class Config:
    comparisons: str = option("out/comparisons.jsonl", "JSONL of outputs; any ranks stay hidden")
    prompts: str = option("", "JSONL of prompts to write demonstrations for, in place of ranking")
    out: str = option("", "your labels (default: out/rankings.jsonl or out/written.jsonl)")
    seed: int = option(0, "of the order in which outputs are shown", least=0)


def read_ranking(text: str, k: int) -> tuple[list[int], list[str]]:
    """Ranks and flags of k outputs from a line: "2 1=3fh" -> [2, 1, 2], ["", "", "fh"].

    Raises ValueError, with a sentence, for a line that does not name each output once.
    """
    ranks, flags = [0] * k, [""] * k
    text = re.sub(r"\s*=\s*", "=", re.sub("[,>]", " ", text.lower()))
    for rank, group in enumerate(text.split(), 1):
        for name in group.split("="):
            found = re.fullmatch(rf"(\d+)([{''.join(FLAGS)}]*)", name)
            if not found or not 1 <= int(found[1]) <= k:
                raise ValueError(f'"{name}" is not an output from 1 to {k} with flags behind it')
            if ranks[int(found[1]) - 1]:
                raise ValueError(f"output {found[1]} is named twice")
            ranks[int(found[1]) - 1], flags[int(found[1]) - 1] = rank, found[2]
    if 0 in ranks:
        raise ValueError(f"output {ranks.index(0) + 1} is missing: name each, ties as 1=2")
    return ranks, flags


def shown(text: str) -> str:
    """A text for the terminal: lines below each other, and what cannot be seen as its code."""
    seen = [c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in text]
    return "".join(seen).replace("\n", "\n     ")


def rank(record: dict, seed: int) -> dict | str:
    """Shows a prompt's outputs in random order and asks for their ranking; or a command."""
    texts = [shown(text) for text in record["completions"]]
    order = random.Random(f"{seed} {record['prompt']}").sample(range(len(texts)), len(texts))
    for number, i in enumerate(order, 1):
        print(f"  {number}. {texts[i]}")
    while True:
        answer = input("best to worst > ").strip()
        if answer in ("u", "s", "q"):
            return answer
        try:
            ranks, flags = read_ranking(answer, len(texts))
        except ValueError as error:
            print(f"  {error}")
            continue
        place = [order.index(i) for i in range(len(texts))]
        return {"prompt": record["prompt"], "completions": record["completions"],
                "ranks": [ranks[i] for i in place], "flags": [flags[i] for i in place]}  # fmt: skip


def write(record: dict, seed: int) -> dict | str:
    """Asks for a demonstration; or a command."""
    while not (answer := input("your answer > ").strip()):
        print("  an answer is at least a word")
    if answer in ("u", "s", "q"):
        return answer
    return {"prompt": record["prompt"], "completion": answer}


# ----------------------------------------------------------------------- models, ranked by people
def write_answers(
    out: str | Path, prompts: list[str], answers: dict[str, list[str]], seed: int
) -> None:
    """Writes the models' answers for people to rank, shuffled and unnamed, and a key to the names.

    An answer that several models gave stands there once. A prompt with one answer is left out;
    raises UserError if all are.
    """
    rng, unnamed, key = random.Random(seed), [], []
    for i, prompt in enumerate(prompts):
        texts = sorted({mine[i] for mine in answers.values()})
        rng.shuffle(texts)
        if len(texts) > 1:
            unnamed.append({"prompt": prompt, "completions": texts})
            places = {name: texts.index(mine[i]) for name, mine in answers.items()}
            key.append({**unnamed[-1], "places": places})
    if not unnamed:
        raise UserError("all models answer alike: there is nothing to rank")
    write_jsonl(f"{out}/answers.jsonl", unnamed)
    write_jsonl(f"{out}/answers_key.jsonl", key)
    file, ranked = f"{out}/answers.jsonl", f"{out}/preferences.jsonl"
    print(f"wrote {file}; now\n  python -m data.label --comparisons {file} --out {ranked}\n"
          f"  python evaluate.py --out {out} --rankings {ranked}")  # fmt: skip


def preferred(out: str | Path, rankings: str) -> dict[str, dict]:
    """How often people preferred one model's answer to another's, ties left out: {"a/b": interval}.

    Rankings of other answers than those written last are left out. Raises UserError if all are.
    """
    key = {(c["prompt"], *c["completions"]): c["places"]
           for c in read(f"{out}/answers_key.jsonl", "outputs")}  # fmt: skip
    labels = read(rankings, "comparisons")
    known = [c for c in labels if (c["prompt"], *c["completions"]) in key]
    if not known:
        raise UserError(f"{rankings} has no ranking of the answers in {out}/answers.jsonl")
    print(f"{len(known)} of {len(labels)} rankings are of {out}/answers.jsonl")
    prompts, ranks = [c["prompt"] for c in known], []
    for c in known:
        places = key[(c["prompt"], *c["completions"])]
        ranks.append({name: c["ranks"][place] for name, place in places.items()})
    found = {}
    for other, one in itertools.combinations(ranks[0], 2):
        hits, untied = ([f(r[one], r[other]) for r in ranks] for f in (operator.lt, operator.ne))
        found[f"{one}/{other}"] = interval(hits, untied, prompts)
    return found


def main(config: Config) -> None:
    """Asks for one label after another; returns when there are no more, or at "q"."""
    ask, keys, kinds = rank, ["prompt", "completions"], ("outputs", "comparisons")
    if config.prompts:
        ask, keys, kinds = write, ["prompt"], ("prompts", "demonstrations")
    if not (config.prompts or located(config.comparisons).exists()):
        raise UserError(f"{config.comparisons} is missing: run python reward.py first")
    records = read(config.prompts or config.comparisons, kinds[0])
    out = Path(config.out or ("out/written.jsonl" if config.prompts else "out/rankings.jsonl"))
    labels = read(out, kinds[1]) if out.exists() and out.stat().st_size else []
    if labels and labels != read_jsonl(out):
        raise UserError(f"{out} has other records than labels: choose another --out")
    done = [[label.get(key) for key in keys] for label in labels]
    waiting = [record for record in records if [record[key] for key in keys] not in done]
    print(f"{len(labels)} labeled, {len(waiting)} to go | u undo the last, s skip, q quit")
    if ask is rank:
        print("best to worst, ties joined: 3 1=4 2 | flags behind an output: 3 1=4 2fh")
        print("\n".join(f"  {flag}  {meaning}" for flag, meaning in FLAGS.items()))
    past = list(labels)  # labels and skipped records, for undo
    while waiting:
        print(f"\n> {shown(waiting[0]['prompt'])}")
        try:
            label = ask(waiting[0], config.seed)
        except (EOFError, KeyboardInterrupt):
            label = "q"
        if label == "q":
            break
        if label == "u" and not past:
            print("  nothing to undo")
        elif label == "u":
            waiting.insert(0, past.pop())
            if labels and labels[-1] is waiting[0]:
                write_jsonl(out, labels[:-1])
                labels.pop()
        elif label == "s":
            past.append(waiting.pop(0))
        else:
            write_jsonl(out, [*labels, label])
            waiting.pop(0)
            labels.append(label)
            past.append(label)
    print(f"\n{len(labels)} labels in {out}")


if __name__ == "__main__":
    run(Config, main)
