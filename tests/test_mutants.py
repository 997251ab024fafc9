"""Every fault of tests/mutants.py must be caught by a test that names its part."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mutants import MUTANTS, planted

ROOT = Path(__file__).parent.parent


@pytest.mark.mutants
@pytest.mark.parametrize("number", range(len(MUTANTS)), ids=lambda n: f"{n}-{MUTANTS[n][4]}")
def test_mutants_are_caught(number, tmp_path):
    file, old, new, tests, part = MUTANTS[number]
    for path in [*ROOT.glob("*.py"), *ROOT.glob("tests/*.py"), ROOT / "tests" / "pytest.ini"]:
        (tmp_path / path.relative_to(ROOT)).parent.mkdir(exist_ok=True)
        shutil.copy(path, tmp_path / path.relative_to(ROOT))
    data = tmp_path / "data"
    data.mkdir()
    for path in (ROOT / "data").iterdir():  # files of data are planted in a copy, too
        if path.suffix == ".py":
            shutil.copy(path, data)
        elif path.name != "__pycache__":
            (data / path.name).symlink_to(path)
    text = planted((tmp_path / file).read_text(encoding="utf-8"), old, new)
    (tmp_path / file).write_text(text, encoding="utf-8")
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-k", part, tests],
        cwd=tmp_path, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1",
             "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert run.returncode == 1, f"not caught by a test of {part}:\n{run.stdout[-500:]}"


def test_every_mutant_fits_one_place_of_the_code_and_names_a_test():
    for file, old, new, tests, part in MUTANTS:
        assert planted((ROOT / file).read_text(encoding="utf-8"), old, new)
        names = [line for line in (ROOT / tests).read_text().splitlines() if "def test_" in line]
        assert any(part in name for name in names), f"no test of {tests} names {part}"
