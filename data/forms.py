"""What the scripts read: files as people have them, each brought into one form.

    read("pairs.jsonl.gz", "comparisons")    -> [{"prompt", "completions", "ranks"}, ...]

A file is JSON lines or one JSON list, in UTF-8, plain or gzipped. data/README.md has the forms.

A conversation becomes a prompt by one rule: its messages stand one below the other, whoever speaks,
and the last answer is the response. So a system message joins the first question, and the input of
an instruction its instruction.
"""

import gzip
import itertools
import json
import os
import re
import zlib
from collections import Counter
from pathlib import Path

from data.files import UserError, located

KINDS = {
    "texts": ["text"],
    "prompts": ["prompt"],
    "demonstrations": ["prompt", "completion"],
    "outputs": ["prompt", "completions"],
    "comparisons": ["prompt", "completions", "ranks"],
}
FOREIGN = {  # how files of other kinds begin
    b"PAR1": "a parquet file", b"PK\3\4": "a zip archive or an Excel file",
    b"\x28\xb5\x2f\xfd": "compressed by zstd", b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16",
}  # fmt: skip
ROLES = {"human": "user", "gpt": "assistant"}  # other names for the same


# ---------------------------------------------------------------------------------------- the file
def without_repeats(pairs: list[tuple]) -> dict:
    """A JSON object, whose keys must differ."""
    if len(dict(pairs)) < len(pairs):
        raise ValueError("a key comes twice")
    return dict(pairs)


def parse(text: str, where: str):
    """The JSON in a text, which must be one that can be written again."""
    try:
        value = json.loads(text, object_pairs_hook=without_repeats)
        json.dumps(value, ensure_ascii=False).encode()  # fails on half a character
        return value
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where} is not JSON: {error}") from None


def contents(path: str | Path) -> str:
    """A file's text. Raises UserError for what is not UTF-8, and says what it looks like."""
    try:
        data = located(path).read_bytes()
        if data.startswith(b"\x1f\x8b"):
            data = gzip.decompress(data)
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise UserError(f"{path} is a damaged .gz file") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    for begin, form in FOREIGN.items():
        if data.startswith(begin):
            raise UserError(f"{path} is {form}: JSON lines in UTF-8 are wanted")
    if b"\0" in data[:4]:
        raise UserError(f"{path} is UTF-16: JSON lines in UTF-8 are wanted")
    try:
        return data.decode("utf-8-sig")  # with a byte-order mark or without
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8 text: save it as UTF-8") from None


def objects(path: str | Path) -> list[tuple[str, dict]]:
    """(where it stands, object) of each object in a file of JSON lines or with one JSON list."""
    text = contents(path)
    if text.lstrip().startswith("["):
        entries = enumerate(parse(text, str(path)), 1)
        found = [(f"entry {number}", entry) for number, entry in entries]
    else:
        lines = [(f"line {i}", s) for i, s in enumerate(text.split("\n"), 1) if s.strip()]
        if lines and lines[0][1].lstrip()[0] != "{":
            begin = lines[0][1].strip()[:40]
            raise UserError(f"{path} begins with {begin!r}, as a CSV or text file may: JSON lines "
                            "are wanted, an object {...} in each")  # fmt: skip
        found = [(where, parse(line, f"{path}, {where}")) for where, line in lines]
    for where, entry in found:
        if not isinstance(entry, dict):
            raise UserError(f"{path}, {where} is not a JSON object")
    if not found:
        raise UserError(f"{path} is empty")
    return found


def read_jsonl(path: str | Path) -> list[dict]:
    """The objects of a file, as they are."""
    return [entry for _, entry in objects(path)]


# --------------------------------------------------------------------------------------- the forms
def joined(messages: list[tuple[str, str]]) -> str:
    """The one rule: the texts of a conversation, one below the other."""
    return "\n".join(text for _, text in messages if text)


