"""The scripts as a user runs them: the whole chain in its one-minute preset, and bad input."""

import contextlib
import dataclasses
import importlib
import io
import itertools
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from data import label
from data.checkpoints import load, save
from data.files import run, write_jsonl
from data.forms import read_jsonl
from data.judges import RATES, verdict
from data.tokenizer import Tokenizer

ROOT = Path(__file__).parent.parent
STEPS = ("pretrain", "sft", "reward", "ppo", "evaluate")


def script(name: str, *flags, out) -> subprocess.CompletedProcess:
    """Runs a script with its flags: in this process, so that torch is imported only once."""
    step, stdout, stderr, code = importlib.import_module(name), io.StringIO(), io.StringIO(), 0
    flags = ["--out", str(out), "--device", "cpu", *map(str, flags)]
    with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
        try:
            run(step.Config, step.main, flags)
        except SystemExit as end:
            code = end.code
    return subprocess.CompletedProcess(flags, code, stdout.getvalue(), stderr.getvalue())


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    """The folder of a chain in its preset, with a second round, and what each step printed."""
    out = tmp_path_factory.mktemp("chain")
    printed = {}
    short = ("--iterations", 1, "--value-warmup", 0)
    steps = [
        ("pretrain",),
        ("sft", "--batch", 32),
        ("reward", "--count", 40, "--public", 40),
        ("ppo",),
        ("reward", "--round", 2, "--count", 40, "--public", 40),
        ("ppo", "--round", 2, *short),
        ("ppo", "--ptx-coef", 0.5, *short),
        ("evaluate", "--count", 12),
    ]
    for name, *flags in steps:
        done = script(name, "--fast", *flags, out=out)
        assert done.returncode == 0, done.stderr
        printed.setdefault(name, []).append(done.stdout)
    return out, printed


def test_every_step_writes_its_files_and_prints_its_seconds(chain):
    out, printed = chain
    for name in ("base.pt", "sft.pt", "comparisons.jsonl", "reward.pt", "ppo.pt", "evaluate.json"):
        assert (out / name).stat().st_size > 0
    for name in STEPS:
        assert all(f"wrote {out}" in text and " s\n" in text[-12:] for text in printed[name])
    assert not list(out.rglob("*.tmp"))


def test_comparisons_are_in_the_common_form(chain):
    for line in (chain[0] / "comparisons.jsonl").read_text().splitlines():
        record = json.loads(line)
        assert 4 <= len(record["completions"]) == len(record["ranks"]) <= 9
        assert min(record["ranks"]) == 1


def test_ppo_logs_every_metric_of_every_iteration(chain):
    lines = [json.loads(line) for line in (chain[0] / "ppo.jsonl").read_text().splitlines()]
    assert {"score", "kl", "entropy", "approx_kl", "clipfrac", "value_loss", "explained_variance",
            "length", "no_eos"} <= set(lines[-1])  # fmt: skip
    assert abs(lines[0]["kl"]) < 1e-4  # the policy is still the reference


def test_evaluation_has_its_stated_form(chain):
    results = json.loads((chain[0] / "evaluate.json").read_text())
    assert list(results["models"]) == ["gpt", "prompted", "sft", "ppo", "ppo_ptx", "round2"]
    for name, metrics in results["models"].items():
        assert {"gold", "gold_phrasing", "gold_entity", "gold_generation", *RATES} <= set(metrics)
        assert ({"swapped", "tax_lomi", "tax_reading", "tax_cloze"} <= set(metrics)) == (
            name != "prompted"
        )
        for entry in metrics.values():
            assert 0 <= entry["low"] <= entry["value"] <= entry["high"] <= 1 and entry["n"] > 0
    assert {"value", "low", "high", "n", "gold"} == set(results["wins"]["round2/sft"])
    assert {"right/gpt", "right/prompted", "right/sft"} <= set(results["wins"])
    seen = {f"rm_sees_{name}" for name in ("count", "mention", "avoid", "two")}
    assert set(results["labelers"]) == {"agreement", "rm_own", "rm_heldout", "second_labeler",
                                        "rm_ceiling", "rm_clear", *seen}  # fmt: skip
    for less, more in (("gpt", "prompted"), ("prompted", "sft"), ("sft", "ppo")):
        gain = results["differences"][f"gold_phrasing {more}-{less}"]
        ends = [results["models"][name]["gold_phrasing"]["value"] for name in (less, more)]
        assert gain["value"] == pytest.approx(ends[1] - ends[0])
        assert gain["low"] <= gain["value"] <= gain["high"]
    assert results["seconds"] > 0 and results["seed"] == 0


