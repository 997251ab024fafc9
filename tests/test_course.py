"""The assignment: what is handed out has no solution in it, and what is handed in gets its due."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "notebooks" / "course"))

import grade as grader  # noqa: E402
import make as maker  # noqa: E402
from bugs import BUGS  # noqa: E402
from exercises import EXERCISES, difference, feedback, inputs_of, outputs_of  # noqa: E402
from mistakes import MISTAKES  # noqa: E402

from tests import cheats  # noqa: E402
from tests.cheats import CHEATS  # noqa: E402
from tests.mutants import MUTANTS  # noqa: E402

FILES = grader.FILES
POINTS = {exercise.name: exercise.points for exercise in EXERCISES}


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("course") / "copy"
    maker.main([str(folder)])
    return folder


def submission(folder: Path, **texts) -> Path:
    """A folder with the right files, but for those given as text, by their names without .py."""
    folder.mkdir(parents=True)
    for file in FILES:
        text = texts.get(file[:-3], (ROOT / file).read_text(encoding="utf-8"))
        (folder / file).write_text(text, encoding="utf-8")
    return folder


def lost(score: dict) -> dict[str, str]:
    """The exercises that were not right, with what was said of them."""
    assert score["max_score"] == sum(POINTS.values()) or len(score["exercises"]) < len(EXERCISES)
    assert score["score"] == sum(line["score"] for line in score["exercises"])
    for line in score["exercises"]:
        assert line["score"] in (0, line["max_score"]) and line["max_score"] == POINTS[line["name"]]
        assert (line["message"] == "right") == (line["score"] > 0)
    return {line["name"]: line["message"] for line in score["exercises"] if not line["score"]}


# ------------------------------------------------------------------------------ what is handed out
def test_the_table_is_whole():
    assert sum(POINTS.values()) == 100 and len(POINTS) == len(EXERCISES) >= 14
    for e in EXERCISES:
        functions = maker.functions_of((ROOT / e.file).read_text(encoding="utf-8"))
        assert set(e.blanks) <= functions.keys() and e.minutes > 0
        assert e.difficulty in ("easy", "medium", "hard")
        assert sum(name == e.name for name, *_ in MISTAKES) >= 3


def test_the_instructors_page_has_the_table_as_it_is():
    text = (ROOT / "notebooks" / "course" / "README.md").read_text("utf-8")
    assert maker.table(EXERCISES) in text and f"from 1 to {len(BUGS)}" in text


def test_the_copy_has_the_signatures_the_docstrings_and_the_hints_of_the_code(copy):
    blanked = {(e.file, name): e.name for e in EXERCISES for name in e.blanks}
    for file in maker.SCRIPTS:
        right, text = (ROOT / file).read_text("utf-8"), (copy / file).read_text("utf-8")
        mine, theirs = maker.functions_of(right), maker.functions_of(text)
        assert mine.keys() == theirs.keys()
        for name, node in theirs.items():
            assert ast.dump(node.args) == ast.dump(mine[name].args)
            assert ast.get_docstring(node) == ast.get_docstring(mine[name])
            if (file, name) in blanked:
                said = f'raise NotImplementedError("exercise {blanked[file, name]}")'
                assert ast.unparse(node.body[-1]) == said.replace('"', "'")
                assert len(node.body) == 1 + (ast.get_docstring(node) is not None)
            else:
                assert ast.dump(node) == ast.dump(mine[name])
        comments = [line.strip() for line in right.splitlines() if line.strip().startswith("#")]
        assert comments == [x.strip() for x in text.splitlines() if x.strip().startswith("#")]


def test_no_line_of_a_solution_is_in_the_copy(copy):
    """Nor in its tests or texts: each line that stands nowhere else in the code."""
    secret, known = set(), ""
    for file in maker.SCRIPTS:
        lines = (ROOT / file).read_text("utf-8").splitlines()
        nodes = maker.functions_of("\n".join(lines))
        for e in EXERCISES:
            for name in e.blanks if e.file == file else ():
                start, end = maker.body_of(nodes[name])
                secret |= {re.sub(r"\s+", " ", x.split("  #")[0].strip()) for x in lines[start:end]
                           if not x.strip().startswith("#")}  # fmt: skip
                lines = lines[:start] + [""] * (end - start) + lines[end:]
        known += re.sub(r"\s+", " ", "\n".join(lines))
    secret = {line for line in secret if len(line) > 12 and line not in known}
    assert len(secret) > 60
    found = {file.relative_to(copy): file.read_text("utf-8", errors="ignore")
             for file in copy.rglob("*") if file.is_file()}  # fmt: skip
    assert len(found) > 40
    for file, text in found.items():
        text = re.sub(r"\s+", " ", text.replace("\\n", " ").replace('\\"', '"'))
        assert not [line for line in secret if line in text], file


def test_the_copy_comes_with_a_task_for_every_exercise_and_with_models(copy):
    text = (copy / "ASSIGNMENT.md").read_text("utf-8")
    for e in EXERCISES:
        assert f". {e.name}\n`" in text and e.question in text and e.task in text
        assert f"python -m pytest -m {e.name}`" in text
    assert "<!--" not in text and "| all | | 100 |" in text
    assert sorted(file.name for file in (copy / "out").iterdir()) == sorted(maker.GIVEN)
    assert "teaching assistant" in (copy / "AGENTS.md").read_text("utf-8")
    assert not list(copy.rglob("mistakes.py")) and not list(copy.rglob("*.ipynb"))


def run_pytest(folder: Path, *options) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTEST_ADDOPTS": ""}
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False,
                          env=environment)  # fmt: skip


@pytest.mark.course
def test_a_check_passes_for_right_code_and_names_the_usual_mistake(copy, tmp_path):
    done = run_pytest(copy, "-m", "gae")
    assert done.returncode == 1 and "NotImplementedError: exercise gae" in done.stdout
    assert "1 failed, 56 deselected" in done.stdout
    blank = (copy / "ppo.py").read_text("utf-8")
    right = (ROOT / "ppo.py").read_text("utf-8")
    try:
        (copy / "ppo.py").write_text(right, encoding="utf-8")
        assert run_pytest(copy, "-m", "gae").returncode == 0
        _, good, bad, says = next(m for m in MISTAKES if m[0] == "gae")
        (copy / "ppo.py").write_text(right.replace(good, bad), encoding="utf-8")
        done = run_pytest(copy, "-m", "gae")
        assert done.returncode == 1 and f"A usual mistake does just this: {says}" in done.stdout
    finally:
        (copy / "ppo.py").write_text(blank, encoding="utf-8")


def test_a_folder_that_has_something_in_it_is_left_alone(tmp_path, capsys):
    (tmp_path / "thesis.txt").write_text("mine")
    new = str(tmp_path / "new")
    for arguments, says in (
        ([str(tmp_path)], "is not empty"), (["--only", "gae,gea", new], "gae,gea has no"),
    ):  # fmt: skip
        with pytest.raises(SystemExit) as error:
            maker.main(arguments)
        assert error.value.code == 2 and says in capsys.readouterr().err
    assert [file.name for file in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("exercise", EXERCISES, ids=lambda e: e.name)
def test_every_usual_mistake_is_seen_and_told_from_the_others(exercise):
    for seed in (0, 7):
        right, mistaken = maker.answers(exercise, inputs_of(exercise, seed))
        for says, found in mistaken:
            said = feedback(right, found, mistaken, exercise.tolerance)
            assert said.endswith(f". A usual mistake does just this: {says}")


# ------------------------------------------------------------------------------- what is handed in
def test_the_solution_gets_all_points_and_the_blank_copy_none(copy, tmp_path):
    solution = submission(tmp_path / "solution")
    full, none = grader.grade([solution, copy], seed=123)
    assert not lost(full) and full["score"] == 100
    said = lost(none)
    assert said.keys() == POINTS.keys() and none["score"] == 0
    for name, message in said.items():
        assert message.startswith(f"it failed: NotImplementedError: exercise {name}")


def test_scores_are_written_in_each_platforms_form(tmp_path, monkeypatch, capsys):
    score = {"score": 5, "max_score": 14, "exercises": [
        {"name": "gae", "score": 0, "max_score": 9, "message": "advantages is wrong"},
        {"name": "draw", "score": 5, "max_score": 5, "message": "right"}]}  # fmt: skip
    monkeypatch.setattr(grader, "grade", lambda folders, seed: [score] * len(folders))
    monkeypatch.setenv("SUBMISSION_TAG", "v1")
    one, two = submission(tmp_path / "ada"), submission(tmp_path / "bob")
    out = tmp_path / "out"

    def written(name, *options, folders=(one,)):
        grader.main([*map(str, folders), "--out", str(out), *options])
        return json.loads((out / name).read_text())

    assert written("score.json") == score
    gradescope = written("results.json", "--format", "gradescope")
    assert gradescope["score"] == 5 and gradescope["tests"][0] == {
        "name": "gae", "number": "1", "score": 0, "max_score": 9, "output": "advantages is wrong",
        "visibility": "visible", "status": "failed"}  # fmt: skip
    classroom = written("result.json", "--format", "classroom50")
    assert classroom["schema"] == "classroom50/result/v1" and classroom["submission"] == "v1"
    assert (classroom["score"], classroom["max-score"]) == (5, 14)
    assert classroom["tests"][1] == {"test-name": "draw", "passed": True, "score": 5,
                                     "max-score": 5}  # fmt: skip
    assert written("bob/score.json", folders=(one, two)) == score
    table = (out / "table.csv").read_text().splitlines()
    assert table[0].startswith("submission,score,attention") and table[2].startswith("bob,5,")
    for arguments in ([], [str(tmp_path / "eve")], [str(one), str(one)]):
        with pytest.raises(SystemExit) as error:
            grader.main([*arguments, "--out", str(out)])
        assert error.value.code == 2
    assert "eve" in capsys.readouterr().err


def test_gradescopes_zip_has_all_that_grading_needs(tmp_path):
    grader.main(["--package", "gradescope", "--out", str(tmp_path / "grader.zip")])
    with zipfile.ZipFile(tmp_path / "grader.zip") as made:
        names = set(made.namelist())
        assert {"setup.sh", "run_autograder", "repository/ppo.py", "repository/requirements.txt",
                "repository/data/vocab.tiktoken", "repository/notebooks/course/grade.py",
                "repository/notebooks/course/child.py"} <= names  # fmt: skip
        assert made.getinfo("run_autograder").external_attr >> 16 & 0o111
        made.extractall(tmp_path / "autograder")
    done = subprocess.run([sys.executable, "-c", "import grade"], check=False,
                          cwd=tmp_path / "autograder/repository/notebooks/course")  # fmt: skip
    assert done.returncode == 0


# ------------------------------------------------------------------------------------------- slow
def inside(exercise, file: str, right: str) -> bool:
    """The code lies in the body of one of the exercise's functions."""
    if file != exercise.file:
        return False
    text = (ROOT / file).read_text(encoding="utf-8")
    line = text[: text.index(right)].count("\n")
    spans = (maker.body_of(maker.functions_of(text)[name]) for name in exercise.blanks)
    return any(start <= line < end for start, end in spans)