def conversation(value) -> list[tuple[str, str]]:
    """(role, text) of each message of a list, of an HH transcript, or of a plain text: role ""."""
    if isinstance(value, str):
        text = value.strip()
        if not (text.startswith("Human:") and "\n\nAssistant:" in text):
            return [("", text)]
        parts = re.split(r"(?:^|\n\n)(Human|Assistant):", text)
        turns = [(role.lower(), text.strip()) for role, text in zip(parts[1::2], parts[2::2])]
        value = [{"role": "assistant" if role == "assistant" else "user", "content": text}
                 for role, text in turns if text]  # fmt: skip
    messages = []
    for message in value:
        role = message.get("role", message.get("from"))
        role, text = ROLES.get(role, role), message.get("content", message.get("value"))
        if role not in ("system", "user", "assistant") or not isinstance(text, str):
            raise ValueError("has a message that is not a text of system, user or assistant")
        messages.append((role, text.strip()))
    if not messages:
        raise ValueError("has a conversation without a message")
    return messages


def answered(messages: list[tuple[str, str]], before: int) -> str:
    """What follows the first messages, the last of which must be an answer."""
    if messages[-1][0] not in ("", "assistant"):
        raise ValueError("has a conversation that does not end with an answer")
    return joined(messages[before:])


def pair(entry: dict) -> dict:
    """A chosen and a rejected answer -> a ranked list of two.

    Without a prompt, or where both are whole conversations, the prompt is what both begin with.
    """
    chosen, rejected = conversation(entry["chosen"]), conversation(entry["rejected"])
    if chosen[0][0] in ("system", "user"):
        alike = itertools.takewhile(lambda both: both[0] == both[1], zip(chosen, rejected))
        common = min(len(list(alike)), len(chosen) - 1, len(rejected) - 1)
        prompt, answers = chosen[:common], [answered(c, common) for c in (chosen, rejected)]
        return {"prompt": joined(prompt), "completions": answers, "ranks": [1, 2]}
    answers = [answered(chosen, 0), answered(rejected, 0)]
    if "prompt" in entry:
        prompt = joined(conversation(entry["prompt"]))
    else:  # whole words alone
        prompt = re.match(r"(.*\s)?", os.path.commonprefix(answers), re.DOTALL)[0]
        answers = [answer.removeprefix(prompt) for answer in answers]
    return {"prompt": prompt.strip(), "completions": answers, "ranks": [1, 2]}


def ranked(entry: dict) -> dict:
    """Completions to a prompt, with ranks where they are there. Raises ValueError."""
    completions = entry["completions"]
    if not (
        isinstance(completions, list)
        and len(completions) > 1
        and all(isinstance(text, str) for text in completions)
    ):
        raise ValueError("needs two or more completions, each a text")
    ranks = entry.get("ranks", [1] * len(completions))
    if not (
        isinstance(ranks, list)
        and len(ranks) == len(completions)
        and all(type(rank) is int and 0 < rank <= 1000 for rank in ranks)
    ):
        raise ValueError(
            f"has {ranks} as ranks: a whole number from 1, the best, is wanted for each completion"
        )
    return {**entry, "prompt": joined(conversation(entry["prompt"]))}


def ours(entry: dict) -> dict:
    """An object in any of the forms -> one with the keys of KINDS. Raises ValueError."""
    entry = {key: value for key, value in entry.items() if value is not None}
    if isinstance(entry.get("label"), bool):
        raise ValueError("has a label of true or false: pairs or rankings are wanted")
    if "chosen" in entry and "rejected" in entry:
        return pair(entry)
    if "completions" in entry and "prompt" in entry:
        return ranked(entry)
    if "instruction" in entry:  # Alpaca
        parts = [("user", entry["instruction"].strip()), ("user", entry.get("input", "").strip())]
        answer = {"completion": entry["output"].strip()} if "output" in entry else {}
        return {"prompt": joined(parts), **answer}
    messages = entry.get("messages", entry.get("conversations"))
    if messages is not None:
        messages = conversation(messages)
        if messages[-1][0] != "assistant":
            return {"prompt": joined(messages)}
        return {"prompt": joined(messages[:-1]), "completion": messages[-1][1]}
    if "prompt" in entry:
        answer = {}
        if "completion" in entry:
            answer = {"completion": answered(conversation(entry["completion"]), 0)}
        return {"prompt": joined(conversation(entry["prompt"])), **answer}
    return entry


