"""Runs that survive: output that cannot show a letter, locked files, full disks and memory,
GPUs that do not work, folders that move; and --resume with what has changed since."""

import math
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

import ppo
import pretrain
import reward
import sft
from data import checkpoints
from data.checkpoints import fused, pick_device, save
from data.files import UserError, located, option, run, write_jsonl, write_text
from tests.small import (
    lines,
    model,
    optimizers_of,
    other_weights,
    run_ppo,
    run_pretrain,
    run_reward,
    run_sft,
    same_weights,
    stopped,
)

ROOT = Path(__file__).parent.parent


@dataclass
class Config:
    count: int = option(1, "a flag that needs memory")
    max_new: int = option(1, "another")
    lr: float = option(1.0, "one that does not")


@dataclass
class Plain:
    seed: int = option(1, "no flag that needs memory")


class Clock:
    """time.monotonic and time.sleep without waiting."""

    def __init__(self, monkeypatch):
        self.now = 0.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)
        monkeypatch.setattr(time, "sleep", self.goes_on)

    def goes_on(self, seconds):
        self.now += seconds


# ------------------------------------------------------------------------------------- printing
@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_a_letter_that_the_output_cannot_show_does_not_end_a_run(encoding):
    script = (
        "from dataclasses import make_dataclass; from tqdm import tqdm; from data.files import *\n"
        "def fine(config):\n"
        "    print('one \\U0001f600 \\u6771 \\ufffd'); tqdm.write('two \\u6771')\n"
        "def wrong(config):\n"
        "    raise UserError('three \\u6771')\n"
        "C = make_dataclass('C', []); C.__module__ = 'data.files'\n"
        "run(C, fine, []); print('it ended'); run(C, wrong, [])"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True,
                          env={**os.environ, "PYTHONIOENCODING": encoding})  # fmt: skip
    expected = [r"one \U0001f600 \u6771 \ufffd", r"two \u6771", "it ended"]
    assert done.stdout.decode("ascii").splitlines() == expected
    assert done.stderr.decode("ascii").strip() == r"error: three \u6771" and done.returncode == 2


# ---------------------------------------------------------------------------------------- files
def locked(monkeypatch, times: int):
    """os.replace that refuses so many times."""
    tries, replace = [], os.replace

    def refuse(source, target):
        tries.append(target)
        if len(tries) <= times:
            raise PermissionError(13, "Access is denied")
        replace(source, target)

    monkeypatch.setattr(os, "replace", refuse)
    return tries


def test_a_file_that_is_locked_for_a_moment_is_written(tmp_path, monkeypatch):
    write_text(tmp_path / "a.txt", "old")
    clock, tries = Clock(monkeypatch), locked(monkeypatch, 10)
    write_text(tmp_path / "a.txt", "new")
    assert (tmp_path / "a.txt").read_text() == "new" and len(tries) == 11
    assert 0.5 < clock.now < 2


def test_a_file_that_stays_locked_stays_as_it_was_after_two_seconds(tmp_path, monkeypatch):
    write_text(tmp_path / "a.txt", "old")
    clock = Clock(monkeypatch)
    locked(monkeypatch, 1000)
    with pytest.raises(UserError, match="a.txt cannot be written: .*Access is denied"):
        write_text(tmp_path / "a.txt", "new")
    assert (tmp_path / "a.txt").read_text() == "old" and os.listdir(tmp_path) == ["a.txt"]
    assert 2 <= clock.now < 2.3