def test_ones_own_prompt_is_answered_by_every_model(chain):
    done = script("evaluate", "--prompt", "What color is a lemon?", out=chain[0])
    names = [line.split()[0] for line in done.stdout.splitlines()]
    assert names == ["gpt", "prompted", "sft", "ppo", "ppo_ptx", "round2"]


def test_a_second_round_learns_from_the_newest_policys_and_all_earlier_comparisons(chain):
    out, printed = chain
    assert "\n80 comparisons of" in "\n" + printed["reward"][1]
    first, second = (read_jsonl(out / f"comparisons{n}.jsonl") for n in ("", 2))
    prompts = [record["prompt"] for record in read_jsonl("data/prompts_reward.jsonl")]
    assert [c["prompt"] for c in first + second] == prompts[:80]  # every round asks others
    names = [name for name in ("ppo", "ppo2", "ppo_ptx", "sft") if (out / f"{name}.pt").exists()]
    weights = [load(out / f"{name}.pt", "", Tokenizer().size)[0].wte.weight for name in names]
    assert len(weights) == 4
    for one, other in itertools.combinations(weights, 2):
        assert not torch.equal(one, other)


@pytest.mark.parametrize("metric, low, high, says", [
    ("hallucination", -0.3, -0.1, "holds (GPT .41, PPO-ptx .21)"),
    ("hallucination", -0.3, 0.1, "does not hold (GPT .41, PPO-ptx .21)"),
    ("hallucination", 0.1, 0.3, "does not hold (GPT .41, PPO-ptx .21)"),
    ("constraint", 0.1, 0.3, "holds (up, no number printed)"),
    ("toxic_basic", -0.04, 0.04, "holds (" + RATES["toxic_basic"].paper + ")"),
    ("toxic_basic", -0.2, 0.2, "does not hold (" + RATES["toxic_basic"].paper + ")"),
    ("hedging", 0.1, 0.2, "no figure in the paper"),
    ("tax_lomi", -0.2, -0.1, "holds (down)"),
])  # fmt: skip
def test_a_claim_holds_when_the_differences_interval_says_so(metric, low, high, says):
    assert verdict(metric, {"low": low, "high": high}) == says


def retrained(out, file):
    """Trains nothing, but leaves a model of other weights in a checkpoint's place."""
    made, extra = load(out / file, "", Tokenizer().size)
    made.wte.weight.data += 0.01
    save(out / file, made, **{k: v for k, v in extra.items() if k != "checksum"})


def test_models_of_a_copied_folder_are_compared_whatever_their_dates(chain, tmp_path):
    for file in chain[0].glob("*.pt"):
        shutil.copy(file, tmp_path)
    os.utime(tmp_path / "ppo2.pt", (0, 0))
    done = script("evaluate", "--prompt", "Hello.", out=tmp_path)
    assert "round2" in done.stdout and "left out" not in done.stdout


def test_a_model_that_was_trained_from_an_earlier_checkpoint_is_not_compared(chain, tmp_path):
    for file in chain[0].glob("*.pt"):
        shutil.copy(file, tmp_path)
    second, extra = load(tmp_path / "ppo2.pt", "", Tokenizer().size)
    save(tmp_path / "ppo3.pt", second, {"ppo2": extra["checksum"]})
    assert "round3" in script("evaluate", "--prompt", "Hello.", out=tmp_path).stdout
    retrained(tmp_path, "ppo.pt")  # the second round's policy was made from another
    done = script("evaluate", "--prompt", "Hello.", out=tmp_path)
    for child in ("ppo2", "ppo3"):  # also a child's child
        assert f"{child}.pt was trained from another ppo.pt: run python ppo.py" in done.stdout
    names = {line.split()[0] for line in done.stdout.splitlines()}
    assert {"ppo", "ppo_ptx"} <= names and not names & {"round2", "round3"}
    for parent in ("reward", "sft"):
        retrained(tmp_path, f"{parent}.pt")
        done = script("evaluate", "--fast", out=tmp_path)
        assert done.returncode == 2
        assert f"ppo.pt was trained from another {parent}.pt: run python ppo.py" in done.stderr
    done = script("ppo", "--fast", out=tmp_path)
    assert "reward.pt was trained from another sft.pt: run python reward.py" in done.stderr


