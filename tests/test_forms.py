"""Files as people have them: every form of data/README.md has a line here."""

import gzip
import json
import shutil

import pytest

import ppo
import pretrain
import reward
import sft
from data.files import UserError, write_jsonl
from data.forms import read, read_jsonl
from data.tokenizer import Tokenizer
from tests.small import TOKENIZER, lines, model, run_ppo, run_pretrain, run_reward, run_sft, spied


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


SYSTEM, ASK, REPLY = (
    {"role": "system", "content": "Be kind."},
    user("Boil an egg?"),
    assistant("Yes."),
)
TALK = [SYSTEM, user("Hello."), assistant("Hi."), ASK]
LINES = "Be kind.\nHello.\nHi.\nBoil an egg?"  # the conversation as a prompt
HH = "\n\nHuman: Hello.\n\nAssistant: Hi.\n\nHuman: Boil an egg?\n\nAssistant:"


def forms(tmp_path, kind, *records):
    write_jsonl(tmp_path / "a.jsonl", records)
    return read(tmp_path / "a.jsonl", kind)


# --------------------------------------------------------------------------------------- the forms
@pytest.mark.parametrize("record", [
    {"prompt": LINES, "completion": "Yes."},
    {"prompt": LINES, "completion": " Yes."},  # TRL's own example begins with a space
    {"prompt": TALK, "completion": [REPLY]},
    {"prompt": TALK, "completion": "Yes.", "source": 5, "note": None},
    {"messages": [*TALK, REPLY]},
    {"conversations": [
        {"from": "system", "value": "Be kind."}, {"from": "human", "value": "Hello."},
        {"from": "gpt", "value": "Hi."}, {"from": "human", "value": "Boil an egg?"},
        {"from": "gpt", "value": "Yes."}]},
    {"instruction": LINES, "input": "", "output": "Yes."},
    {"instruction": LINES, "output": "Yes.", "text": "all of it in a template"},
    {"instruction": "Be kind.", "input": "Hello.\nHi.\nBoil an egg?", "output": "Yes."},
    {"system": "Be kind.", "prompt": "Hello.\nHi.\nBoil an egg?", "completion": "Yes."},
    {"system": "Be kind.", "messages": [*TALK[1:], REPLY]},
    {"system": "Be kind.", "instruction": "Hello.\nHi.", "input": "Boil an egg?", "output": "Yes."},
])  # fmt: skip
def test_forms_of_demonstrations(tmp_path, record):
    assert forms(tmp_path, "demonstrations", record) == [{"prompt": LINES, "completion": "Yes."}]
    assert forms(tmp_path, "prompts", record)[0]["prompt"] == LINES


@pytest.mark.parametrize("record", [
    {"prompt": LINES}, {"prompt": TALK}, {"messages": TALK}, {"instruction": LINES, "input": ""},
    {"prompt": f"\n\nHuman: {SYSTEM['content']}{HH}"},
])  # fmt: skip
def test_forms_of_prompts(tmp_path, record):
    assert forms(tmp_path, "prompts", record) == [{"prompt": LINES}]


@pytest.mark.parametrize("record", [
    {"prompt": LINES, "chosen": "Yes.", "rejected": "No, go."},
    {"prompt": LINES, "chosen": " Yes.", "rejected": " No, go."},
    {"prompt": TALK, "chosen": [REPLY], "rejected": [assistant("No, go.")]},
    {"chosen": [*TALK, REPLY], "rejected": [*TALK, assistant("No, go.")]},
    # As in UltraFeedback: the prompt once more, and scores.
    {"prompt": "Boil an egg?", "chosen": [*TALK, REPLY], "rejected": [*TALK, assistant("No, go.")],
     "score_chosen": 9.0, "score_rejected": 2.0},
    {"chosen": f"\n\nHuman: Be kind.{HH} Yes.", "rejected": f"\n\nHuman: Be kind.{HH} No, go."},
    {"prompt": f"\n\nHuman: Be kind.{HH}", "chosen": " Yes.", "rejected": " No, go."},
    {"chosen": f"{LINES} Yes.", "rejected": f"{LINES} No, go."},
    {"prompt": LINES, "completions": ["Yes.", "No, go."], "ranks": [1, 2]},
    {"prompt": TALK, "completions": ["Yes.", "No, go."], "ranks": [1, 2]},
    {"instruction": "Be kind.\nHello.", "input": "Hi.\nBoil an egg?", "chosen": "Yes.",
     "rejected": "No, go."},
    {"system": "Be kind.", "prompt": TALK[1:], "chosen": [REPLY], "rejected": "No, go."},
])  # fmt: skip
def test_forms_of_comparisons(tmp_path, record):
    right = {"prompt": LINES, "completions": ["Yes.", "No, go."], "ranks": [1, 2]}
    for kind in ("comparisons", "outputs"):
        assert forms(tmp_path, kind, record)[0].items() >= right.items()


