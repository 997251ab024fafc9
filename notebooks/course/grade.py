"""Grades submissions: folders with model.py, sft.py, reward.py and ppo.py.

    python notebooks/course/grade.py SUBMISSION [SUBMISSION ...] --out RESULTS
    python notebooks/course/grade.py SUBMISSION --out RESULTS --format gradescope
    python notebooks/course/grade.py --package gradescope --out ZIP

Only the exercises' functions are taken from a submission, by name; all else is the repository's.
They run in a child process on inputs made from a seed nobody knows. This process never imports a
line of a submission: it compares what the child answers with what the repository's own functions
answer to the same inputs, and alone writes RESULTS/score.json. Needs Linux.
"""

import argparse
import csv
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import textwrap
import time
from datetime import datetime, timezone
from pathlib import Path

import torch
from exercises import EXERCISES, Exercise, difference, inputs_of, looks_like
from make import HERE, ROOT, answers, functions_of

CASES = 3  # inputs for each exercise
FILES = sorted({exercise.file for exercise in EXERCISES})
NOBODY = 65534  # whom the child becomes where the grader is root
ENVIRONMENT = {"PATH": os.environ.get("PATH", ""), "PYTHONDONTWRITEBYTECODE": "1",
               "HOME": "/nowhere", "OMP_NUM_THREADS": "1"}  # fmt: skip


# ----------------------------------------------------------------------------- what is submitted
def read(submission: Path, file: str) -> str:
    """A submitted file's text. Raises ValueError, with a sentence, for what is no file of text."""
    places = [submission / file, *sorted(submission.glob(f"*/{file}"))]
    found = next((place for place in places if place.is_file()), None)
    if not found:
        raise ValueError(f"{file} is missing")
    if found.stat().st_size > 2**20:
        raise ValueError(f"{file} has more than a megabyte")
    try:
        return found.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        raise ValueError(f"{file} is not UTF-8 text") from None


def planted(exercise: Exercise, submitted: str) -> str:
    """The repository's file with the submitted functions. Raises ValueError, with a sentence."""
    lines = (ROOT / exercise.file).read_text(encoding="utf-8").splitlines()
    right = functions_of("\n".join(lines))
    try:
        found, theirs = functions_of(submitted), submitted.splitlines()
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ValueError(f"{exercise.file} is not Python: {error}") from None
    for name in sorted(exercise.blanks, key=lambda name: -right[name].lineno):  # from below
        if name not in found:
            raise ValueError(f"{name} is missing in {exercise.file}")
        first = min([found[name].lineno, *(d.lineno for d in found[name].decorator_list)])
        code = textwrap.dedent("\n".join(theirs[first - 1 : found[name].end_lineno]))
        begin = min([right[name].lineno, *(d.lineno for d in right[name].decorator_list)])
        pad = " " * right[name].col_offset
        lines[begin - 1 : right[name].end_lineno] = textwrap.indent(code, pad).splitlines()
    return "\n".join(lines) + "\n"