def test_a_prompt_is_answered_by_the_models_there_are(chain, tmp_path):
    for file in ("base.pt", "sft.pt"):
        shutil.copy(chain[0] / file, tmp_path)
    done = script("evaluate", "--prompt", "What color is a lemon?", out=tmp_path)
    assert done.returncode == 0, done.stderr
    first, *answers = done.stdout.splitlines()
    assert first.startswith("no rewards: ") and first.endswith("run python reward.py first")
    assert [line.split()[0] for line in answers] == ["gpt", "prompted", "sft"]
    assert "reward" not in "".join(answers)
    done = script("evaluate", "--prompt", "lemon " * 300, out=tmp_path)
    assert done.returncode == 2 and "no model has room" in done.stderr
    done = script("evaluate", "--prompt", "lemon " * 200, out=tmp_path)  # but no page of examples
    assert done.returncode == 0 and "left out: prompted: a prompt of" in done.stdout


def test_the_readmes_example_of_ones_own_data_goes_through_every_step(tmp_path):
    block = next(b for b in (ROOT / "README.md").read_text().split("```") if "--vocabulary" in b)
    commands = [shlex.split(line) for line in block.splitlines() if line.startswith("python ")]
    assert [words[1] for words in commands] == [f"{step}.py" for step in STEPS]
    short = {
        "pretrain": ["--tokens", 3000],
        "sft": ["--epochs", 1],
        "ppo": ["--iterations", 1, "--value-warmup", 1],
    }
    for step, (_, _, *flags) in zip(STEPS, commands):
        flags = [tmp_path if flag == "out/kitchen" else flag for flag in flags]
        done = script(step, *flags, *short.get(step, []), out=tmp_path)
        assert done.returncode == 0, done.stderr
    pairs = read_jsonl(ROOT / "data/example/comparisons.jsonl")
    ranked = [{"prompt": pair["prompt"], "completions": [pair["rejected"], pair["chosen"], "Hm."],
               "ranks": [2, 1, 2]} for pair in pairs]  # fmt: skip
    write_jsonl(tmp_path / "ranked.jsonl", ranked)
    done = script("reward", "--comparisons", tmp_path / "ranked.jsonl", out=tmp_path)
    assert done.returncode == 0, done.stderr
    done = script("evaluate", out=tmp_path)
    assert done.returncode == 2 and "--prompt" in done.stderr
    size = Tokenizer.of(tmp_path).size
    assert 258 < size <= 500 and load(tmp_path / "ppo.pt", "", size)


def test_the_loop_on_ones_own_prompts_goes_through_every_line(tmp_path, monkeypatch):
    """As data/README.md has it, twice, by a person who likes short answers."""
    kitchen = next(b for b in (ROOT / "README.md").read_text().split("```") if "--vocabulary" in b)
    loop = next(b for b in (ROOT / "data/README.md").read_text().split("```") if "--collect" in b)
    first = [line for line in loop.splitlines() if line.startswith("python ")]
    second = [line + " --round 2" * (i in (0, 2, 3)) for i, line in enumerate(first)]
    second = [re.sub("(unranked|rankings)\\.jsonl", "\\g<1>2.jsonl", line) for line in second]
    short = {"pretrain": ["--tokens", 3000], "sft": ["--epochs", 1], "reward": ["--max-new", 8],
             "ppo": ["--iterations", 1, "--value-warmup", 1]}  # fmt: skip
    shown = io.StringIO()

    def typed(_):
        texts = re.findall(r"  \d\. (.*)", shown.getvalue().split("\n> ")[-1])
        return " ".join(
            sorted(map(str, range(1, len(texts) + 1)), key=lambda i: len(texts[int(i) - 1]))
        )

    monkeypatch.setattr("builtins.input", typed)
    for line in [*kitchen.splitlines()[1:3], *first, *second]:
        _, script_or_m, *flags = shlex.split(line.replace("out/kitchen", str(tmp_path)))
        if script_or_m == "-m":
            with contextlib.redirect_stdout(shown):
                run(label.Config, label.main, flags[1:])
            continue
        name = script_or_m.removesuffix(".py")
        done = script(
            name, *flags, *([] if "--collect" in line else short.get(name, [])), out=tmp_path
        )
        assert done.returncode == 0, done.stderr
    assert "round2 to ppo" in done.stdout and "preferred by people" in done.stdout
    ranked = [read_jsonl(tmp_path / f"{name}.jsonl") for name in ("rankings", "rankings2")]
    assert 12 < len(ranked[0]) <= 24 and 0 < len(ranked[1]) <= 24 and ranked[0] != ranked[1]
    for c in read_jsonl(tmp_path / "preferences.jsonl"):
        by_rank = sorted(zip(c["ranks"], c["completions"]))
        seen = [len(label.shown(text).split("\n")[0]) for _, text in by_rank]
        assert seen == sorted(seen)