def test_ranks_may_be_missing_where_they_are_asked_for_and_all_else_is_kept(tmp_path):
    record = {"prompt": "a", "completions": [" b", "b "], "labeler": 3}
    assert forms(tmp_path, "outputs", record) == [record]
    with pytest.raises(UserError, match='lacks "ranks"'):
        forms(tmp_path, "comparisons", record)


def test_what_a_pair_has_in_common_is_its_prompt(tmp_path):
    def pair(chosen, rejected):
        ((record),) = forms(tmp_path, "comparisons", {"chosen": chosen, "rejected": rejected})
        return record["prompt"], *record["completions"]

    # Whole words, though "re" is common, too.
    assert pair("The sky is red.", "The sky is real.") == ("The sky is", "red.", "real.")
    assert pair("Yes.", "No.") == ("", "Yes.", "No.")
    assert pair("Yes. No.", "Yes. No.") == ("Yes.", "No.", "No.")  # equal: is dropped later
    # Conversations that differ before the last answer: all that differs is the answer.
    other = [ASK, assistant("Hm?"), user("An egg!"), assistant("No.")]
    one = [ASK, REPLY, user("An egg!"), assistant("Well.")]
    assert pair(one, other) == ("Boil an egg?", "Yes.\nAn egg!\nWell.", "Hm?\nAn egg!\nNo.")
    hh = "\n\nHuman: Boil?\n\nAssistant:"
    assert pair(hh, f"{hh} Yes.") == ("Boil?", "", "Yes.")  # HH has a few answers without a word
    assert pair(one, one) == ("Boil an egg?\nYes.\nAn egg!", "Well.", "Well.")


RECORDS = [{"prompt": "Say é.", "completion": "é 🙂"}, {"prompt": "b", "completion": "c"}]
JSONL = "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in RECORDS)


@pytest.mark.parametrize("content", [
    JSONL.encode(), JSONL.encode("utf-8-sig"), gzip.compress(JSONL.encode()),
    gzip.compress(JSONL.encode("utf-8-sig")), JSONL.replace("\n", "\r\n").encode(),
    JSONL.replace("\n", "\n\n").encode(), JSONL.rstrip().encode(), json.dumps(RECORDS).encode(),
    json.dumps(RECORDS, indent=2).encode("utf-8-sig"), ("\n\n" + json.dumps(RECORDS)).encode(),
])  # fmt: skip
def test_files_of_records(tmp_path, content):
    (tmp_path / "a").write_bytes(content)
    assert read(tmp_path / "a", "demonstrations") == read_jsonl(tmp_path / "a") == RECORDS


@pytest.mark.parametrize("content, says", [
    (b"prompt,completion\na,b\n", "begins with 'prompt,completion', as a CSV or text file may"),
    (b"PAR1\x15\x04", "a parquet file"), (b"PK\x03\x04", "a zip archive or an Excel file"),
    (JSONL.encode("utf-16"), "is UTF-16"), (JSONL.encode("utf-16-le"), "is UTF-16"),
    (JSONL.encode("utf-16-be"), "is UTF-16"),
    ('{"prompt": "é"}'.encode("latin-1"), "not UTF-8 text: save it as UTF-8"),
    (gzip.compress(JSONL.encode())[:-9], "a damaged .gz file"), (b"\x1f\x8b\x08\x00", "damaged"),
    (gzip.compress(gzip.compress(JSONL.encode())), "compressed twice"), (b"BZh91AY", "by bzip2"),
    (b"[]", "is empty"), (b"", "is empty"), (b"\n \n", "is empty"), (b"[1]", "entry 1 is not a"),
    (b'[{"prompt": "a"}', "is not JSON"), (b'{\n"prompt": "a"\n}', "several lines"),
    (b'{"prompt": "a"\n}', "line 1 is not JSON"),
    (b'{"prompt": "a"}\n[1]\n', "line 2 is not a JSON object"),
])  # fmt: skip
def test_files_of_another_kind_are_named(tmp_path, content, says):
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(UserError, match=says):
        read(tmp_path / "a", "prompts")


