"""Random input for all that reads: a value or a UserError, never a traceback."""

import json
import tempfile
from pathlib import Path

import pytest

from data import world
from data.checkpoints import load
from data.convert import read_gpt2_vocabulary, read_safetensors
from data.files import UserError
from data.forms import KINDS, read, read_jsonl
from data.judges import RATES
from data.labelers import features, gold
from data.tokenizer import Tokenizer, read_ranks

pytestmark = pytest.mark.fuzz
hypothesis = pytest.importorskip("hypothesis", reason="pip install -r tests/requirements.txt")
st = hypothesis.strategies
given = hypothesis.given
settings = hypothesis.settings(max_examples=300, deadline=None, derandomize=True)

KEYS = ("prompt", "completion", "chosen", "rejected", "completions", "ranks", "text")
plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
keys = st.sampled_from(KEYS) | st.text(max_size=5)
values = st.recursive(
    plain, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4)
)
records = st.dictionaries(st.sampled_from(KEYS), values, max_size=5)
TOKENIZER = Tokenizer()
ROOT = Path(__file__).parent.parent
PROMPTS = [r["prompt"] for r in read_jsonl(ROOT / "data" / "test.jsonl")]
WORDS = sorted({word for prompt in PROMPTS for word in prompt.replace(".", " .").split()})


def of_bytes(content: bytes, read):
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "file"
        file.write_bytes(content)
        try:
            return read(file)
        except UserError as error:
            assert str(error) and "\n" not in str(error).strip()
            return None


@settings
@given(st.binary(max_size=200), st.sampled_from(list(KINDS)))
def test_files_of_any_bytes(content, kind):
    of_bytes(content, lambda file: read(file, kind))


FORMS = ("messages", "conversations", "instruction", "input", "output", "system", "label", "flags")
roles = st.sampled_from(["system", "user", "assistant", "tool"])
talks = st.lists(st.fixed_dictionaries({"role": roles, "content": plain}))
entries = st.dictionaries(
    st.sampled_from(KEYS + FORMS) | st.text(max_size=3), values | talks, max_size=5
)


@settings
@given(st.lists(records | entries, min_size=1, max_size=4), st.sampled_from(list(KINDS)))
def test_files_of_any_records_have_the_asked_keys_and_types(lines, kind):
    for text in ("\n".join(map(json.dumps, lines)), json.dumps(lines)):
        room = (TOKENIZER, 24) if kind != "texts" else ()
        for record in of_bytes(text.encode(), lambda file: read(file, kind, *room)) or []:
            for key in KINDS[kind]:
                assert isinstance(record[key], list if key in ("completions", "ranks") else str)
            texts = record.get("completions", []) if kind in ("outputs", "comparisons") else []
            assert all(isinstance(text, str) for text in texts) and len(texts) != 1
            assert kind != "comparisons" or len(record["ranks"]) == len(texts)


@settings
@given(st.binary(max_size=400))
def test_vocabularies_weights_and_checkpoints_of_any_bytes(content):
    for reader in (read_ranks, read_safetensors, lambda file: load(file, "x", 10)):
        of_bytes(content, reader)


@settings
@given(st.dictionaries(st.text(max_size=4), values, max_size=5), st.text(max_size=40))
def test_gpt2_vocabularies_of_any_content(vocabulary, merges):
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "vocab.json").write_text(json.dumps(vocabulary))
        Path(folder, "merges.txt").write_text(merges, encoding="utf-8")
        with pytest.raises(UserError):
            read_gpt2_vocabulary(Path(folder))


@settings
@given(st.text(max_size=80))
def test_any_text_is_encoded_and_comes_back(text):
    tokens = TOKENIZER.response(text)
    assert max(tokens) == TOKENIZER.eos and tokens[-1] == TOKENIZER.eos
    if "\n" not in text and "\r" not in text:
        assert TOKENIZER.decode(tokens) == text.encode("utf-16", "surrogatepass").decode(
            "utf-16", "replace"
        )


answers = st.lists(st.sampled_from(WORDS) | st.text(max_size=9), max_size=30).map(" ".join)


@settings
@given(st.sampled_from(PROMPTS), answers)
def test_the_gold_judge_reads_any_answer(prompt, text):
    assert 0 <= gold(prompt, text) <= 1
    assert all(0 <= value <= 1 for value in features(prompt, text).values())


@settings
@given(st.sampled_from(sorted(RATES)), st.integers(0, 399), answers)
def test_the_judges_read_any_answer(name, number, text):
    probes = read_jsonl(ROOT / "data" / "probes" / f"{RATES[name].probes[0]}.jsonl")
    assert RATES[name].judge(probes[number]["prompt"], text) in (True, False)


@settings
@given(st.lists(st.sampled_from(WORDS) | st.text(max_size=9), max_size=20))
def test_any_prompt_is_parsed_or_unknown(words):
    request = world.parse(" ".join(words))
    assert request is None or request.task
