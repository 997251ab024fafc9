"""A person as the labeler: what is typed becomes the files that the scripts train on."""

import pytest

import reward
from data import label
from data.files import UserError, run, write_jsonl
from data.forms import read_jsonl
from data.tokenizer import Tokenizer

RECORDS = [{"prompt": f"Say {word}.", "completions": [word, word + "!", "no"], "ranks": [1, 1, 2]}
           for word in ("hi", "ho", "ha")]  # fmt: skip


@pytest.fixture
def session(tmp_path, monkeypatch, capsys):
    """Runs the program with typed lines; returns the labels on the disk and what was shown."""
    write_jsonl(tmp_path / "in.jsonl", RECORDS)
    out = tmp_path / "out.jsonl"

    def type_lines(*lines, source="--comparisons", file="in.jsonl"):
        rest = iter(lines)

        def typed(_):
            try:
                return next(rest)
            except StopIteration:
                raise EOFError from None

        monkeypatch.setattr("builtins.input", typed)
        run(label.Config, label.main, [source, str(tmp_path / file), "--out", str(out)])
        return (
            read_jsonl(out) if out.exists() and out.read_text() else []
        ), capsys.readouterr().out

    return type_lines


@pytest.mark.parametrize("line, ranks, flags", [
    ("1 2 3", [1, 2, 3], ["", "", ""]),
    ("3 1 2", [2, 3, 1], ["", "", ""]),
    ("2 1=3", [2, 1, 2], ["", "", ""]),
    ("1 = 2 = 3", [1, 1, 1], ["", "", ""]),
    ("2 1=3fh", [2, 1, 2], ["", "", "fh"]), ("2, 1 > 3F", [2, 1, 3], ["", "", "f"]),
])  # fmt: skip
def test_a_line_is_a_ranking_with_ties_and_flags(line, ranks, flags):
    assert label.read_ranking(line, 3) == (ranks, flags)


@pytest.mark.parametrize("line, says", [
    ("1 2", "output 3 is missing"), ("1 2 2", "named twice"), ("1 2 4", '"4" is not an output'),
    ("1 2 3x", '"3x" is not'), ("", "output 1 is missing"), ("0 1 2", '"0" is not'),
    ("best", '"best" is not'),
])  # fmt: skip
def test_a_line_that_is_no_ranking_is_explained(line, says):
    with pytest.raises(ValueError, match=says):
        label.read_ranking(line, 3)


def test_ranks_belong_to_the_outputs_as_they_were_shown(session):
    labels, printed = session("2 1=3f", "q")
    shown = [line.split(". ")[1] for line in printed.split("> Say hi.")[1].split("\n")[1:4]]
    assert sorted(shown) == sorted(RECORDS[0]["completions"])
    rank_of = dict(zip(labels[0]["completions"], labels[0]["ranks"]))
    assert [rank_of[text] for text in shown] == [2, 1, 2]
    assert dict(zip(labels[0]["completions"], labels[0]["flags"]))[shown[2]] == "f"


def test_outputs_are_shown_in_other_orders_than_they_were_sampled():
    orders = {tuple(label.random.Random(f"0 {i}").sample(range(3), 3)) for i in range(30)}
    assert len(orders) == 6


def test_one_can_quit_go_on_undo_and_skip_without_losing_a_line(session):
    assert len(session("1 2 3")[0]) == 1  # the terminal was closed
    labels, printed = session("nonsense", "s", "3 2 1", "q")
    assert "1 labeled, 2 to go" in printed and '"nonsense" is not' in printed
    assert [x["prompt"] for x in labels] == ["Say hi.", "Say ha."]
    labels, _ = session("u", "u", "1=2=3", "q")
    assert [x["prompt"] for x in labels] == ["Say hi."] and labels[0]["ranks"] == [1, 1, 1]
    labels, _ = session("3 2 1", "s", "u", "q")  # undo takes back the skip, not the label before it
    assert len(labels) == 2
    labels, printed = session("u", "u", "u", "q")
    assert labels == [] and "nothing to undo" in printed