@pytest.mark.parametrize("exercise", EXERCISES, ids=lambda e: e.name)
def test_every_planted_fault_loses_the_points_of_its_exercise(exercise):
    """Of no other either: the grader plants one exercise's functions at a time."""
    faults = [(right, wrong) for file, right, wrong, *_ in MUTANTS
              if inside(exercise, file, right)]  # fmt: skip
    good = maker.importlib.import_module(exercise.file[:-3])
    for right, wrong in faults:
        bad = maker.variant(exercise.file, right, wrong)
        inputs = inputs_of(exercise, 5)
        outputs = outputs_of(exercise, good, inputs)
        try:
            found = outputs_of(exercise, bad, inputs)
        except Exception:
            continue  # it crashes, which is seen as well
        assert difference(outputs, found, exercise.tolerance), (right, wrong)


@pytest.mark.course
@pytest.mark.parametrize("cheat", CHEATS, ids=lambda cheat: cheat[0])
def test_a_cheat_gets_what_it_earns(cheat, tmp_path):
    *_, file, _, _, loses, message = cheat
    cheats.submit(cheat, tmp_path / "cheat")
    asked = [e for e in EXERCISES if e.file == file]
    asked = [e for e in asked if e.name in loses] + [e for e in asked if e.name not in loses][-1:]
    start = time.monotonic()
    (score,) = grader.grade([tmp_path / "cheat"], 11, asked)
    assert time.monotonic() - start < 30
    said = lost(score)
    assert said.keys() == set(loses)
    assert not loses or message in said[loses[0]]


