"""The notebooks as they are stored, and (pytest -m notebooks) run with small sizes."""

import ast
import builtins
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "notebooks"))

from published import quotes  # noqa: E402

# Each notebook and the figures it must show at least.
FIGURES = {
    "1_model": 6,
    "2_sft": 5,
    "3_reward": 6,
    "4_ppo_by_hand": 6,
    "5_ppo_training": 6,
    "6_instructgpt_vs_gpt3": 6,
}
# Numbers in the texts that nothing measured: settings, arithmetic and the paper's figures.
CONSTANTS = {
    "1_model": "",
    "2_sft": "3.5 0.7 2.3",
    "3_reward": "100 90 86 50 14 3.4 3.5 1.3 0.4 0.38",
    "4_ppo_by_hand": "3.5 0.15 0.95 0.49 0.2 1.2 0.05 64.2",
    "5_ppo_training": "3.5 4.3 0.15 0.05 0.5 0.95 0.00 20 95 1.0 0.3 0.8 1.2 14.7",
    "6_instructgpt_vs_gpt3": "95 5 70 0.03 0.05 0.39 0.5 0.73 3.17 0.01 0.15",
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
    figures = [o for o in outputs if "image/png" in o.get("data", {})]
    assert len(figures) >= FIGURES[name]
    for figure in figures:
        # The alternative text is the finding, and a finding is more than a label.
        assert len(figure["metadata"]["image/png"]["alt"].split()) >= 4


@pytest.mark.parametrize("name", FIGURES)
def test_a_notebook_is_plain_python_in_short_cells_that_redefines_no_function(name):
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
        assert len(source.splitlines()) <= 25 and "fmt: skip" not in source, source


@pytest.mark.parametrize("name", FIGURES)
def test_every_prediction_is_answered_right_behind_the_code_that_it_asks_about(name):
    cells = read(name)["cells"]
    asked = [i for i, cell in enumerate(cells) if "Predict, then run" in "".join(cell["source"])]
    assert len(asked) >= 3
    for i in asked:
        kinds = [cell["cell_type"] for cell in cells[i:]]
        behind = kinds.index("code") + kinds[kinds.index("code") :].index("markdown")
        answer = "".join(cells[i + behind]["source"])
        assert not answer.startswith("#"), f"an answer, not a heading: {answer[:60]}"


@pytest.mark.parametrize("name", FIGURES)
def test_a_notebook_has_an_aim_knobs_something_to_write_and_exercises(name):
    cells, code = sources(name, "markdown"), sources(name, "code")
    assert "minute" in cells[0] and "](../" in cells[0] and ".ipynb)" in cells[0] + cells[-1]
    assert sum(source.startswith("# Turn this:") for source in code) >= 2
    assert sum("lab.written(" in source for source in code) >= 1
    assert "".join(cells).count("<details>") >= 4
    assert "".join(cells).count("<details>") == "".join(cells).count("</details>")
    assert any("lab.here(" in source for source in code)
    assert f"notebooks/{name}.ipynb" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_all_notebooks_find_the_repository_in_the_same_way():
    assert len({sources(name, "code")[0] for name in FIGURES}) == 1


@pytest.mark.parametrize("where", ["", "notebooks", "data", "elsewhere"])
def test_the_first_cell_works_from_any_folder_of_the_repository_or_says_what_to_do(where, tmp_path):
    folder = tmp_path if where == "elsewhere" else ROOT / where
    code = sources("1_model", "code")[0] + "\nprint(lab.ROOT)"
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)
    if where == "elsewhere":
        assert done.returncode == 1 and done.stderr.startswith("This notebook needs the repository")
    else:
        assert done.stdout.strip() == str(ROOT)


def names_of(code: str, kind: type) -> set[str]:
    """The names that some code reads (ast.Load) or sets (ast.Store), imports and defines."""
    nodes = list(ast.walk(ast.parse(code)))
    names = {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, kind)}
    if kind is ast.Store:
        names |= {n.name for n in nodes if isinstance(n, ast.FunctionDef)}
        names |= {n.arg for n in nodes if isinstance(n, ast.arg)}
        names |= {(n.asname or n.name).split(".")[0] for n in nodes if isinstance(n, ast.alias)}
    return names


