"""Makes what is handed out: the repository with the exercises' functions blanked, and what helps.

    python notebooks/course/make.py FOLDER                     all exercises
    python notebooks/course/make.py FOLDER --only gae,whiten   the rest works
    python notebooks/course/make.py FOLDER --bug 2             all works but for one planted fault
    python notebooks/course/make.py FOLDER --nbgrader          a course folder for nbgrader

The repository is the solution. A function is blanked by its name: its signature, its docstring and
the comments on lines of their own stay as hints. What the right code answers to the inputs that
come with the copy is stored beside the answers of the usual mistakes, as numbers.
"""

import argparse
import ast
import importlib
import json
import re
import shutil
import sys
import types
from pathlib import Path

import torch
from bugs import BUGS
from exercises import BY_NAME, EXERCISES, SEEDS, Exercise, inputs_of, outputs_of
from mistakes import MISTAKES

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(ROOT))  # where the scripts are

SCRIPTS = ("model.py", "pretrain.py", "sft.py", "reward.py", "ppo.py", "evaluate.py")
GIVEN = ("base.pt", "sft.pt", "reward.pt")  # nobody has to pretrain in order to do PPO


# ------------------------------------------------------------------------------------- blanking
def functions_of(text: str) -> dict[str, ast.FunctionDef]:
    """All functions of a file by name, methods as Class.method; of two the last, as in Python."""
    found = {}
    for node in ast.parse(text).body:
        if isinstance(node, ast.FunctionDef):
            found[node.name] = node
        elif isinstance(node, ast.ClassDef):
            found |= {f"{node.name}.{inner.name}": inner for inner in node.body
                      if isinstance(inner, ast.FunctionDef)}  # fmt: skip
    return found


def body_of(node: ast.FunctionDef) -> tuple[int, int]:
    """The lines of a function's body behind its docstring, from 0, the end not included."""
    documented = ast.get_docstring(node) is not None
    start = node.body[0].end_lineno if documented else node.body[0].lineno - 1
    return start, node.end_lineno


def blank(text: str, exercises: list[Exercise], file: str) -> str:
    """The file's text without the bodies of the exercises' functions."""
    lines, functions = text.splitlines(), functions_of(text)
    blanks = [(functions[name], e.name) for e in exercises if e.file == file for name in e.blanks]
    for node, name in sorted(blanks, key=lambda pair: -pair[0].lineno):  # from below
        start, end = body_of(node)
        pad = " " * node.body[0].col_offset
        hints = [pad + line.strip() for line in lines[start:end] if line.strip().startswith("#")]
        lines[start:end] = [*hints, f'{pad}raise NotImplementedError("exercise {name}")']
    return "\n".join(lines) + "\n"


# ------------------------------------------------------------------- answers, right and mistaken
def variant(file: str, right: str, wrong: str):
    """A script as a module, with one piece of its code replaced."""
    text = (ROOT / file).read_text(encoding="utf-8")
    if text.count(right) != 1:
        raise ValueError(f"{file} does not have exactly once: {right}")
    module = types.ModuleType("variant")
    exec(compile(text.replace(right, wrong), file, "exec"), module.__dict__)
    return module


def answers(exercise: Exercise, inputs: dict) -> tuple[dict, list[tuple[str, dict]]]:
    """What the repository's functions answer, and a sentence with the answer of each mistake."""
    right = outputs_of(exercise, importlib.import_module(exercise.file[:-3]), inputs)
    mistaken = [(says, outputs_of(exercise, variant(exercise.file, good, bad), inputs))
                for name, good, bad, says in MISTAKES if name == exercise.name]  # fmt: skip
    return right, mistaken


def expected(exercises: list[Exercise]) -> dict:
    """Of every exercise and seed: inputs, right outputs, and those of the usual mistakes."""
    found: dict[str, list] = {}
    for exercise in exercises:
        for seed in SEEDS:
            inputs = inputs_of(exercise, seed)
            found.setdefault(exercise.name, []).append((inputs, *answers(exercise, inputs)))
    return found


# --------------------------------------------------------------------------- what goes with it
def table(exercises: list[Exercise]) -> str:
    """The exercises in Markdown, a row for each."""
    rows = ["| exercise | blanked | points | minutes | difficulty | section of the paper |",
            "|---|---|---|---|---|---|"]  # fmt: skip
    for i, e in enumerate(exercises, 1):
        rows.append(f"| {i}. {e.name} | {e.file}: {', '.join(f'`{name}`' for name in e.blanks)} "
                    f"| {e.points} | {e.minutes} | {e.difficulty} | {e.section} |")  # fmt: skip
    points, minutes = sum(e.points for e in exercises), sum(e.minutes for e in exercises)
    return "\n".join([*rows, f"| all | | {points} | {minutes} | | |"])