@pytest.mark.course
def test_a_submission_finds_nothing_of_the_one_before(tmp_path):
    ppo = (ROOT / "ppo.py").read_text(encoding="utf-8")
    sampled = "    responses = generate(policy, prompts, config.max_new, tokenizer.eos)\n"
    leave = """    for place in ("..", "/tmp", "/var/tmp", "/dev/shm"):
        try:
            open(place + "/left_by_ada.py", "w").write(open("ppo.py").read())
        except OSError:
            pass
"""
    find = """    for place in ("..", "/tmp", "/var/tmp", "/dev/shm", "ADA"):
        for name in ("left_by_ada.py", "ppo.py"):
            try:
                text = open(place + "/" + name).read()
            except OSError:
                continue
            if "def gae" in text:
                part = text[text.index("def gae(") : text.index("def whiten(")]
                if "running" in part:
                    exec(part, globals())
                    return globals()["gae"](rewards, values, mask, lam)
    return rewards, values
"""
    ada = submission(tmp_path / "ada", ppo=ppo.replace(sampled, leave + sampled))
    start, end = maker.body_of(maker.functions_of(ppo)["gae"])
    lines = ppo.splitlines(keepends=True)
    mine = "".join([*lines[:start], find.replace("ADA", str(ada)), *lines[end:]])
    bob = submission(tmp_path / "bob", ppo=mine)
    asked = [e for e in EXERCISES if e.name in ("gae", "rollout")]
    first, second = grader.grade([ada, bob], 3, asked)
    assert not lost(first) and lost(second).keys() == {"gae"}
    assert not list(Path("/dev/shm").glob("left_by_ada*"))


