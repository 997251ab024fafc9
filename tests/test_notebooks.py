"""The notebooks as they are stored, and (pytest -m notebooks) run with the preset."""

import ast
import builtins
import json
import os
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# Each notebook and the figures it must show at least.
FIGURES = {
    "1_model": 3,
    "2_sft": 2,
    "3_reward": 4,
    "4_ppo_by_hand": 3,
    "5_ppo_training": 3,
    "6_instructgpt_vs_gpt3": 3,
}


def read(name: str) -> dict:
    return json.loads((ROOT / "notebooks" / f"{name}.ipynb").read_text(encoding="utf-8"))


def sources(name: str, kind: str) -> list[str]:
    return ["".join(cell["source"]) for cell in read(name)["cells"] if cell["cell_type"] == kind]


@pytest.mark.parametrize("name", FIGURES)
def test_a_notebook_is_stored_as_it_ran_once_from_top_to_bottom(name):
    assert (ROOT / "notebooks" / f"{name}.ipynb").stat().st_size <= 500_000
    cells = [cell for cell in read(name)["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert not [o for o in outputs if o["output_type"] == "error" or o.get("name") == "stderr"]
    assert sum("image/png" in o.get("data", {}) for o in outputs) >= FIGURES[name]


@pytest.mark.parametrize("name", FIGURES)
def test_a_notebook_is_plain_python_that_redefines_no_function_of_the_scripts(name):
    ours = set()
    for file in [*ROOT.glob("*.py"), *(ROOT / "data").glob("*.py")]:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                ours.add(node.name)
    for source in sources(name, "code"):
        defined = {n.name for n in ast.walk(ast.parse(source))
                   if isinstance(n, ast.FunctionDef | ast.ClassDef)}  # fmt: skip
        assert not defined & ours
        assert not re.search(r"['\"](/(home|root|tmp|work|Users)\b|[A-Z]:\\)", source)


@pytest.mark.parametrize("name", FIGURES)
def test_a_notebook_says_its_aim_asks_for_predictions_and_ends_with_exercises(name):
    cells = sources(name, "markdown")
    assert "minute" in cells[0] and "FAST=1" in cells[0]
    assert sum("Predict, then run" in cell for cell in cells) >= 2
    assert "".join(cells).count("<details>") == 3 == "".join(cells).count("</details>")
    assert f"notebooks/{name}.ipynb" in (ROOT / "README.md").read_text(encoding="utf-8")


def names_of(code: str, kind: type) -> set[str]:
    """The names that some code reads (ast.Load) or sets (ast.Store), imports and defines."""
    nodes = list(ast.walk(ast.parse(code)))
    names = {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, kind)}
    if kind is ast.Store:
        names |= {n.name for n in nodes if isinstance(n, ast.FunctionDef)}
        names |= {n.arg for n in nodes if isinstance(n, ast.arg)}
        names |= {(n.asname or n.name).split(".")[0] for n in nodes if isinstance(n, ast.alias)}
    return names


@pytest.mark.parametrize("name", FIGURES)
def test_the_answers_of_exercises_use_names_that_the_notebook_has(name):
    known = set(dir(builtins)).union(*(names_of(c, ast.Store) for c in sources(name, "code")))
    answers = re.findall(r"```python\n(.*?)```", "\n".join(sources(name, "markdown")), re.DOTALL)
    assert answers
    for code in answers:
        assert not names_of(code, ast.Load) - known - names_of(code, ast.Store), code


@pytest.mark.notebooks
@pytest.mark.parametrize("name", FIGURES)
def test_a_notebook_runs_without_checkpoints(name, monkeypatch):
    nbformat = pytest.importorskip("nbformat", reason="pip install -r notebooks/requirements.txt")
    nbclient = pytest.importorskip("nbclient", reason="pip install -r notebooks/requirements.txt")
    monkeypatch.setitem(os.environ, "FAST", "1")
    notebook = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
    nbformat.validate(notebook)
    where = {"metadata": {"path": str(ROOT / "notebooks")}}
    nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3", resources=where).execute()