def full_disk(monkeypatch, fails, error=OSError(28, "No space left on device")):
    """torch.save that ends in the middle of those files, by their number, for which fails(n)."""
    written, torch_save = [], torch.save

    def save_half(content, file):
        written.append(Path(file).name)
        torch_save(content, file)
        if fails(len(written)):
            whole = Path(file).read_bytes()
            Path(file).write_bytes(whole[: len(whole) // 2])
            raise error

    monkeypatch.setattr(torch, "save", save_half)
    return written


def each_step(monkeypatch):
    monkeypatch.setattr(checkpoints, "SECONDS", 0)
    monkeypatch.setattr(checkpoints, "SHARE", math.inf)


def test_a_state_that_cannot_be_written_is_one_warning_and_the_next_is_tried(
    folder, monkeypatch, capsys
):
    run_sft(folder, epochs=6)
    expected = model(folder, "sft")
    each_step(monkeypatch)
    written = full_disk(monkeypatch, lambda n: n in (2, 3))
    kept = []
    unlink = Path.unlink
    monkeypatch.setattr(Path, "unlink", lambda file, **known: (
        kept.append(checkpoints.read(folder / "sft.state")["steps"]), unlink(file, **known)
    ))  # fmt: skip
    run_sft(folder, epochs=6)
    printed = capsys.readouterr().out
    assert printed.count("warning: ") == 1
    assert "sft.state cannot be written: [Errno 28] No space left on device;" in printed
    assert written == ["sft.state.tmp"] * 6 + ["sft.pt.tmp"]
    assert kept == [1, 1, 6]  # after a failure the state before is still whole
    assert same_weights(expected, model(folder, "sft")) and not list(folder.glob("*.tmp"))


def test_a_product_that_cannot_be_written_is_an_error_and_the_last_one_and_the_state_stay(
    folder, monkeypatch
):
    before = (folder / "sft.pt").read_bytes()
    each_step(monkeypatch)
    full_disk(monkeypatch, lambda n: n == 4, RuntimeError("unexpected pos 576 vs 534"))
    with pytest.raises(UserError, match=r"sft.pt cannot be written: is the disk full\? unexpected"):
        run_sft(folder)  # three steps
    assert (folder / "sft.pt").read_bytes() == before
    monkeypatch.undo()
    monkeypatch.setattr(sft, "sft_loss", None)  # no step is left to do
    monkeypatch.setattr(sft, "held_out_loss", None)
    run_sft(folder, resume=True)
    assert (folder / "sft.pt").read_bytes() != before and not (folder / "sft.state").exists()


def test_a_state_that_cannot_be_removed_is_no_error(folder, monkeypatch):
    def refuse(*args, **known):
        raise PermissionError(13, "Access is denied")

    monkeypatch.setattr(Path, "unlink", refuse)
    run_sft(folder)


def test_states_take_a_fiftieth_of_the_time(folder, monkeypatch):
    """A step takes 4 s, and a state 3 s: the second one 150 s after the first."""
    clock, steps, loss = Clock(monkeypatch), [], sft.sft_loss

    def slow(state, settings, step, *rest):
        steps.append(step)
        clock.now += 3

    def four_seconds(*args):
        clock.now += 4
        return loss(*args)

    monkeypatch.setattr(sft, "sft_loss", four_seconds)
    monkeypatch.setattr(checkpoints, "keep", slow)
    monkeypatch.setattr(sft, "held_out_loss", lambda *args: 0.0)
    run_sft(folder, epochs=90)
    assert steps == [4, 42, 80]  # after 16 s (SECONDS is 15), then every 150
    steps.clear()
    monkeypatch.setattr(checkpoints, "keep", lambda state, settings, step, *x: steps.append(step))
    run_sft(folder, epochs=10)
    assert steps == [4, 8]


# --------------------------------------------------------------------------------------- memory
@pytest.mark.parametrize("error", [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), MemoryError(),
    RuntimeError("[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory"),
    RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes."),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"),
])  # fmt: skip
def test_too_little_memory_is_a_sentence_with_the_flags_that_help(capsys, error):
    def main(config):
        raise error

    for config, says in ((Config, "--count or --max-new"), (Plain, "model")):
        with pytest.raises(SystemExit) as end:
            run(config, main, [])
        said = capsys.readouterr().err
        assert end.value.code == 2
        assert said == f"error: the memory is full: try a smaller {says}\n"


def test_a_real_allocation_that_fails_is_known(capsys):
    with pytest.raises(SystemExit) as end:
        run(Config, lambda config: torch.empty(2**55), [])
    assert end.value.code == 2 and "the memory is full" in capsys.readouterr().err