@pytest.mark.parametrize("kind, record, says", [
    ("comparisons", {"prompt": "a", "completion": "b", "label": True}, "a label of true or false"),
    ("demonstrations", {"prompt": "a", "completion": "b", "label": False}, "a label of true or"),
    ("comparisons", {"prompt": "a", "completions": ["b", "c"], "scores": [0.3, 0.1]},
     'has "prompt", "completions", "scores" and lacks "ranks"'),
    ("comparisons", {"prompt": "a", "completions": ["b", "c"], "ranks": [0.3, 7.0]}, "a whole"),
    ("comparisons", {"prompt": "a", "completions": ["b", "c"], "ranks": [0, 1]}, "from 1, the"),
    ("comparisons", {"prompt": "a", "completions": ["b", "c"], "ranks": "12"}, "from 1, the"),
    ("comparisons", {"prompt": "a", "completions": "bc", "ranks": [1, 2]}, "two or more"),
    ("comparisons", {"info": {}, "summaries": [], "choice": 0}, 'has "info", "summaries"'),
    ("comparisons", {"prompt": "a", "completion": "b"}, 'lacks "completions": comparisons are {'),
    ("demonstrations", {"prompt": "a", "chosen": "b", "rejected": "c"}, 'lacks "completion"'),
    ("demonstrations", {"text": "a"}, 'has "text" and lacks "prompt": demonstrations are {prompt'),
    ("demonstrations", {"messages": TALK}, 'lacks "completion"'),
    ("demonstrations", {"prompt": "a", "completion": None}, 'lacks "completion"'),
    ("demonstrations", {"prompt": "a", "completion": [ASK]}, "does not end with an answer"),
    ("comparisons", {"chosen": [ASK, REPLY], "rejected": [ASK, REPLY, ASK]},
     "does not end with an answer"),
    ("prompts", {"messages": [ASK, {"role": "tool", "content": "5"}]}, "not a text of system"),
    ("prompts", {"messages": [user([{"type": "image"}])]}, "not a text of system, user"),
    ("comparisons", {"question": "a", "chosen": "b", "rejected": "c"}, 'question in "question"'),
    ("comparisons", {"chosen": [ASK, REPLY], "rejected": [user("An egg?"), REPLY]},
     "a chosen and a rejected answer to different prompts"),
    ("comparisons", {"prompt": TALK, "chosen": [ASK, REPLY], "rejected": [ASK, assistant("No.")]},
     "a prompt that its conversations do not begin with"),
    ("comparisons", {"chosen": "b", "rejected": [ASK, REPLY]}, "a whole conversation as rejected"),
    ("demonstrations", {"instruction": "a", "output": "b", "history": [["c", "d"]]}, 'a "history"'),
    ("demonstrations", {"prompt": "a", "completion": "b", "label": 0}, "a label of true or false"),
    ("texts", {"prompt": "a", "text": None}, 'has "prompt" and lacks "text"'),
    ("prompts", {"messages": []}, "without a message"), ("prompts", {"prompt": []}, "without a"),
    ("prompts", {"prompt": 5}, "wrong type"), ("prompts", {"prompt": ["a"]}, "wrong type"),
    ("prompts", {"prompt": {"role": "user"}}, "wrong type"), ("texts", {"text": 5}, "wrong type"),
    ("prompts", {"instruction": ["a"]}, "wrong type"), ("prompts", {}, "has nothing and lacks"),
])  # fmt: skip
def test_records_of_another_form_are_named(tmp_path, kind, record, says):
    good = {"texts": {"text": "a"}, "prompts": {"prompt": "a"}, "demonstrations": RECORDS[0],
            "comparisons": {"prompt": "a", "chosen": "b", "rejected": "c"}}[kind]  # fmt: skip
    with pytest.raises(UserError) as error:
        forms(tmp_path, kind, good, record)
    assert says in str(error.value) and "a.jsonl, line 2 " in str(error.value)


def test_every_form_of_the_readme_has_a_line_that_is_read(tmp_path):
    table = (sft.Path(__file__).parent.parent / "data/README.md").read_text(encoding="utf-8")
    rows = [row.split("|") for row in table.splitlines() if row.startswith("| `{")]
    assert len(rows) >= 9
    for _, line, _, kind, _ in rows:  # a line, where it is from, and what it is read as
        record = json.loads(line.strip().strip("`"))
        (found,) = forms(tmp_path, kind.strip(), record)
        assert found and all(found.values())