def answers(name: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", "\n".join(sources(name, "markdown")), re.DOTALL)


@pytest.mark.parametrize("name", FIGURES)
def test_the_answers_of_exercises_use_names_that_the_notebook_has(name):
    known = set(dir(builtins)).union(*(names_of(c, ast.Store) for c in sources(name, "code")))
    assert answers(name)
    for code in answers(name):
        assert not names_of(code, ast.Load) - known - names_of(code, ast.Store), code


@pytest.mark.parametrize("page", quotes.PAGES, ids=lambda page: f"{page.parent.name}/{page.name}")
def test_numbers_in_the_texts_are_those_that_were_measured(page):
    assert quotes.rewritten(page) == page.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", FIGURES)
def test_every_measured_number_says_where_it_comes_from(name):
    text = "\n".join(sources(name, "markdown"))
    text = quotes.QUOTE.sub("", text)
    for hidden in (r"```.*?```", r"`[^`]*`", r"\$\$.*?\$\$", r"\$[^$]*\$", r"\]\([^)]*\)"):
        text = re.sub(hidden, "", text, flags=re.DOTALL)
    found = set(re.findall(r"(?<![\w.])\d*\.\d+(?![\w.])|\d+(?= ?%)", text))
    assert not found - set(CONSTANTS[name].split())


@pytest.mark.parametrize("seed", (0, 1, 2))
def test_a_published_gain_is_the_difference_of_the_means_beside_it(seed):
    entries = [(e, "ppo", "sft") for e in quotes.part(f"temperature{seed}").values()]
    for entry, one, other in [*entries, (quotes.part(f"control{seed}"), "newest", "control")]:
        difference = entry[one]["value"] - entry[other]["value"]
        assert entry["gain"]["value"] == pytest.approx(difference, abs=1e-9)
        assert entry["gain"]["low"] < difference < entry["gain"]["high"]


def test_a_quoted_number_follows_its_source():
    outputs = "SFT   gold 0.57\nnoticed 152 of 300 (51%)"
    assert quotes.filled("0.1<!-- out: gold (\\S+) -->", outputs) == "0.6<!-- out: gold (\\S+) -->"
    assert quotes.filled("9 %<!-- out: (\\d+%) -->", outputs).startswith("51 %")
    assert quotes.filled("+.1<!-- out: gold (\\S+) -->", outputs).startswith("+0.6")
    with pytest.raises(LookupError):
        quotes.filled("1<!-- out: silver (\\d) -->", outputs)
    models = [quotes.part(f"seed{seed}")["models"] for seed in (0, 1, 2)]
    gold = [model["ppo"]["gold"]["value"] for model in models]
    path = "seed/models/ppo/gold"
    assert quotes.filled(f"0.000<!-- mean {path} -->").startswith(f"{sum(gold) / 3:.3f}")
    assert quotes.filled(f"0.000<!-- max {path} -->").startswith(f"{max(gold):.3f}")
    gain = gold[0] - models[0]["sft"]["gold"]["value"]
    sources_ = "seed0/models/ppo/gold - seed0/models/sft/gold"
    assert quotes.filled(f"0.00<!-- {sources_} -->").startswith(f"{gain:.2f}")
    with pytest.raises(LookupError):
        quotes.filled(f"0.00<!-- {path} -->")


def run(name: str, notebook: dict):
    nbclient = pytest.importorskip("nbclient", reason="pip install -r notebooks/requirements.txt")
    where = {"metadata": {"path": str(ROOT / "notebooks")}}
    nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3", resources=where).execute()


@pytest.mark.notebooks
@pytest.mark.parametrize("name", FIGURES)
def test_a_notebook_runs_and_its_answer_to_the_thing_to_write_is_right(name, monkeypatch):
    """In place of each stub stands the answer that the notebook gives, and its check agrees."""
    nbformat = pytest.importorskip("nbformat", reason="pip install -r notebooks/requirements.txt")
    monkeypatch.setitem(os.environ, "FAST", "1")
    notebook = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    checks = [i for i, cell in enumerate(cells) if "lab.written(" in cell.source]
    for i in checks:
        (function,) = re.findall(r"lab\.written\((\w+)\)", cells[i].source)
        stub = next(c for c in reversed(cells[:i]) if f"def {function}(" in c.source)
        (stub.source,) = [a for a in answers(name) if f"def {function}(" in a]
    run(name, notebook)
    for i in checks:
        assert "right" in "".join(output.get("text", "") for output in cells[i].outputs)