def test_rankings_are_read_by_the_reward_model_and_demonstrations_by_sft(session, tmp_path):
    session("1 2 3", "3 2 1", "1=2 3")
    config = reward.Config(comparisons=str(tmp_path / "out.jsonl"), out=str(tmp_path))
    assert list(map(len, reward.read_comparisons(config, Tokenizer(), 64))) == [
        2,
        1,
    ]  # one held out
    (tmp_path / "out.jsonl").unlink()
    labels, _ = session("", "Hi there.", "q", source="--prompts")
    assert labels == [{"prompt": "Say hi.", "completion": "Hi there."}]
    assert read_jsonl(tmp_path / "out.jsonl") == labels


def test_a_file_of_another_kind_is_refused_and_kept(session, tmp_path, capsys):
    text = '{"prompt": "a", "chosen": "b", "rejected": "c"}\n'
    (tmp_path / "out.jsonl").write_text(text)
    with pytest.raises(SystemExit):
        session("u", "q")
    assert (tmp_path / "out.jsonl").read_text() == text
    assert "other records than labels" in capsys.readouterr().err


def test_a_broken_file_of_labels_is_refused_and_kept(session, tmp_path, capsys):
    (tmp_path / "out.jsonl").write_text('{"prompt')
    with pytest.raises(SystemExit) as error:
        session("1 2 3")
    assert error.value.code == 2 and (tmp_path / "out.jsonl").read_text() == '{"prompt'
    assert "line 1 is not JSON" in capsys.readouterr().err


@pytest.mark.parametrize("seed", range(6))
def test_ranks_are_stored_with_the_outputs_that_they_were_given_to(monkeypatch, capsys, seed):
    """In all orders: most permutations of five are not their own inverse."""
    record = {"prompt": "Say hi.", "completions": ["a", "b", "c", "d", "e"]}
    monkeypatch.setattr("builtins.input", lambda _: "1f 2 3h 4 5")
    labeled = label.rank(record, seed)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  ")]
    shown = [line.split(". ")[1] for line in lines]
    assert sorted(shown) == record["completions"] == labeled["completions"]
    for text, rank, flags in zip(labeled["completions"], labeled["ranks"], labeled["flags"]):
        assert rank == shown.index(text) + 1
        assert flags == {1: "f", 3: "h"}.get(rank, "")


def test_other_outputs_of_a_prompt_that_was_ranked_are_still_shown(session, tmp_path):
    session("1 2 3")
    again = {**RECORDS[0], "completions": ["hm", "hm!", "no"]}
    write_jsonl(tmp_path / "in.jsonl", [again, *RECORDS])
    labels, printed = session("3 2 1", "q")
    assert "1 labeled, 3 to go" in printed
    assert [x["completions"] for x in labels] == [RECORDS[0]["completions"], again["completions"]]


# ----------------------------------------------------------------------- models, ranked by people
ANSWERS = {
    "sft": ["a", "same", "c", "d", "e"],
    "ppo": ["A", "same", "C", "d", "E"],
    "round2": ["x", "same", "c", "y", "z"],
}
PROMPTS = [f"Say {i}." for i in range(5)]


def as_ranked(folder, best: dict) -> str:
    """Rankings of answers.jsonl by a person to whom the texts of a prompt are as good as told."""
    labels = [{**c, "ranks": [best[c["prompt"]].index(text) + 1 for text in c["completions"]]}
              for c in read_jsonl(folder / "answers.jsonl")]  # fmt: skip
    write_jsonl(folder / "ranked.jsonl", labels)
    return str(folder / "ranked.jsonl")


def test_models_answers_are_written_without_names_in_another_order_for_each_prompt(tmp_path):
    label.write_answers(tmp_path, PROMPTS, ANSWERS, seed=0)
    records = read_jsonl(tmp_path / "answers.jsonl")
    assert [c["prompt"] for c in records] == ["Say 0.", "Say 2.", "Say 3.", "Say 4."]  # not "same"
    assert [sorted(c["completions"]) for c in records] == [["A", "a", "x"], ["C", "c"], ["d", "y"],
                                                           ["E", "e", "z"]]  # fmt: skip
    assert all(set(c) == {"prompt", "completions"} for c in records)
    many = {name: [name] * 60 for name in ANSWERS}
    label.write_answers(tmp_path, [f"{i}" for i in range(60)], many, seed=0)
    orders = [tuple(c["completions"]) for c in read_jsonl(tmp_path / "answers.jsonl")]
    assert len(set(orders)) == 6 and max(map(orders.count, orders)) < 30