# ------------------------------------------------------------------------------------ what fits in
def counted(capsys, tmp_path, kind, records, context):
    write_jsonl(tmp_path / "a.jsonl", records)
    kept = read(tmp_path / "a.jsonl", kind, TOKENIZER, context)
    return kept, capsys.readouterr().out.strip().removeprefix(f"{tmp_path}/a.jsonl: ")


def test_a_file_that_fits_has_a_line_that_says_how_many(capsys, tmp_path):
    records = [{"prompt": "Say one.", "completion": "one"}] * 3
    kept, said = counted(capsys, tmp_path, "demonstrations", records, 64)
    assert kept == records and said == "3 demonstrations | 2 are repeats"


def test_prompts_without_room_are_skipped_and_counted_with_the_first_line(capsys, tmp_path):
    one = len(TOKENIZER.prompt("one"))
    records = [{"prompt": p} for p in ("one", "one " * 20, "two", "two " * 30)]
    kept, said = counted(capsys, tmp_path, "prompts", records, one + 1)
    assert kept == [records[0], records[2]]
    longest = len(TOKENIZER.prompt(("two " * 30).strip())) + 1
    assert said == (
        f"4 prompts | 2 skipped, their prompt leaves no room in a context of {one + 1} tokens, the "
        f"first in line 2 | all fit with pretrain.py --context {longest}"
    )
    with pytest.raises(UserError, match="none left to use: 4 prompts . 4 skipped"):
        counted(capsys, tmp_path, "prompts", records, one)


def test_cut_responses_are_counted_and_keep_their_beginning_without_eos(capsys, tmp_path):
    records = [{"prompt": "a", "completion": c} for c in ("b", "b c d e f g")]
    rows = [TOKENIZER.prompt("a") + TOKENIZER.response(r["completion"]) for r in records]
    kept, said = counted(capsys, tmp_path, "demonstrations", records, len(rows[1]) - 1)
    assert kept == records and said == (
        f"2 demonstrations | 1 of 2 responses are cut at a context of {len(rows[1]) - 1} tokens "
        f"and do not teach to stop | all fit with pretrain.py --context {len(rows[1])}"
    )
    assert counted(capsys, tmp_path, "demonstrations", records, len(rows[1]))[1] == (
        "2 demonstrations"
    )
    pairs = [tuple(f(r[k]) for f, k in ((TOKENIZER.prompt, "prompt"), (TOKENIZER.response,
             "completion"))) for r in records]  # fmt: skip
    tokens, mask = sft.collate(pairs, TOKENIZER.pad, len(rows[1]) - 1, "cpu", False)
    trained = tokens[1][mask[1] > 0].tolist()
    assert trained == TOKENIZER.response("b c d e f g")[:-1]  # nothing says that it ends here


def test_pairs_that_are_equal_within_the_context_are_dropped(capsys, tmp_path):
    records = [
        {"prompt": "a", "chosen": "b c d e", "rejected": "b c d f"},
        {"prompt": "a", "chosen": "b", "rejected": "c"},
        {"prompt": "a", "chosen": "b", "rejected": "b"},
        {"prompt": "a", "completions": ["b c d e", "c", "b c d f", "e", "e"],
         "ranks": [1, 2, 3, 4, 4], "flags": ["", "f", "", "h", "i"]},
    ]  # fmt: skip
    context = len(TOKENIZER.prompt("a") + TOKENIZER.response("b c d e")) - 2
    kept, said = counted(capsys, tmp_path, "comparisons", records, context)
    assert said.endswith("| 9 of 12 pairs dropped, of responses that are equal within the context "
                         "but not in rank")  # fmt: skip
    assert kept == [
        {"prompt": "a", "completions": ["b", "c"], "ranks": [1, 2]},
        {
            "prompt": "a",
            "completions": ["c", "e", "e"],
            "ranks": [2, 4, 4],
            "flags": ["f", "h", "i"],
        },
    ]  # fmt: skip
    for flags in (["x"], 7, None, {"safe": True}):  # another's key of that name
        counted(capsys, tmp_path, "comparisons", [{**records[3], "flags": flags}], context)
    with pytest.raises(UserError, match="none left to use.*2 of 2 pairs dropped"):
        counted(capsys, tmp_path, "comparisons", [records[0], records[2]], context)