def test_other_errors_of_torch_keep_their_traceback():
    with pytest.raises(RuntimeError, match="shape"):
        run(Config, lambda config: torch.ones(2, 3) @ torch.ones(2, 3), [])


def test_a_full_memory_is_not_taken_for_a_damaged_file(folder, monkeypatch):
    def full(*args, **known):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    stopped(monkeypatch, 1, run_sft, folder)
    for owner, name, resume in (
        (torch, "load", False), (torch.nn.Module, "load_state_dict", False),
        (torch.optim.Optimizer, "load_state_dict", True),
    ):  # fmt: skip
        with monkeypatch.context() as patch, pytest.raises(torch.OutOfMemoryError):
            patch.setattr(owner, name, full)
            run_sft(folder, resume=resume)


# --------------------------------------------------------------------------------------- devices
def test_auto_is_a_gpu_that_works(monkeypatch, capsys):
    ones, asked = torch.ones, []
    monkeypatch.setattr(torch, "ones", lambda *shape, device: asked.append(device) or ones(*shape))
    assert pick_device("auto") == "cpu" and asked == []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert pick_device("auto") == "cuda" and asked == ["cuda"]
    assert pick_device("cpu") == "cpu" and capsys.readouterr().out == ""

    def no_kernels(*args):
        raise RuntimeError("CUDA error: no kernel image is available\nCUDA kernel errors might")

    monkeypatch.setattr(torch.Tensor, "__matmul__", no_kernels)
    assert pick_device("auto") == "cpu"
    says = "the GPU does not work, the CPU is used: CUDA error: no kernel image is available\n"
    assert capsys.readouterr().out == says
    with pytest.raises(UserError, match="device cuda is not available here: use --device cpu"):
        pick_device("cuda")


def test_trying_a_device_draws_no_random_number():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    pick_device("cpu")
    assert torch.equal(torch.get_rng_state(), before)


def test_optimizers_are_fused_but_on_a_macs_gpu(folder, monkeypatch):
    assert fused("cpu") and fused("cuda:1") and fused(torch.device("cuda"))
    assert not fused("mps") and not fused("mps:0") and not fused(torch.device("mps"))
    for run_script, kind, module in (
        (run_pretrain, torch.optim.AdamW, pretrain), (run_sft, torch.optim.Adam, sft),
        (run_reward, torch.optim.Adam, reward), (run_ppo, torch.optim.Adam, ppo),
    ):  # fmt: skip
        for is_fused in (True, False):
            asked = []
            with monkeypatch.context() as patch:
                made = optimizers_of(patch, kind)
                patch.setattr(module, "fused", lambda device: asked.append(device) or is_fused)
                shutil.copytree(folder, folder / f"{module.__name__}{is_fused}",
                                ignore=shutil.ignore_patterns("*True", "*False"))  # fmt: skip
                run_script(folder / f"{module.__name__}{is_fused}")
            assert [o.defaults["fused"] for o in made] == [is_fused] * len(made)
            assert [str(device) for device in asked] == ["cpu"] * len(made) and made


# --------------------------------------------------------------------------------------- folders
def test_data_is_found_from_any_folder_and_the_own_one_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert located("data/valid.jsonl").read_bytes() == (ROOT / "data/valid.jsonl").read_bytes()
    assert located("data/missing.jsonl") == Path("data/missing.jsonl")
    assert located(ROOT / "README.md") == ROOT / "README.md"
    assert located("") == Path("")
    write_text("data/valid.jsonl", "mine")
    assert located("data/valid.jsonl").read_text() == "mine"


# ---------------------------------------------------------------------------------------- resume
def goes_on(monkeypatch, run_script, *args, **settings) -> list[int]:
    """Runs with --resume; returns the numbers, from 1, of the steps it does."""
    steps = []
    with monkeypatch.context() as patch:
        each_step(patch)
        patch.setattr(checkpoints, "keep", lambda state, values, step, *rest: steps.append(step))
        run_script(*args, resume=True, **settings)
    return steps