# ------------------------------------------------------------------------------------- the child
class Child:
    """The process that runs submitted functions; started anew whenever it has died."""

    def __init__(self, folder: Path):
        self.folder, self.process = folder, None
        self.rest = folder / "rest"
        shutil.copytree(ROOT / "data", self.rest / "data",
                        ignore=shutil.ignore_patterns("__pycache__"))  # fmt: skip
        shutil.copy(HERE / "exercises.py", self.rest)
        shutil.copy(HERE / "child.py", folder)
        subprocess.run(["chmod", "-R", "a+rX", str(folder)], check=True)

    def start(self) -> None:
        """As nobody, if the grader is root and nobody can read Python; else as the same user."""
        nobody = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
        for user in [nobody, {}] if os.geteuid() == 0 else [{}]:
            try:
                self.process = subprocess.Popen(
                    [sys.executable, "-s", "child.py", str(self.rest), str(ROOT)], cwd=self.folder,
                    stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                    text=True, env=ENVIRONMENT, **user,
                )  # fmt: skip
            except PermissionError:
                continue
            if self.process.stdout.readline() == "ready\n":
                return
        raise RuntimeError("the process that runs submissions does not start")

    def run(self, exercise: Exercise, files: dict[str, str], cases: list[dict]):
        """A list of outputs; or a sentence, if there are none."""
        place = Path(tempfile.mkdtemp(dir=self.folder))
        try:
            for name, text in files.items():
                (place / name).write_text(text, encoding="utf-8")
            torch.save(cases, place / "inputs.pt")
            place.chmod(0o777)
            if not self.process or self.process.poll() is not None:
                self.start()
            try:
                self.process.stdin.write(f"{exercise.name}\t{place}\n")
                self.process.stdin.flush()
                said = self.process.stdout.readline()
            except OSError:
                said = ""
            return self.result(place, said)
        finally:
            shutil.rmtree(place, ignore_errors=True)

    def result(self, place: Path, said: str):
        if said.startswith("too long"):
            return "it took too long: is there a loop without an end?"
        error, outputs = place / "error.txt", place / "outputs.pt"
        if error.is_file() and not error.is_symlink():
            text = error.read_text(encoding="utf-8", errors="replace")[:1000]
            return " ".join("".join(c if c.isprintable() else " " for c in text).split())
        if not outputs.is_file() or outputs.is_symlink():
            return "the process ended without an answer"
        try:
            found = torch.load(outputs, weights_only=True, map_location="cpu")
            return [{str(name): x for name, x in case.items()} for case in found]
        except Exception:  # whatever lies there was written by someone else
            return "its answer cannot be read"

    def stop(self) -> None:
        if self.process:
            self.process.kill()
            self.process.wait()


# ------------------------------------------------------------------------------------- the grade
def judge(exercise: Exercise, found, expected: list) -> str:
    """What is wrong, in a sentence; "" if nothing is."""
    if isinstance(found, str):
        return found
    if len(found) != len(expected):
        return "an answer is missing"
    for mine, (right, mistakes) in zip(found, expected):
        wrong = difference(right, mine, exercise.tolerance)
        if wrong:
            hint = looks_like(mine, mistakes, exercise.tolerance)
            return wrong + (f". A usual mistake gives just this: {hint}" if hint else "")
    return ""


def grade(submissions: list[Path], seed: int, exercises=EXERCISES) -> list[dict]:
    """A score for each submission, with a line for every exercise."""
    torch.set_num_threads(1)
    cases = {e.name: [inputs_of(e, seed + i) for i in range(CASES)] for e in exercises}
    expected = {e.name: [answers(e, case) for case in cases[e.name]] for e in exercises}
    rest = {file: (ROOT / file).read_text(encoding="utf-8") for file in FILES}
    scores = []
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        child = Child(Path(folder))
        for submission in submissions:
            lines = []
            for e in exercises:
                try:
                    files = rest | {e.file: planted(e, read(submission, e.file))}
                    wrong = judge(e, child.run(e, files, cases[e.name]), expected[e.name])
                except ValueError as error:
                    wrong = str(error)
                lines.append({"name": e.name, "score": 0 if wrong else e.points,
                              "max_score": e.points, "message": wrong or "right"})  # fmt: skip
            scores.append({"score": sum(line["score"] for line in lines),
                           "max_score": sum(line["max_score"] for line in lines),
                           "exercises": lines})  # fmt: skip
        child.stop()
    return scores


# ------------------------------------------------------------------------------------ the formats
def gradescope(score: dict, seconds: float) -> dict:
    tests = [{"name": e["name"], "number": str(i), "score": e["score"],
              "max_score": e["max_score"], "output": e["message"], "visibility": "visible",
              "status": "passed" if e["score"] else "failed"}
             for i, e in enumerate(score["exercises"], 1)]  # fmt: skip
    return {"score": score["score"], "execution_time": round(seconds), "output": "",
            "tests": tests}  # fmt: skip


