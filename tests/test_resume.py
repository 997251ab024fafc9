"""--resume: a run that was killed ends bit for bit as one that was not."""

import json
import math
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import sft
from data import checkpoints
from data.checkpoints import load, save
from data.files import UserError, write_jsonl
from data.tokenizer import Tokenizer
from model import GPT, GPTConfig
from tests.small import stopped

ROOT = Path(__file__).parent.parent
PRODUCTS = {"pretrain": "base", "sft": "sft", "reward": "reward", "ppo": "ppo"}
SMALL = {
    "pretrain": ("--tokens", "40000"),
    "sft": ("--epochs", "1"),
    "reward": ("--count", "60", "--public", "40"),
    "ppo": ("--iterations", "4", "--value-warmup", "1", "--episodes", "32", "--minibatch", "16"),
}
SIZE = Tokenizer().size


def weights(file: Path) -> dict:
    return torch.load(file, weights_only=True)["weights"]


def same(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


@pytest.fixture
def folder(tmp_path):
    """A folder with a tiny base model and twenty demonstrations."""
    torch.manual_seed(0)
    save(tmp_path / "base.pt", GPT(GPTConfig(SIZE, context=32, layers=1, heads=2, width=16)), {})
    pairs = [{"prompt": f"Say {i}.", "completion": "yes"} for i in range(20)]
    write_jsonl(tmp_path / "pairs.jsonl", pairs)
    return tmp_path


def config(folder: Path, **changes) -> sft.Config:
    file = str(folder / "pairs.jsonl")
    settings = {"demonstrations": file, "epochs": 4, "lr": 1e-2, "device": "cpu", **changes}
    return sft.Config(out=str(folder), **settings)


@pytest.mark.parametrize("after", [1, 3, 7, 12])  # of 12 steps
def test_a_stopped_run_goes_on_to_the_same_weights(folder, monkeypatch, after):
    sft.main(config(folder))
    expected = weights(folder / "sft.pt")
    (folder / "sft.pt").unlink()
    stopped(monkeypatch, after, sft.main, config(folder))
    assert not (folder / "sft.pt").exists() and (folder / "sft.state").exists()
    steps = []
    monkeypatch.setattr(checkpoints, "keep", lambda state, settings, step, *x: steps.append(step))
    sft.main(config(folder, resume=True))
    assert steps == list(range(after + 1, 13))
    assert same(weights(folder / "sft.pt"), expected)
    assert not (folder / "sft.state").exists()


def test_without_the_flag_a_run_starts_anew(folder, monkeypatch):
    stopped(monkeypatch, 3, sft.main, config(folder))
    steps = []
    monkeypatch.setattr(checkpoints, "keep", lambda state, settings, step, *x: steps.append(step))
    sft.main(config(folder))
    assert steps == list(range(1, 13))


def test_a_state_of_other_settings_or_another_model_is_refused_and_stays(folder, monkeypatch):
    stopped(monkeypatch, 3, sft.main, config(folder))
    state = (folder / "sft.state").read_bytes()
    with pytest.raises(
        UserError, match="with --lr 0.01, not with --lr 0.001: give --lr 0.01, or leave"
    ):
        sft.main(config(folder, resume=True, lr=1e-3))
    save(folder / "base.pt", GPT(GPTConfig(SIZE, context=32, layers=2, heads=2, width=16)), {})
    with pytest.raises(
        UserError, match="from another base model: put it back, or leave --resume out"
    ):
        sft.main(config(folder, resume=True))
    assert (folder / "sft.state").read_bytes() == state
    (folder / "sft.state").write_bytes(state[:1000])
    with pytest.raises(UserError, match="damaged"):
        sft.main(config(folder, resume=True))


def test_a_run_that_diverges_leaves_the_last_good_files(folder, monkeypatch):
    sft.main(config(folder))
    good = (folder / "sft.pt").read_bytes()
    lines = (folder / "sft.jsonl").read_bytes()
    monkeypatch.setattr(checkpoints, "SECONDS", 0)
    monkeypatch.setattr(checkpoints, "SHARE", math.inf)
    states, keep, sft_loss = [], checkpoints.keep, sft.sft_loss

    def loss_and_diverge(model, *batch):
        loss = sft_loss(model, *batch)
        return loss * torch.nan if len(states) == 2 else loss  # in the third step

    monkeypatch.setattr(sft, "sft_loss", loss_and_diverge)
    monkeypatch.setattr(checkpoints, "keep", lambda *args: (states.append(args[2]), keep(*args)))
    with pytest.raises(UserError, match="diverged"):
        sft.main(config(folder))
    assert states == [1, 2] and (folder / "sft.pt").read_bytes() == good
    assert (folder / "sft.jsonl").read_bytes() == lines
    monkeypatch.setattr(sft, "sft_loss", sft_loss)
    sft.main(config(folder, resume=True))  # the state is of before
    assert load(folder / "sft.pt", "", SIZE)


# --------------------------------------------------------------------------------- kill -9, slow
def command(name: str, out: Path) -> list[str]:
    """The script with a state after every step, so that a kill often meets a write."""
    start = (
        "import data.checkpoints as c, sys, importlib; c.SECONDS = 0; c.SHARE = float('inf');"
        f"m = importlib.import_module('{name}'); from data.files import run; run(m.Config, m.main)"
    )
    return [sys.executable, "-c", start, "--out", str(out), "--device", "cpu", *SMALL[name]]


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    """A chain that nothing happened to, and the seconds of each step."""
    out, seconds = tmp_path_factory.mktemp("whole"), {}
    for name in SMALL:
        start = time.time()
        subprocess.run(command(name, out), cwd=ROOT, check=True, capture_output=True)
        seconds[name] = time.time() - start
    return out, seconds


@pytest.mark.kill
@pytest.mark.parametrize("name", SMALL)
def test_kills_at_random_moments_change_nothing(chain, tmp_path, name):
    whole, seconds = chain
    for file in whole.glob("*.pt"):
        if file.stem != PRODUCTS[name]:
            shutil.copy(file, tmp_path)
    rng, kills = random.Random(name), 0
    while kills < 6:
        process = subprocess.Popen([*command(name, tmp_path), "--resume"], cwd=ROOT,
                                   stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)  # fmt: skip
        try:
            process.wait(timeout=rng.uniform(0.3, 1) * seconds[name])
            assert process.returncode == 0, process.stderr.read().decode()
            (tmp_path / f"{PRODUCTS[name]}.pt").unlink()  # it was faster: once more
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            kills += 1
    subprocess.run([*command(name, tmp_path), "--resume"], cwd=ROOT, check=True)
    product = f"{PRODUCTS[name]}.pt"
    assert same(weights(tmp_path / product), weights(whole / product))


@pytest.mark.kill
def test_the_same_seed_evaluates_to_the_same_numbers(chain):
    out, found = chain[0], []
    for _ in range(2):
        subprocess.run([sys.executable, "evaluate.py", "--fast", "--out", str(out)], cwd=ROOT,
                       check=True, capture_output=True)  # fmt: skip
        found.append(json.loads((out / "evaluate.json").read_text()))
        assert found[-1].pop("seconds") > 0
    assert found[0] == found[1]
