"""Every fault of tests/mutants.py must be caught by a test that names its part."""

import multiprocessing
import os
import shutil
import sys
from pathlib import Path

import pytest
import torch

from tests.mutants import MUTANTS, planted

ROOT = Path(__file__).parent.parent
# A process for each fault, forked from one that has imported torch once.
processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(["pytest", "torch", "tiktoken"])


def in_copy(copy, tests, part):
    """Run those tests of the copy that name part; what pytest prints goes to the file output."""
    output = open(copy / "output", "w", encoding="utf-8")
    for stream in (1, 2):
        os.dup2(output.fileno(), stream)
    os.chdir(copy)
    os.environ.update(PYTHONPATH=str(copy), OMP_NUM_THREADS="1", PYTEST_DISABLE_PLUGIN_AUTOLOAD="1")
    torch.set_num_threads(1)
    sys.dont_write_bytecode = True
    sys.path.insert(0, str(copy))
    for name in [name for name in sys.modules if name.split(".")[0] == "tests"]:
        del sys.modules[name]  # the copy's are imported instead
    pytest.main(["-x", "-q", "-p", "no:cacheprovider", "--assert=plain", "-k", part, tests])


def outcome(copy, file, old, new, tests, part):
    """What pytest prints of the tests that name part once new stands for old in a copy's file."""
    for path in [*ROOT.glob("*.py"), *ROOT.glob("tests/*.py"), ROOT / ".pytest.ini"]:
        (copy / path.relative_to(ROOT)).parent.mkdir(exist_ok=True)
        shutil.copy(path, copy / path.relative_to(ROOT))
    (copy / "data").mkdir()
    for path in (ROOT / "data").iterdir():  # files of data are planted in a copy, too
        if path.suffix == ".py":
            shutil.copy(path, copy / "data")
        elif path.name != "__pycache__":
            (copy / "data" / path.name).symlink_to(path)
    text = planted((copy / file).read_text(encoding="utf-8"), old, new)
    (copy / file).write_text(text, encoding="utf-8")
    run = processes.Process(target=in_copy, args=(copy, tests, part))
    run.start()
    run.join(timeout=120)
    if run.exitcode is None:
        run.kill()
        pytest.fail(f"the tests of {part} take more than two minutes")
    return (copy / "output").read_text(encoding="utf-8")


@pytest.mark.mutants
@pytest.mark.parametrize("number", range(len(MUTANTS)), ids=lambda n: f"{n}-{MUTANTS[n][4]}")
def test_mutants_are_caught(number, tmp_path):
    output = outcome(tmp_path, *MUTANTS[number])
    assert "1 failed" in output, f"not caught by a test of {MUTANTS[number][4]}:\n{output[-500:]}"


@pytest.mark.mutants
@pytest.mark.parametrize("tests", sorted({mutant[3] for mutant in MUTANTS}))
def test_without_a_fault_the_copy_passes(tests, tmp_path):
    file, old, _, _, part = next(mutant for mutant in MUTANTS if mutant[3] == tests)
    assert " passed" in (output := outcome(tmp_path, file, old, old, tests, part)), output
    assert "failed" not in output, output


def test_every_mutant_fits_one_place_of_the_code_and_names_a_test():
    for file, old, new, tests, part in MUTANTS:
        assert planted((ROOT / file).read_text(encoding="utf-8"), old, new)
        names = [line for line in (ROOT / tests).read_text().splitlines() if "def test_" in line]
        assert any(part in name for name in names), f"no test of {tests} names {part}"