def refused(folder: Path, run_script, says: str, **changes) -> None:
    """--resume says so in one sentence, and no file has changed."""
    before = {file: file.read_bytes() for file in folder.iterdir()}
    with pytest.raises(UserError) as error:
        run_script(folder, resume=True, **changes)
    assert str(error.value) == f"{folder}/{says}, or leave --resume out to start anew"
    assert {file: file.read_bytes() for file in folder.iterdir()} == before


@pytest.mark.parametrize("run_script, name", [
    (run_pretrain, "base"), (run_sft, "sft"), (run_reward, "reward"), (run_ppo, "ppo"),
])  # fmt: skip
def test_a_run_goes_on_in_another_folder_with_its_data_there(folder, monkeypatch, run_script, name):
    changes = {"batch": 40} if run_script is run_pretrain else {}
    run_script(folder, **changes)
    expected = model(folder, name)
    stopped(monkeypatch, 2, run_script, folder, **changes)
    place = folder.rename(folder.with_name(folder.name + "_moved"))
    assert goes_on(monkeypatch, run_script, place, **changes)[0] == 3
    assert same_weights(expected, model(place, name))
    assert not (place / f"{name}.state").exists()


def test_a_folder_may_be_spelled_in_another_way_and_the_device_and_the_lines_be_others(
    folder, monkeypatch
):
    run_ppo(folder)
    expected = model(folder, "ppo")
    stopped(monkeypatch, 2, run_ppo, folder)
    monkeypatch.chdir(folder)
    place = Path("./../") / folder.name
    changes = {"prompts": "./prompts.jsonl", "log": 1, "snapshots": 1}
    assert goes_on(monkeypatch, run_ppo, place, **changes) == [3]
    assert same_weights(expected, model(folder, "ppo"))
    assert [line["iteration"] for line in lines(folder, "ppo")] == [-1, 0, 1]
    config = ppo.Config(device="auto", out=".")
    assert checkpoints.State(Path("a"), config).settings == (
        checkpoints.State(Path("b"), ppo.Config(device="cpu", out="./")).settings
    )


@pytest.mark.parametrize("run_script, state, file, flag", [
    (run_pretrain, "base", "text", "--text"), (run_sft, "sft", "pairs", "--demonstrations"),
    (run_reward, "reward", "ranked", "--comparisons"),
    (run_reward, "reward", "pairs", "--demonstrations"), (run_ppo, "ppo", "prompts", "--prompts"),
])  # fmt: skip
def test_a_data_file_that_was_edited_since_is_refused_and_nothing_is_written(
    folder, monkeypatch, run_script, state, file, flag
):
    stopped(monkeypatch, 1, run_script, folder)
    data = folder / f"{file}.jsonl"
    whole = data.read_bytes()
    rows = whole.splitlines(keepends=True)
    for edited in (rows + rows[:1], rows[:10], [rows[0].replace(b"one", b"two"), *rows[1:]]):
        data.write_bytes(b"".join(edited))
        refused(folder, run_script, f"{state}.state was made with another {flag} file: put it back")
    data.write_bytes(whole)
    run_script(folder, resume=True)


def test_other_settings_are_named_with_both_values(folder, monkeypatch):
    stopped(monkeypatch, 1, run_sft, folder, lr=1e-3)
    for changes, then, now in (
        ({"lr": 3e-4}, "--lr 0.001", "--lr 0.0003"),
        ({"lr": 1e-3, "epochs": 5}, "--epochs 3", "--epochs 5"),  # has other learning rates
        ({"lr": 1e-3, "prompt_loss": True}, "--no-prompt-loss", "--prompt-loss"),
        ({"lr": 1e-3, "seed": 1}, "--seed 0", "--seed 1"),
    ):
        says = f"sft.state was made with {then}, not with {now}: give {then}"
        refused(folder, run_sft, says, **changes)


def test_a_state_of_a_version_with_other_settings_is_refused(folder, monkeypatch):
    stopped(monkeypatch, 1, run_sft, folder)
    content = torch.load(folder / "sft.state")
    del content["settings"]["--batch"]
    torch.save(content, folder / "sft.state")
    with pytest.raises(UserError, match="of another version: leave --resume out to start anew"):
        run_sft(folder, resume=True)


