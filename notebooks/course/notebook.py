"""The same exercises for courses on nbgrader: a course folder with one notebook, from the table.

python notebooks/course/make.py FOLDER --nbgrader
cd FOLDER && nbgrader generate_assignment instructgpt
nbgrader autograde instructgpt
"""

import base64
import io
import json
import shutil
from pathlib import Path

import torch
from exercises import Exercise, inputs_of
from make import HERE, ROOT, SCRIPTS, answers, blank, body_of, expected, functions_of, put

HIDDEN = 1000  # the seed of the hidden tests' inputs
START = """from model import *
from sft import *
from reward import *
from ppo import *

from check import check"""
CHECK = '''"""Plants a notebook's functions in the scripts, and compares what they answer."""

import base64
import importlib
import io

import torch
from exercises import BY_NAME, feedback, inputs_of, outputs_of

EXPECTED = torch.load("expected.pt", weights_only=True)


def check(name, functions, seed=None, right=None):
    torch.set_num_threads(1)
    exercise = BY_NAME[name]
    module = importlib.import_module(exercise.file.removesuffix(".py"))
    for path, function in zip(exercise.blanks, functions):
        *owner, last = path.split(".")
        setattr(getattr(module, owner[0]) if owner else module, last, function)
    cases = EXPECTED[name]
    if right:
        outputs = torch.load(io.BytesIO(base64.b64decode(right)), weights_only=True)
        cases = [(inputs_of(exercise, seed), outputs, [])]
    for inputs, outputs, mistakes in cases:
        found = outputs_of(exercise, module, inputs)
        says = feedback(outputs, found, mistakes, exercise.tolerance)
        assert not says, says
'''


def cell(kind: str, name: str, source: str, **grading) -> dict:
    settings = {"grade": False, "solution": False, "locked": False, "task": False,
                "grade_id": name, "schema_version": 3, **grading}  # fmt: skip
    made = {"cell_type": kind, "id": name, "metadata": {"nbgrader": settings},
            "source": source.splitlines(keepends=True)}  # fmt: skip
    return made | ({"execution_count": None, "outputs": []} if kind == "code" else {})


def solution(exercise: Exercise) -> str:
    """The exercise's functions, with the marks between which nbgrader blanks them."""
    text = (ROOT / exercise.file).read_text(encoding="utf-8")
    lines, functions, parts = text.splitlines(), functions_of(text), []
    for name in exercise.blanks:
        node = functions[name]
        start, end = body_of(node)
        first = min([node.lineno, *(d.lineno for d in node.decorator_list)]) - 1
        cut = node.col_offset
        pad = " " * (node.body[0].col_offset - cut)
        code = [*(line[cut:] for line in lines[first:start]), f"{pad}### BEGIN SOLUTION",
                *(line[cut:] for line in lines[start:end]), f"{pad}### END SOLUTION"]  # fmt: skip
        parts.append("\n".join(code))
    return "\n\n\n".join(parts)


def tested(exercise: Exercise) -> str:
    """The visible check, and a hidden one on other inputs."""
    functions = ", ".join(name.split(".")[-1] for name in exercise.blanks)
    buffer = io.BytesIO()
    torch.save(answers(exercise, inputs_of(exercise, HIDDEN))[0], buffer)
    right = base64.b64encode(buffer.getvalue()).decode()
    return (
        f'check("{exercise.name}", [{functions}])\n### BEGIN HIDDEN TESTS\n'
        f'check("{exercise.name}", [{functions}], {HIDDEN}, "{right}")\n### END HIDDEN TESTS'
    )


def make_course(folder: Path, exercises: list[Exercise]) -> None:
    """Writes nbgrader_config.py and the source of the assignment `instructgpt`."""
    place = folder / "source" / "instructgpt"
    cells = [
        cell(
            "markdown",
            "title",
            "# InstructGPT, written by you\nDo them in order: later functions call earlier ones.",
        ),
        cell("code", "start", START, locked=True),
    ]
    for i, e in enumerate(exercises, 1):
        cells += [
            cell("markdown", f"{e.name}-task", f"## {i}. {e.name}\n{e.task}", locked=True),
            cell("code", e.name, solution(e), solution=True),
            cell("code", f"{e.name}-test", tested(e), grade=True, locked=True, points=e.points),
        ]  # fmt: skip
    metadata = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    notebook = {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}
    put(place, "exercises.ipynb", json.dumps(notebook, indent=1) + "\n")
    for file in SCRIPTS:
        put(place, file, blank((ROOT / file).read_text(encoding="utf-8"), exercises, file))
    unused = shutil.ignore_patterns("__pycache__", "*.jsonl", "probes", "example")
    shutil.copytree(ROOT / "data", place / "data", ignore=unused)
    shutil.copy(HERE / "exercises.py", place)
    put(place, "check.py", CHECK)
    torch.save(expected(exercises), place / "expected.pt")
    put(folder, "nbgrader_config.py", 'c = get_config()\nc.CourseDirectory.course_id = "rlhf"\n')