def test_models_that_answer_alike_leave_nothing_to_rank(tmp_path):
    with pytest.raises(UserError, match="all models answer alike"):
        label.write_answers(tmp_path, PROMPTS[:1], {"sft": ["a"], "ppo": ["a"]}, seed=0)
    assert not (tmp_path / "answers.jsonl").exists()


def test_what_people_prefer_is_counted_for_each_pair_of_models_ties_left_out(tmp_path):
    label.write_answers(tmp_path, PROMPTS, ANSWERS, seed=0)
    ranked = as_ranked(tmp_path, {"Say 0.": "Aax", "Say 2.": "Cc", "Say 3.": "dy", "Say 4.": "zeE"})
    found = label.preferred(tmp_path, ranked)
    shares = {pair: (entry["value"], entry["n"]) for pair, entry in found.items()}
    assert shares == {"ppo/sft": (2 / 3, 3), "round2/sft": (1 / 3, 3), "round2/ppo": (0.25, 4)}
    assert all(0 <= e["low"] <= e["value"] <= e["high"] <= 1 for e in found.values())
    labels = read_jsonl(tmp_path / "ranked.jsonl")
    write_jsonl(tmp_path / "ranked.jsonl", [{**c, "ranks": [1] * len(c["ranks"])} for c in labels])
    assert {e["n"] for e in label.preferred(tmp_path, ranked).values()} == {0}


def test_rankings_of_other_answers_are_left_out_and_refused_if_all_are(tmp_path, capsys):
    label.write_answers(tmp_path, PROMPTS, ANSWERS, seed=0)
    ranked = as_ranked(tmp_path, {"Say 0.": "Aax", "Say 2.": "Cc", "Say 3.": "dy", "Say 4.": "zeE"})
    others = {**ANSWERS, "ppo": ["B", "same", "C", "d", "B"]}
    label.write_answers(tmp_path, PROMPTS, others, seed=0)
    found = label.preferred(tmp_path, ranked)
    assert "2 of 4 rankings are of" in capsys.readouterr().out
    assert (found["ppo/sft"]["value"], found["ppo/sft"]["n"]) == (1, 1)  # C to c; d is both's
    label.write_answers(tmp_path, PROMPTS, {**ANSWERS, "ppo": ["B"] * 5}, seed=0)
    with pytest.raises(UserError, match="has no ranking of the answers in .*answers.jsonl"):
        label.preferred(tmp_path, ranked)


def test_outputs_are_shown_as_what_can_be_seen_and_kept_as_they_are(session, tmp_path):
    odd = {"prompt": "Say\nhi.", "completions": ["a\nb", "c\x1b[2Jd", "é 🙂"]}
    write_jsonl(tmp_path / "odd.jsonl", [odd])
    labels, printed = session("1 2 3", file="odd.jsonl")
    assert "a\n     b\n" in printed and "c\\x1b[2Jd\n" in printed and "é 🙂\n" in printed
    assert "> Say\n     hi." in printed and "\x1b" not in printed
    assert labels[0]["completions"] == odd["completions"] and labels[0]["prompt"] == "Say\nhi."


def test_a_missing_file_of_outputs_is_made_by_reward(tmp_path, capsys):
    with pytest.raises(SystemExit):
        run(label.Config, label.main, ["--comparisons", str(tmp_path / "no.jsonl")])
    assert "no.jsonl is missing: run python reward.py first" in capsys.readouterr().err


def test_unranked_outputs_are_shown_and_ranked(session, tmp_path):
    unranked = [{key: record[key] for key in ("prompt", "completions")} for record in RECORDS]
    write_jsonl(tmp_path / "other.jsonl", unranked)
    labels, _ = session("1 2 3", "1=2 3", "q", file="other.jsonl")
    assert len(labels) == 2 and all(set(x["ranks"]) <= {1, 2, 3} for x in labels)