def test_comparisons_of_one_prompt_are_refused_for_what_they_are(folder):
    write_jsonl(folder / "ranked.jsonl", [{"prompt": "Say it.", "chosen": f"{i}", "rejected": "no"}
                                          for i in range(20)])  # fmt: skip
    with pytest.raises(UserError, match="all comparisons have the same prompt"):
        run_reward(folder)


def test_a_long_document_becomes_rows_that_predict_every_token_once():
    for length in (1, 2, 5, 6, 7, 11, 12, 40):
        document = list(range(length))
        rows = pretrain.rows_of(document, 6)
        assert max(map(len, rows)) <= 6 and rows[0][0] == 0
        assert [token for row in rows for token in row[1:]] == document[1:]
        assert all(len(row) > 1 for row in rows) or length == 1
        assert all(one[-1] == other[0] for one, other in zip(rows, rows[1:]))


def test_one_long_document_is_enough_to_train_on(folder, capsys):
    text = " ".join(f"Row {i} says {i % 7}." for i in range(100))
    write_jsonl(folder / "text.jsonl", [{"text": text}])
    run_pretrain(folder, context=32)
    rows = pretrain.rows_of(TOKENIZER.document(text), 32)
    held = len(rows) // 4
    assert f"{len(rows) - held} documents in {len(rows) - held} rows" in capsys.readouterr().out
    write_jsonl(folder / "text.jsonl", [{"text": "A short one."}])
    with pytest.raises(UserError, match="needs two or more documents, or a long one"):
        run_pretrain(folder, context=32)


def test_repeated_and_empty_documents_are_left_out(folder, capsys, monkeypatch):
    losses = spied(monkeypatch, pretrain, "loss_of")
    texts = [f"It is {i}." for i in range(8)]
    write_jsonl(folder / "text.jsonl", [{"text": text} for text in [*texts, "", *texts, " \n"]])
    run_pretrain(folder)
    assert "text.jsonl: 18 documents | 10 left out, empty or repeated" in capsys.readouterr().out
    trained, held = ({tuple(row) for args, _, loss in losses if loss.requires_grad == grad
                      for row in args[1]} for grad in (True, False))  # fmt: skip
    assert len(trained) == 6 and len(held) == 2 and not trained & held


def test_a_refused_corpus_writes_nothing(folder):
    write_jsonl(folder / "one.jsonl", [{"text": "short"}])
    with pytest.raises(UserError, match="two or more documents"):
        run_pretrain(
            folder, text=str(folder / "one.jsonl"), vocabulary=300, out=str(folder / "new")
        )
    assert not (folder / "new").exists()


def test_the_small_webs_rows_are_documents(folder, monkeypatch):
    losses = spied(monkeypatch, pretrain, "loss_of")
    monkeypatch.setattr(pretrain.make, "corpus", lambda many: (f"{i} is {i}." for i in range(many)))
    run_pretrain(folder, text="", context=4, tokens=200, batch=30)
    assert all(row[0] == TOKENIZER.encode(" ")[0] or TOKENIZER.decode(row[:1]).isdigit()
               for args, _, _ in losses for row in args[1])  # fmt: skip


# ----------------------------------------------------------------------- the loop on one's own data
@pytest.fixture
def own(folder):
    """The folder with prompts of one's own."""
    prompts = [{"prompt": f"How do I cook {i}?"} for i in range(12)]
    write_jsonl(folder / "mine.jsonl", prompts)
    return folder


def collected(folder, **changes):
    config = reward.Config(prompts=str(folder / "mine.jsonl"), collect=True, k_min=3, k_max=5,
                           max_new=6, out=str(folder), device="cpu", **changes)  # fmt: skip
    return reward.main(config)


def test_collect_samples_unranked_responses_from_the_rounds_policy(own, monkeypatch, capsys):
    before = sorted(file.name for file in own.iterdir())
    collected(own)
    records = lines(own, "unranked")
    assert sorted(r["prompt"] for r in records) == sorted(r["prompt"] for r in lines(own, "mine"))
    assert all(set(r) == {"prompt", "completions"} for r in records)
    assert {len(r["completions"]) for r in records} == {3, 4, 5}
    assert all(len(set(r["completions"])) == len(r["completions"]) for r in records)
    assert sorted(f.name for f in own.iterdir()) == sorted([*before, "unranked.jsonl"])
    printed = capsys.readouterr().out
    assert f"python -m data.label --comparisons {own}/unranked.jsonl" in printed
    asked = spied(monkeypatch, reward, "sample_responses")
    run_ppo(own, iterations=1, value_warmup=0)
    collected(own, round=2)
    weights = model(own, "ppo").wte.weight
    assert (asked[0][0][0].wte.weight == weights).all() and len(lines(own, "unranked2")) == 12