@pytest.mark.parametrize("name, flags, says", [
    ("sft", (), "run python pretrain.py first"),
    ("reward", (), "run python sft.py first"),
    ("ppo", (), "run python sft.py first"),
    ("evaluate", (), "run python pretrain.py first"),
    ("evaluate", ("--prompt", "Hello."), "there is no model in"),
    ("pretrain", ("--text", "{tmp}/missing.jsonl"), "cannot be read"),
    ("pretrain", ("--text", "{tmp}/empty.jsonl"), "is empty"),
    ("pretrain", ("--text", "{tmp}/single.jsonl"), "needs two or more documents"),
    ("pretrain", ("--text", "{tmp}/broken.jsonl"), "line 2 is not JSON"),
    ("pretrain", ("--text", "{tmp}/keys.jsonl"), 'line 1 has "txt" and lacks "text"'),
    ("pretrain", ("--text", "{tmp}/binary.jsonl"), "is UTF-16: JSON lines in UTF-8 are wanted"),
    ("pretrain", ("--device", "gpu9"), "not available"),
    ("pretrain", ("--nonsense", "1"), "unrecognized"),
    ("pretrain", ("--tokens", "many"), "invalid int value"),
    ("reward", ("--k-min", "1"), "--k-min must be 2 or more"),
    ("reward", ("--round", "0"), "--round must be 1 or more"),
    ("pretrain", ("--heads", "5"), "a multiple of 5 heads"),
    ("pretrain", ("--context", "1"), "--context must be 2 or more"),
    ("pretrain", ("--lr", "nan"), "--lr must be 0 or more and a finite number"),
    ("sft", ("--lr", "-1"), "--lr must be 0 or more and a finite number"),
    ("ppo", ("--seed", "99999999999999999999"), "--seed must be"),
    ("pretrain", ("--text", "{tmp}/half.jsonl"), "surrogates not allowed"),
    ("pretrain", ("--text", "{tmp}/twice.jsonl"), "a key comes twice"),
    ("pretrain", ("--vocabulary", "500"), "--vocabulary is for --text"),
    ("reward", ("--collect", "--comparisons", "x"), "leave --comparisons out"),
    ("ppo", ("--round", "2", "--ptx-coef", "1"), "leave --round out"),
    ("ppo", ("--snapshots", "0"), "--snapshots must be 1 or more"),
    ("ppo", ("--episodes", "100"), "--episodes must be a multiple"),
    ("ppo", ("--ema", "1.5"), "--ema must be 0 or more and at most 1"),
    ("ppo", ("--lam", "5"), "--lam must be 0 or more and at most 1"),
    ("reward", ("--k-min", "5", "--k-max", "4"), "--k-min must not be above --k-max"),
])  # fmt: skip
def test_a_users_mistake_is_one_sentence_and_exit_code_2(tmp_path, capsys, name, flags, says):
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "single.jsonl").write_text('{"text": "a"}\n')
    (tmp_path / "broken.jsonl").write_text('{"text": "a"}\n{"text": \n')
    (tmp_path / "keys.jsonl").write_text('{"txt": "a"}\n')
    (tmp_path / "binary.jsonl").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "half.jsonl").write_text('{"text": "\\ud800"}\n')
    (tmp_path / "twice.jsonl").write_text('{"text": "a", "text": "b"}\n')
    flags = [flag.replace("{tmp}", str(tmp_path)) for flag in flags]
    step = importlib.import_module(name)
    with pytest.raises(SystemExit) as error:
        run(step.Config, step.main, ["--out", str(tmp_path / "out"), *flags])
    assert error.value.code == 2 and says in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name, file", [("sft", "base"), ("reward", "sft"), ("ppo", "sft")])
def test_a_reward_model_is_no_policy(chain, tmp_path, capsys, name, file):
    step = importlib.import_module(name)
    shutil.copy(chain[0] / "reward.pt", tmp_path / f"{file}.pt")
    with pytest.raises(SystemExit) as error:
        run(step.Config, step.main, ["--out", str(tmp_path)])
    assert error.value.code == 2 and "is not a policy" in capsys.readouterr().err


def test_a_missing_policy_is_named_though_all_else_is_there(chain, tmp_path):
    for file in ("base.pt", "sft.pt", "reward.pt"):
        shutil.copy(chain[0] / file, tmp_path)
    done = script("evaluate", "--fast", out=tmp_path)
    assert done.returncode == 2 and done.stderr.endswith("run python ppo.py first\n")