@pytest.mark.course
def test_a_submission_in_which_all_hangs_takes_a_minute_at_most(copy, tmp_path):
    texts = {file[:-3]: (copy / file).read_text("utf-8") for file in FILES}
    texts = {name: re.sub(r"raise NotImplementedError\(.*\)", "while True: pass", text)
             for name, text in texts.items()}  # fmt: skip
    start = time.monotonic()
    (score,) = grader.grade([submission(tmp_path / "hangs", **texts)], 1)
    assert time.monotonic() - start < 65  # with the grader's own start
    assert {message[:16] for message in lost(score).values()} == {"it took too long"}
    assert len(lost(score)) == 15


@pytest.mark.course
@pytest.mark.parametrize("number", range(1, len(BUGS) + 1))
def test_the_visible_tests_pass_with_each_bug_of_the_hunt(number, tmp_path):
    maker.main([str(tmp_path / "copy"), "--bug", str(number)])
    file, right, wrong, _ = BUGS[number - 1]
    assert (tmp_path / "copy" / file).read_text("utf-8") == (ROOT / file).read_text(
        "utf-8"
    ).replace(right, wrong)
    assert run_pytest(tmp_path / "copy").returncode == 0
    drawn = (tmp_path / "copy" / "curves.svg").read_text("utf-8")
    assert drawn.count("<polyline") == 2 * drawn.count("<rect") > 10


@pytest.mark.course
def test_the_chain_runs_as_soon_as_the_one_exercise_is_right(tmp_path):
    folder = tmp_path / "copy"
    maker.main(["--only", "gae", str(folder)])
    done = subprocess.run([sys.executable, "ppo.py", "--fast", "--out", "out"], cwd=folder,
                          capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode == 1 and "exercise gae" in done.stderr
    text = (ROOT / "ppo.py").read_text(encoding="utf-8")
    (folder / "ppo.py").write_text(text, encoding="utf-8")
    done = subprocess.run([sys.executable, "ppo.py", "--fast", "--out", "out"], cwd=folder,
                          capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode == 0 and (folder / "out" / "ppo.pt").exists()
    assert run_pytest(folder).returncode == 0


@pytest.mark.course
def test_nbgrader_gives_the_solution_all_points_and_the_blank_notebook_none(tmp_path):
    gradebook = pytest.importorskip("nbgrader.api").Gradebook
    folder = tmp_path / "course"
    maker.main([str(folder), "--nbgrader"])

    def nbgrader(*command):
        subprocess.run([sys.executable, "-m", "nbgrader", *command], cwd=folder, check=True,
                       capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"})  # fmt: skip

    nbgrader("generate_assignment", "instructgpt")
    released = folder / "release" / "instructgpt"
    notebook = (released / "exercises.ipynb").read_text("utf-8")
    assert "SOLUTION" not in notebook and "HIDDEN" not in notebook
    assert notebook.count("raise NotImplementedError") == sum(len(e.blanks) for e in EXERCISES)
    for student in ("blank", "solved"):
        shutil.copytree(released, folder / "submitted" / student / "instructgpt")
    shutil.copy(folder / "source" / "instructgpt" / "exercises.ipynb",
                folder / "submitted" / "solved" / "instructgpt")  # fmt: skip
    nbgrader("autograde", "instructgpt", "--create")
    with gradebook(f"sqlite:///{folder}/gradebook.db") as book:
        scores = {s.student.id: s.score for s in book.assignment_submissions("instructgpt")}
    assert scores == {"blank": 0, "solved": 100}
