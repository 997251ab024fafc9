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
    b"\x28\xb5\x2f\xfd": "compressed by zstd", b"\x1f\x8b": "compressed twice",
    b"BZh": "compressed by bzip2", b"\xfd7zXZ": "compressed by xz", b"ARROW1": "an arrow file",
    b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16",
}  # fmt: skip
ROLES = {"human": "user", "gpt": "assistant", "chatgpt": "assistant", "developer": "system"}
# Where others keep the question to a pair of answers: not taken for one without a prompt.
ASKED = ("question", "query", "input", "messages", "conversations")


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
    if text.lstrip().partition("\n")[0].strip() == "{":
        raise UserError(
            f"{path} has objects of several lines: a line for each is wanted, or a list"
        )
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
        value = [{"role": role, "content": text} for role, text in turns
                 if text or role == "assistant"]  # fmt: skip
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
        if {chosen[common][0], rejected[common][0]} != {"assistant"}:
            raise ValueError("has a chosen and a rejected answer to different prompts")
        if joined(conversation(entry.get("prompt", ""))) not in joined(chosen[:common]):
            raise ValueError("has a prompt that its conversations do not begin with")
        prompt, answers = chosen[:common], [answered(c, common) for c in (chosen, rejected)]
        return {"prompt": joined(prompt), "completions": answers, "ranks": [1, 2]}
    if rejected[0][0] in ("system", "user"):
        raise ValueError("has a whole conversation as rejected, but not as chosen")
    answers = [answered(chosen, 0), answered(rejected, 0)]
    if "prompt" in entry:
        prompt = joined(conversation(entry["prompt"]))
    elif asked := [key for key in ASKED if entry.get(key)]:
        raise ValueError(f'has its question in "{asked[0]}": a "prompt" is wanted')
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
    if entry.get("label") in (True, False):
        raise ValueError("has a label of true or false: pairs or rankings are wanted")
    if entry.get("history"):
        raise ValueError('has a "history": "messages" are wanted')
    if "instruction" in entry:  # Alpaca
        parts = [entry["instruction"], entry.get("input", "")]
        entry = {**entry, "prompt": joined([("user", text.strip()) for text in parts])}
        if "output" in entry:
            entry["completion"] = entry["output"]
    if "chosen" in entry and "rejected" in entry:
        record = pair(entry)
    elif "completions" in entry and "prompt" in entry:
        record = ranked(entry)
    elif "prompt" in entry:
        record = {"prompt": joined(conversation(entry["prompt"]))}
        if "completion" in entry:
            record["completion"] = answered(conversation(entry["completion"]), 0)
    elif "messages" in entry or "conversations" in entry:
        messages = conversation(entry.get("messages", entry.get("conversations")))
        record = {"prompt": joined(messages)}
        if messages[-1][0] == "assistant":
            record = {"prompt": joined(messages[:-1]), "completion": messages[-1][1]}
    else:
        return entry
    if entry.get("system"):  # a message of its own, in some files
        record["prompt"] = joined([("", entry["system"].strip()), ("", record["prompt"])])
    return record


def read(path: str | Path, kind: str, tokenizer=None, context: int = 0) -> list[dict]:
    """The records of a file as the kind wanted: a dict with the keys of KINDS each.

    With a tokenizer and a context, records that do not fit are left out, and a line is printed that
    counts them (`fitting`). Raises UserError, which names the file and the line.
    """
    found, keys = [], KINDS[kind]
    for where, entry in objects(path):
        entry = {key: value for key, value in entry.items() if value is not None}
        try:
            record = entry if kind == "texts" else ours(entry)
            if kind == "texts" and not isinstance(record.get("text", ""), str):
                raise TypeError
        except (TypeError, AttributeError):
            raise UserError(f"{path}, {where} has a value of the wrong type, "
                            "neither a text nor a list of messages") from None  # fmt: skip
        except ValueError as error:
            raise UserError(f"{path}, {where} {error}") from None
        lacking = [key for key in keys if key not in record]
        if lacking:
            has = ", ".join(json.dumps(key, ensure_ascii=False) for key in entry) or "nothing"
            raise UserError(f'{path}, {where} has {has} and lacks "{lacking[0]}": {kind} are '
                            f"{{{', '.join(keys)}}} or a form of data/README.md")  # fmt: skip
        found.append((where, record))
    return fitting(path, kind, found, tokenizer, context) if tokenizer else [r for _, r in found]


# ------------------------------------------------------------------------------------ what fits in
def without_equals(record: dict, rows: list[list[int]]) -> dict:
    """A comparison without responses that are equal, as rows, to one of another rank.

    They can teach nothing: one and the same row would have to be better than itself.
    """
    ranks = record["ranks"]
    pairs = [(i, j) for i, j in itertools.combinations(range(len(rows)), 2)
             if rows[i] == rows[j] and ranks[i] != ranks[j]]  # fmt: skip
    left = [i for i in range(len(rows)) if i not in set(itertools.chain(*pairs))]
    lists = {key: [record[key][i] for i in left] for key in ("completions", "ranks", "flags")
             if isinstance(record.get(key), list) and len(record[key]) == len(rows)}  # fmt: skip
    return {**record, **lists} if pairs else record


def untied(ranks: list[int]) -> int:
    """How many pairs of them are not tied."""
    return sum(one != other for one, other in itertools.combinations(ranks, 2))


def fitting(path, kind: str, found: list[tuple[str, dict]], tokenizer, context: int) -> list[dict]:
    """The records that fit into the context, and a printed line that counts what does not.

    A prompt that leaves no room is skipped. A response that is too long is cut: what it begins with
    is learned, but its EOS is lost, so not that it stops. Responses that are equal within the
    context but not in rank are dropped with their pairs. Records that come twice are kept.
    """
    kept, skipped, cut, responses, longest, pairs, dropped = [], [], 0, 0, 0, 0, 0
    for where, record in found:
        prompt = tokenizer.prompt(record["prompt"])
        texts = [record[key] for key in KINDS[kind] if key == "completion"]
        texts += record["completions"] if kind == "comparisons" else []
        rows = [tokenizer.response(text) for text in texts]
        longest = max([longest, len(prompt) + 1, *(len(prompt) + len(row) for row in rows)])
        if len(prompt) >= context:
            skipped.append(where)
            continue
        room, responses = context - len(prompt), responses + len(rows)
        cut += sum(len(row) > room for row in rows)
        if kind == "comparisons":
            before = untied(record["ranks"])
            record = without_equals(record, [row[:room] for row in rows])
            pairs, dropped = pairs + before, dropped + before - untied(record["ranks"])
            if len(record["completions"]) < 2:
                continue
        kept.append(record)
    unlike = {json.dumps(record, sort_keys=True) for _, record in found}
    twice, said = len(found) - len(unlike), [f"{len(found):,} {kind}"]
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
    if dropped:
        said.append(f"{dropped:,} of {pairs:,} pairs dropped, of responses that are equal within "
                    "the context but not in rank")  # fmt: skip
    if not kept:
        raise UserError(f"{path} has none left to use: {' | '.join(said)}")
    print(f"{path}: {' | '.join(said)}")
    return kept