def read(path: str | Path, kind: str, tokenizer=None, context: int = 0) -> list[dict]:
    """The records of a file as the kind wanted: a dict with the keys of KINDS each.

    With a tokenizer and a context, records that do not fit are left out, and a line is printed that
    counts them (`fitting`). Raises UserError, which names the file and the line.
    """
    found, keys = [], KINDS[kind]
    for where, entry in objects(path):
        try:
            record = ours(entry)
            if not isinstance(record.get("text", ""), str):
                raise TypeError
        except (TypeError, AttributeError):
            raise UserError(f"{path}, {where} has a value of the wrong type") from None
        except ValueError as error:
            raise UserError(f"{path}, {where} {error}") from None
        lacking = [key for key in keys if key not in record]
        if lacking:
            has = ", ".join(f'"{key}"' for key in entry) or "nothing"
            raise UserError(f'{path}, {where} has {has} and lacks "{lacking[0]}": {kind} are '
                            f"{{{', '.join(keys)}}} or a form of data/README.md")  # fmt: skip
        found.append((where, record))
    return fitting(path, kind, found, tokenizer, context) if tokenizer else [r for _, r in found]


# ------------------------------------------------------------------------------------ what fits in
def without_equals(record: dict, rows: list[list[int]]) -> tuple[dict, int]:
    """A comparison without responses that are equal, as rows, to one of another rank; their pairs.

    Such a pair can teach nothing: one and the same row would have to be better than itself.
    """
    ranks = record["ranks"]
    pairs = [(i, j) for i, j in itertools.combinations(range(len(rows)), 2)
             if rows[i] == rows[j] and ranks[i] != ranks[j]]  # fmt: skip
    left = [i for i in range(len(rows)) if i not in set(itertools.chain(*pairs))]
    lists = {key: [record[key][i] for i in left] for key in ("completions", "ranks", "flags")
             if key in record}  # fmt: skip
    return {**record, **lists}, len(pairs)


def fitting(path, kind: str, found: list[tuple[str, dict]], tokenizer, context: int) -> list[dict]:
    """The records that fit into the context, and a printed line that counts what does not.

    A prompt that leaves no room is skipped. A response that is too long is cut: what it begins with
    is learned, but its EOS is lost, so not that it stops. Pairs that are equal within the context
    are dropped. Records that come twice are kept.
    """
    kept, skipped, cut, equal, responses, longest = [], [], 0, 0, 0, 0
    for where, record in found:
        prompt = tokenizer.prompt(record["prompt"])
        texts = record.get("completions", [record["completion"]] if "completion" in record else [])
        rows = [tokenizer.response(text) for text in texts]
        longest = max([longest, len(prompt) + 1, *(len(prompt) + len(row) for row in rows)])
        if len(prompt) >= context:
            skipped.append(where)
            continue
        room, responses = context - len(prompt), responses + len(rows)
        cut += sum(len(row) > room for row in rows)
        if kind == "comparisons":
            record, pairs = without_equals(record, [row[:room] for row in rows])
            equal += pairs
            if len(record["completions"]) < 2:
                continue
        kept.append(record)
    counts = Counter(json.dumps(record, sort_keys=True) for _, record in found)
    twice, said = len(found) - len(counts), [f"{len(found):,} {kind}"]
    if twice:
        said.append(f"{twice:,} are repeats")
    if skipped:
        said.append(f"{len(skipped):,} skipped, their prompt leaves no room in a context of "
                    f"{context} tokens, the first in {skipped[0]}")  # fmt: skip
    if cut:
        said.append(f"{cut:,} of {responses:,} responses are cut at a context of {context} tokens "
                    "and do not teach to stop")  # fmt: skip
    if skipped or cut:
        said.append(f"all fit with pretrain.py --context {longest}")
    if equal:
        said.append(f"{equal:,} pairs are equal within the context, dropped")
    if not kept:
        raise UserError(f"{path} has none left to use: {' | '.join(said)}")
    print(f"{path}: {' | '.join(said)}")
    return kept