def test_a_vocabulary_is_not_replaced_by_that_of_an_edited_text(folder, monkeypatch):
    for file in folder.glob("*.pt"):
        file.unlink()
    stopped(monkeypatch, 1, run_pretrain, folder, vocabulary=270)
    write_jsonl(folder / "text.jsonl", [{"text": "ten tents"}] * 20)
    says = "base.state was made with another --text file: put it back"
    refused(folder, run_pretrain, says, vocabulary=270)


def sampled_reward(folder, **changes):
    """The reward model of comparisons that are sampled and ranked anew."""
    write_jsonl(folder / "known.jsonl", [{"prompt": "Name two colors."}] * 4)
    settings = {"prompts": str(folder / "known.jsonl"), "valid": str(folder / "known.jsonl"),
                "comparisons": "", "public": 0, "batch": 1, "max_new": 4, **changes}  # fmt: skip
    return run_reward(folder, **settings)


def test_comparisons_are_sampled_anew_only_for_the_same_settings_and_models(folder, monkeypatch):
    stopped(monkeypatch, 1, sampled_reward, folder)
    says = "reward.state was made with --seed 0, not with --seed 1: give --seed 0"
    refused(folder, sampled_reward, says, seed=1)
    says = "reward.state was made without --comparisons: leave it out"
    refused(folder, sampled_reward, says, comparisons=str(folder / "ranked.jsonl"))
    good = (folder / "sft.pt").read_bytes()
    save(folder / "sft.pt", other_weights(model(folder, "sft"), 0.1), {})
    refused(folder, sampled_reward, "reward.state was made from another sft model: put it back")
    (folder / "sft.pt").write_bytes(good)
    save(folder / "ppo.pt", model(folder, "sft"), {})
    stopped(monkeypatch, 1, sampled_reward, folder, round=2)
    save(folder / "ppo.pt", other_weights(model(folder, "sft"), 0.1), {})
    says = "reward2.state was made from another policy model: put it back"
    refused(folder, sampled_reward, says, round=2)
    sampled_reward(folder, resume=True)


def test_ppo_may_go_on_for_longer_and_for_fewer_iterations_that_are_not_done(folder, monkeypatch):
    expected = {}
    for iterations in (2, 3, 6):
        run_ppo(folder, iterations=iterations)
        expected[iterations] = model(folder, "ppo"), lines(folder, "ppo")
    stopped(monkeypatch, 3, run_ppo, folder, iterations=3)  # one of them the value network's alone
    state = (folder / "ppo.state").read_bytes()
    says = "ppo.state has 3 steps done, more than the 2 asked for: give more --iterations"
    refused(folder, run_ppo, says, iterations=1)
    for iterations, (policy, log) in expected.items():
        (folder / "ppo.state").write_bytes(state)
        steps = goes_on(monkeypatch, run_ppo, folder, iterations=iterations)
        assert steps == list(range(4, iterations + 2))
        assert same_weights(policy, model(folder, "ppo"))
        for one, other in zip(log, lines(folder, "ppo"), strict=True):
            assert one | {"seconds": 0} == other | {"seconds": 0}


def test_without_a_state_a_run_starts_anew_and_says_so(folder, capsys):
    run_sft(folder)
    says = f"there is no {folder}/sft.state to go on from: a new run starts\n"
    assert says not in capsys.readouterr().out
    expected = model(folder, "sft")
    run_sft(folder, resume=True)
    assert says in capsys.readouterr().out
    assert same_weights(expected, model(folder, "sft"))


def test_what_an_interrupted_write_has_left_is_in_nobodys_way(folder, monkeypatch):
    for file in ("sft.state", "sft.pt", "sft.jsonl"):
        (folder / f"{file}.tmp").write_bytes(b"half")
    stopped(monkeypatch, 1, run_sft, folder)
    run_sft(folder, resume=True)
    assert not list(folder.glob("*.tmp"))