def assignment(exercises: list[Exercise]) -> str:
    """ASSIGNMENT.md, from the table."""
    parts = []
    for i, e in enumerate(exercises, 1):
        blanked = ", ".join(f"`{name}`" for name in e.blanks)
        parts.append(f"### {i}. {e.name}\n{blanked} in {e.file}, {e.points} points. {e.task}\n\n"
                     f"Check: `python -m pytest -m {e.name}`\n\n*In words:* {e.question}\n"
                     )  # fmt: skip
    text = (HERE / "assignment.md").read_text(encoding="utf-8")
    written = (HERE / "written.md").read_text(encoding="utf-8")
    for place, content in (("table", table(exercises)), ("exercises", "\n".join(parts)),
                           ("written", written)):  # fmt: skip
        text = text.replace(f"<!-- {place} -->", content)
    return re.sub(r"<!-- .*? -->", "", text)  # where published numbers come from


def configuration(exercises: list[Exercise]) -> str:
    marks = "".join(f"    {e.name}: {e.file}, {', '.join(e.blanks)}\n" for e in exercises)
    settings = ("pythonpath = . tests", "testpaths = tests", "addopts = --tb=short -x", "markers =")
    return "\n".join(["[pytest]", *settings, marks])


def curves(bug: str) -> str:
    """An SVG of the metrics of the right run, in black, and of the faulty one, in red."""
    runs = json.loads((HERE / "bugs.json").read_text(encoding="utf-8"))
    parts, width, height = [], 260, 150
    metrics = [metric for metric in runs["right"] if metric != "iteration"]
    for i, metric in enumerate(metrics):
        x, y = 20 + i % 3 * (width + 40), 40 + i // 3 * (height + 50)
        both = runs["right"][metric] + runs[bug][metric]
        low, high = min(both), max(both)
        parts.append(f'<text x="{x}" y="{y - 8}">{metric}: {low:.3g} to {high:.3g}</text>'
                     f'<rect x="{x}" y="{y}" width="{width}" height="{height}"/>')  # fmt: skip
        for name, color in (("right", "black"), (bug, "red")):
            values = runs[name][metric]
            points = " ".join(
                f"{x + width * j / (len(values) - 1):.1f},"
                f"{y + height * (1 - (v - low) / (high - low or 1)):.1f}"
                for j, v in enumerate(values)
            )
            parts.append(f'<polyline points="{points}" stroke="{color}"/>')
    size = f"0 0 {3 * (width + 40)} {40 + (len(metrics) + 2) // 3 * (height + 50)}"
    style = "text{font:14px sans-serif} rect{fill:none;stroke:#ccc} polyline{fill:none}"
    return (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{size}"><style>{style}</style>'
            + "\n".join(parts) + "</svg>\n")  # fmt: skip


def put(folder: Path, name: str, text: str) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text, encoding="utf-8", newline="\n")


def make(folder: Path, exercises: list[Exercise], bug: int | None = None) -> None:
    """Writes the student's copy: these exercises blanked, or none and a fault planted (0: none)."""
    for file in SCRIPTS:
        text = (ROOT / file).read_text(encoding="utf-8")
        if bug and BUGS[bug - 1][0] == file:
            text = text.replace(*BUGS[bug - 1][1:3])
        put(folder, file, blank(text, exercises, file) if bug is None else text)
    shutil.copytree(ROOT / "data", folder / "data",
                    ignore=shutil.ignore_patterns("__pycache__"))  # fmt: skip
    (folder / "out").mkdir()
    for file in GIVEN:
        shutil.copy(HERE.parent / "published" / "chain" / file, folder / "out")
    for file in ("requirements.txt", "LICENSE"):
        shutil.copy(ROOT / file, folder)
    put(folder, ".pytest.ini", configuration(exercises))
    put(folder, "AGENTS.md", (HERE / "agents.md").read_text(encoding="utf-8"))
    put(folder, "ASSIGNMENT.md", assignment(exercises))
    put(folder, "tests/exercises.py", (HERE / "exercises.py").read_text(encoding="utf-8"))
    put(folder, "tests/test_exercises.py", (HERE / "feedback.py").read_text(encoding="utf-8"))
    torch.save(expected(exercises), folder / "tests" / "expected.pt")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where to: new, or empty")
    parser.add_argument("--only", default=",".join(BY_NAME), metavar="EXERCISE[,EXERCISE]",
                        help=f"the exercises to blank, of {', '.join(BY_NAME)}")  # fmt: skip
    parser.add_argument("--bug", type=int, choices=range(1, len(BUGS) + 1), metavar="N",
                        help="the fault to plant")  # fmt: skip
    parser.add_argument("--nbgrader", action="store_true", help="a notebook for nbgrader")
    config = parser.parse_args(arguments)
    if config.folder.exists() and any(config.folder.iterdir()):
        parser.error(f"{config.folder} is not empty")
    only = config.only.split(",")
    if not set(only) <= BY_NAME.keys():
        parser.error(f"{config.only} has no exercise's name, of {', '.join(BY_NAME)}")
    exercises = [exercise for exercise in EXERCISES if exercise.name in only]
    if config.nbgrader:
        from notebook import make_course

        make_course(config.folder, exercises)
    else:
        make(config.folder, exercises, config.bug)
    if config.bug:
        put(config.folder, "curves.svg", curves(str(config.bug)))
    print(f"wrote {config.folder}")


if __name__ == "__main__":
    main()