def classroom50(score: dict) -> dict:
    """What Classroom 50 reads: result.json; who and what it is about stands in the environment."""
    about = {key: os.environ.get(variable, "") for key, variable in (
        ("classroom", "CLASSROOM"), ("assignment", "ASSIGNMENT"),
        ("submission", "SUBMISSION_TAG"), ("commit", "COMMIT_URL"), ("release", "RELEASE_URL"),
        ("review", "REVIEW_URL"))}  # fmt: skip
    tests = [{"test-name": e["name"], "passed": e["score"] > 0, "score": e["score"],
              "max-score": e["max_score"]} for e in score["exercises"]]  # fmt: skip
    return {"schema": "classroom50/result/v1", **about,
            "datetime": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "score": score["score"], "max-score": score["max_score"], "tests": tests}  # fmt: skip


SETUP = """#!/usr/bin/env bash
set -e
apt-get update && apt-get install -y python3 python3-pip python3-venv
python3 -m venv /opt/grader
/opt/grader/bin/pip install -r /autograder/source/repository/requirements.txt
chmod -R go-rwx /autograder/source
"""
RUN = """#!/usr/bin/env bash
cd /autograder/source/repository
/opt/grader/bin/python notebooks/course/grade.py /autograder/submission --format gradescope \\
    --out /autograder/results
[ -f /autograder/results/results.json ] || echo '{"score": 0, "output": "The grader failed."}' \\
    > /autograder/results/results.json
"""


def package(out: Path) -> None:
    """Gradescope's zip: setup.sh, run_autograder, and the repository."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for name, text in (("setup.sh", SETUP), ("run_autograder", RUN)):
            (root / name).write_text(text, encoding="utf-8", newline="\n")
            (root / name).chmod(0o755)
        for name in (*FILES, "requirements.txt", "data", "notebooks/course"):
            target = root / "repository" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, target,
                                ignore=shutil.ignore_patterns("__pycache__"))  # fmt: skip
            else:
                shutil.copy(ROOT / name, target)
        made = shutil.make_archive(str(out.with_suffix("")), "zip", root)
    print(f"wrote {made}")


def put(path: Path, content: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("submissions", type=Path, nargs="*", help="folders")
    parser.add_argument("--out", type=Path, required=True, help="folder of the results; or the zip")
    parser.add_argument("--format", choices=("score", "gradescope", "classroom50"), default="score")
    parser.add_argument("--package", choices=("gradescope",), help="make the zip to upload")
    parser.add_argument("--seed", type=int, default=None, help="of the inputs (default: a new one)")
    config = parser.parse_args(arguments)
    if config.package:
        return package(config.out)
    names = [submission.resolve().name for submission in config.submissions]
    missing = [str(s) for s in config.submissions if not s.is_dir()]
    if not names or missing or len(set(names)) < len(names):
        parser.error(f"no folder: {', '.join(missing)}" if missing else
                     "one or more submissions, each with a name of its own")  # fmt: skip
    start = time.time()
    scores = grade(config.submissions, config.seed or secrets.randbelow(2**40))
    for name, score in zip(names, scores):
        folder = config.out if len(names) == 1 else config.out / name
        if config.format == "gradescope":
            put(folder / "results.json", gradescope(score, time.time() - start))
        elif config.format == "classroom50":
            put(folder / "result.json", classroom50(score))
        else:
            put(folder / "score.json", score)
        print(f"{name:30} {score['score']:>4} of {score['max_score']}")
        for line in score["exercises"] if len(names) == 1 else []:
            print(f"  {line['name']:12} {line['score']:>3} of {line['max_score']:>2}  "
                  f"{line['message']}")  # fmt: skip
    if len(names) > 1:
        with (config.out / "table.csv").open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            table.writerow(["submission", "score", *(e.name for e in EXERCISES)])
            for name, score in zip(names, scores):
                points = [line["score"] for line in score["exercises"]]
                table.writerow([name, score["score"], *points])


if __name__ == "__main__":
    main()