def test_demonstrations_are_read_before_the_reward_model_is_trained(chain, tmp_path):
    before = (chain[0] / "comparisons.jsonl").read_bytes()
    done = script("reward", "--fast", "--demonstrations", tmp_path / "typo.jsonl", out=chain[0])
    assert done.returncode == 2 and "typo.jsonl cannot be read" in done.stderr
    assert "comparisons of" not in done.stdout  # nothing was sampled
    assert (chain[0] / "comparisons.jsonl").read_bytes() == before


def test_every_script_starts_and_ends_with_a_sentence_and_without_a_traceback(tmp_path):
    flags = ["--out", str(tmp_path / "out"), "--device", "gpu9"]
    started = [subprocess.Popen([sys.executable, f"{name}.py", *flags], cwd=ROOT, text=True,
                                stderr=subprocess.PIPE) for name in STEPS]  # fmt: skip
    for process in started:
        said = process.communicate()[1]
        assert process.returncode == 2 and said.startswith("error: ") and "Traceback" not in said
        assert "gpu9 is not available" in said
    assert not (tmp_path / "out").exists()


def test_prompts_that_the_labelers_do_not_know_are_refused_before_any_work(chain, tmp_path):
    own = tmp_path / "own.jsonl"
    own.write_text(json.dumps({"prompt": "Say hi."}) + "\n")
    before = (chain[0] / "reward.pt").read_bytes()
    for flag in ("--prompts", "--valid"):
        done = script("reward", "--fast", flag, own, out=chain[0])
        assert done.returncode == 2 and "do not know 'Say hi.'" in done.stderr
    assert (chain[0] / "reward.pt").read_bytes() == before


def test_a_prompt_longer_than_the_context_is_refused_and_nothing_is_lost(chain, tmp_path):
    long = tmp_path / "long.jsonl"
    long.write_text(json.dumps({"prompt": "cat " * 400}) + "\n")
    before = (chain[0] / "ppo.pt").read_bytes()
    done = script("ppo", "--fast", "--prompts", long, out=chain[0])
    assert done.returncode == 2 and "has none left to use: 1 prompts | 1 skipped" in done.stderr
    assert (chain[0] / "ppo.pt").read_bytes() == before


@pytest.mark.parametrize("name", [*STEPS, "data.label", "data.convert"])
def test_help_lists_every_setting_with_its_meaning(name, capsys):
    step = importlib.import_module(name)
    with pytest.raises(SystemExit) as done:
        run(step.Config, step.main, ["--help"])
    printed = capsys.readouterr().out
    assert done.value.code == 0
    for field in dataclasses.fields(step.Config):
        assert "--" + field.name.replace("_", "-") in printed


def test_a_number_has_the_limits_of_its_setting(capsys):
    """Learning rates may be 0 and counts not, whatever their names."""
    for name, flag, value, says in (
        ("ppo", "--warmup", -1, "--warmup must be 0 or more and a finite number"),
        ("ppo", "--value-warmup", -1, "--value-warmup must be 0 or more and a finite number"),
        ("ppo", "--iterations", 0, "--iterations must be 1 or more"),
        ("pretrain", "--warmup", -0.5, "--warmup must be 0 or more"),
        ("pretrain", "--tokens", 0, "--tokens must be 1 or more"),
        ("pretrain", "--lr", "inf", "--lr must be 0 or more and a finite number"),
        ("sft", "--seed", -1, "--seed must be 0 or more"),
    ):
        step = importlib.import_module(name)
        with pytest.raises(SystemExit) as error:
            run(step.Config, step.main, [flag, str(value), "--out", "nowhere"])
        assert error.value.code == 2 and says in capsys.readouterr().err


def test_the_default_tests_run_however_pytest_is_called():
    options = ["--collect-only", "-q", "-p", "no:cacheprovider"]
    ways = [[sys.executable, "-m", "pytest"], [Path(sys.executable).with_name("pytest"), "tests"]]
    started = [subprocess.Popen([*way, *options], cwd=ROOT, text=True, stdout=subprocess.PIPE)
               for way in ways]  # fmt: skip
    for process in started:
        listed = process.communicate()[0]
        assert process.returncode == 0, listed[-2000:]
        assert "test_model.py" in listed and "deselected" in listed
        for slow in ("test_mutants_are_caught", "test_kills_at_random", "test_peers", "test_fuzz"):
            assert slow not in listed