def test_equal_responses_are_collected_once(own, monkeypatch):
    monkeypatch.setattr(
        reward,
        "sample_responses",
        lambda policy, tokenizer, prompts, counts, most: [
            ["same"] * k if i == 2 else ["a", "b", "a", "c", "b"][:k] for i, k in enumerate(counts)
        ],
    )
    collected(own)
    found = [c["completions"] for c in lines(own, "unranked")]
    assert len(found) == 11 and {len(texts) for texts in found} <= {2, 3}
    assert all(texts == ["a", "b", "c"][: len(texts)] for texts in found)
    monkeypatch.setattr(reward, "sample_responses", lambda policy, tokenizer, prompts, counts, most:
                        [["same"] * k for k in counts])  # fmt: skip
    with pytest.raises(UserError, match="there is nothing to rank"):
        collected(own)
    assert [c["completions"] for c in lines(own, "unranked")] == found


def ranked(folder, name, marks):
    write_jsonl(folder / name, [
        {"prompt": f"How do I cook {i}?", "completions": [mark, "b", "c"], "ranks": [1, 2, 2]}
        for mark in marks for i in range(12)])  # fmt: skip
    return str(folder / name)


def test_a_second_round_joins_the_comparisons_that_the_first_learned_from(own, monkeypatch, capsys):
    trained = spied(monkeypatch, reward, "train")
    first, second = ranked(own, "one.jsonl", ["first"]), ranked(own, "two.jsonl", ["second"])
    sampled = [{"prompt": "x", "completions": ["y", "z"], "ranks": [1, 2], "labeler": 0}]
    write_jsonl(own / "comparisons.jsonl", sampled)  # of simulated labelers, not learned from
    run_reward(own, comparisons=first)
    run_reward(own, comparisons=second, round=2)
    run_reward(own, comparisons=ranked(own, "three.jsonl", ["third"]), round=3)
    marks = [{c["completions"][0] for c in args[2]} for args, _, _ in trained]
    assert marks == [{"first"}, {"first", "second"}, {"first", "second", "third"}]
    held = {c["prompt"] for c in trained[2][0][2]}  # of all rounds the same prompts are held out
    assert held == {f"How do I cook {i}?" for i in range(12)} - {"How do I cook 0?",
                                                                 "How do I cook 10?"}  # fmt: skip
    elsewhere = own / "moved"  # with all that lies in it
    shutil.copytree(own, elsewhere, ignore=shutil.ignore_patterns("moved"))
    run_reward(elsewhere, comparisons=str(elsewhere / "two.jsonl"), round=2)
    (own / "one.jsonl").unlink()
    with pytest.raises(UserError, match="one.jsonl cannot be read"):
        run_reward(own, comparisons=second, round=2)


def test_a_round_of_ones_own_joins_what_simulated_labelers_ranked_before(own, monkeypatch):
    trained = spied(monkeypatch, reward, "train")
    sampled = [{"prompt": f"x {i}", "completions": ["y", "z"], "ranks": [1, 2], "labeler": 0}
               for i in range(3)]  # fmt: skip
    write_jsonl(own / "comparisons.jsonl", sampled)
    run_reward(own, comparisons=ranked(own, "two.jsonl", ["second"]), round=2)
    ((args, _, _),) = trained
    assert {c["completions"][0] for c in args[2]} == {"second", "y"}


def test_ppo_trains_on_prompts_in_any_form(own):
    records = [{"messages": [user(f"Cook {i}?")]} for i in range(12)]
    (own / "chat.json").write_text(json.dumps(records))
    run_ppo(own, prompts=str(own / "chat.json"), iterations=1, value_warmup=0)
    assert model(own, "ppo")


def test_scripts_read_with_the_vocabulary_of_the_folder(folder, monkeypatch):
    for script, run in ((sft, run_sft), (ppo, run_ppo)):
        calls = spied(monkeypatch, script, "read")
        run(folder, **({"iterations": 1, "value_warmup": 0} if script is ppo else {}))
        assert all(isinstance(args[2], Tokenizer) and args[3] > 1 for args, _, _ in calls)
