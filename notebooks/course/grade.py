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
import ast
import contextlib
import csv
import json
import os
import secrets
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
import zipfile
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import torch
from exercises import EXERCISES, Exercise, feedback, inputs_of
from make import HERE, ROOT, answers, blank, functions_of, put

CASES = 3  # inputs for each exercise
FILES = sorted({exercise.file for exercise in EXERCISES})
ENVIRONMENT = {"PATH": os.environ.get("PATH", ""), "PYTHONDONTWRITEBYTECODE": "1",
               "HOME": "/nowhere", "OMP_NUM_THREADS": "1"}  # fmt: skip
NOBODY = {"user": 65534, "group": 65534, "extra_groups": []}
# Namespaces of Linux: no network, no other processes, a disk that can't be written but for the
# folder $1 without its `rest`, and something empty in place of all that is named from $2 on.
APART = "unshare --user --map-root-user --mount --net --ipc --pid --fork --kill-child --mount-proc"
HIDE = """set -e
folder=$1; shift
while read -r _ place _; do mount -o remount,bind,ro "$place" || true; done < /proc/self/mounts
mount --bind "$folder" "$folder"
mount -o remount,bind,rw "$folder"
mount --bind "$folder/rest" "$folder/rest"
mount -o remount,bind,ro "$folder/rest"
mount -t tmpfs none /dev/shm || true
while [ "$1" != -- ]; do
    if [ -d "$1" ]; then mount --bind "$folder/empty" "$1"; else mount --bind /dev/null "$1"; fi
    shift
done
shift; cd "$folder"; exec unshare --user "$@"
"""
sys.dont_write_bytecode = True  # compiled solutions would lie beside the hidden ones


# ----------------------------------------------------------------------------- what is submitted
def read(submission: Path, file: str) -> str:
    """A submitted file's text. Raises ValueError, with a sentence, for what is no file of text."""
    places = [submission / file, *sorted(submission.glob(f"*/{file}"))]
    found = next((place for place in places if place.is_file()), None)
    if not found:
        raise ValueError(f"{file} is missing")
    if not found.resolve().is_relative_to(submission.resolve()):
        raise ValueError(f"{file} is a link to another place")
    if found.stat().st_size > 2**17:
        raise ValueError(f"{file} has more than 128 KB")
    try:
        return found.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError):
        raise ValueError(f"{file} is not UTF-8 text") from None


def plain(node: ast.FunctionDef) -> str:
    """A function's code without annotations: what they name need not be known here."""
    for part in ast.walk(node):
        if isinstance(part, ast.arg):
            part.annotation = None
        elif isinstance(part, ast.FunctionDef):
            part.returns = None
    return ast.unparse(node)


def planted(exercise: Exercise, text: str, submitted: str) -> str:
    """A file's text with the submitted functions. Raises ValueError, with a sentence."""
    lines = text.splitlines()
    right = functions_of("\n".join(lines))
    try:
        theirs = functions_of(submitted)
        code = {name: plain(theirs[name]) for name in exercise.blanks if name in theirs}
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ValueError(f"{exercise.file} is not Python: {error}") from None
    for name in sorted(exercise.blanks, key=lambda name: -right[name].lineno):  # from below
        if name not in code:
            raise ValueError(f"{name} is missing in {exercise.file}")
        first = min([right[name].lineno, *(d.lineno for d in right[name].decorator_list)])
        pad = " " * right[name].col_offset
        lines[first - 1 : right[name].end_lineno] = textwrap.indent(code[name], pad).splitlines()
    return "\n".join(lines) + "\n"


# ------------------------------------------------------------------------------------- the child
class Child:
    """The process that runs the functions of one submission, started anew if it has died."""

    def __init__(self, folder: Path, hidden: list[Path]):
        self.folder, self.rest, self.process = folder, folder / "rest", None
        names = (*FILES, "notebooks", "tests", ".git", "out", "__pycache__")
        self.hidden = [str(path) for path in [*(ROOT / name for name in names), *hidden]
                       if path.exists()]  # fmt: skip
        shutil.copytree(ROOT / "data", self.rest / "data",
                        ignore=shutil.ignore_patterns("__pycache__"))  # fmt: skip
        for name in ("exercises.py", "child.py"):
            shutil.copy(HERE / name, self.rest)
        (folder / "empty").mkdir()
        subprocess.run(["chmod", "-R", "a+rX", str(folder)], check=True)

    def start(self) -> None:
        """In namespaces of its own; where there are none as nobody; or else as the same user."""
        python = [sys.executable, "-s", str(self.rest / "child.py"), str(self.rest), str(ROOT)]
        apart = [*APART.split(), "sh", "-c", HIDE, "sh", str(self.folder), *self.hidden, "--",
                 *python]  # fmt: skip
        users = (NOBODY, {}) if os.geteuid() == 0 else ({},)
        for command, user in [(way, user) for way in (apart, python) for user in users]:
            try:
                self.process = subprocess.Popen(
                    command, cwd=self.folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL, env=ENVIRONMENT, start_new_session=True, **user,
                )  # fmt: skip
            except OSError:
                continue
            if self.said(60) == "ready":
                return
        raise RuntimeError("the process that runs submissions does not start")

    def said(self, seconds: float) -> str:
        """The next line of the process; "" if there is none in time, and then it is stopped."""
        stream = self.process.stdout.fileno()
        said = os.read(stream, 100) if select.select([stream], [], [], seconds)[0] else b""
        if not said:
            self.stop()
        return said.decode(errors="replace").strip()

    def run(self, exercise: Exercise, files: dict[str, str], cases: list[dict]):
        """A list of outputs; or a sentence, if there are none."""
        place = Path(tempfile.mkdtemp(dir=self.folder))
        try:
            for name, text in files.items():
                (place / name).write_text(text, encoding="utf-8")
            torch.save(cases, place / "inputs.pt")
            place.chmod(0o777)
            if not self.process:
                self.start()
            try:
                self.process.stdin.write(f"{exercise.name}\t{place}\n".encode())
                self.process.stdin.flush()
                said = self.said(10)
            except OSError:
                said = ""
                self.stop()
            return result(place, said)
        finally:
            shutil.rmtree(place, ignore_errors=True)

    def stop(self) -> None:
        if self.process:
            with contextlib.suppress(OSError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None


def result(place: Path, said: str):
    """What the child has left in a folder: a list of outputs, or a sentence."""
    if said.startswith("too long"):
        return "it took too long: is there a loop without an end?"
    error, outputs = place / "error.txt", place / "outputs.npz"
    for file in (error, outputs):
        if file.is_symlink() or (file.exists() and not file.is_file()):
            return "the process left something else than an answer"
    if error.exists():
        return f"it failed: {error.read_text(encoding='utf-8', errors='replace')[:1000]}"
    if not outputs.exists():
        return "the process ended without an answer"
    try:
        with zipfile.ZipFile(outputs) as file:
            if sum(part.file_size for part in file.infolist()) > 2**23:
                return "its answer is too large"
        cases: dict[str, dict] = {}
        with np.load(outputs, allow_pickle=False) as arrays:
            for key in arrays.files:
                number, _, name = key.partition("/")
                x = arrays[key]
                x = str(x) if x.dtype.kind == "U" else torch.from_numpy(np.array(x))
                cases.setdefault(number, {})[name] = x
        return [cases[str(i)] for i in range(len(cases))]
    except Exception:  # whatever lies there was written by someone else
        return "its answer cannot be read"


# ------------------------------------------------------------------------------------- the grade
def judge(exercise: Exercise, found, expected: list) -> str:
    """What is wrong, in a sentence; "" if nothing is. found are outputs or what went wrong."""
    if isinstance(found, str):
        return found
    if len(found) != len(expected):
        return "an answer is missing"
    for mine, (right, mistakes) in zip(found, expected):
        says = feedback(right, mine, mistakes, exercise.tolerance)
        if says:
            return says
    return ""


def clean(text: str) -> str:
    """A message in which a submission may have had its say, fit to be printed."""
    return " ".join("".join(c if c.isprintable() else " " for c in text[:1000]).split())


def grade(submissions: list[Path], seed: int, exercises=EXERCISES) -> list[dict]:
    """A score for each submission, with a line for every exercise."""
    torch.set_num_threads(1)
    cases = {e.name: [inputs_of(e, seed + i) for i in range(CASES)] for e in exercises}
    expected = {e.name: [answers(e, case) for case in cases[e.name]] for e in exercises}
    # An exercise's folder has the solutions of earlier ones alone: some are called.
    texts = {file: (ROOT / file).read_text(encoding="utf-8") for file in FILES}
    rest = {e.name: {file: blank(text, EXERCISES[EXERCISES.index(e) + 1 :], file)
                     for file, text in texts.items()} for e in exercises}  # fmt: skip
    scores = []
    for submission in submissions:
        with tempfile.TemporaryDirectory() as folder:  # nothing is left for the next one
            Path(folder).chmod(0o755)
            child, lines = Child(Path(folder), [s.resolve() for s in submissions]), []
            for e in exercises:
                try:
                    files = rest[e.name] | {
                        e.file: planted(e, rest[e.name][e.file], read(submission, e.file))
                    }
                    wrong = judge(e, child.run(e, files, cases[e.name]), expected[e.name])
                except ValueError as error:
                    wrong = str(error)
                message = clean(wrong) or "it failed" if wrong else "right"
                lines.append({"name": e.name, "score": 0 if wrong else e.points,
                              "max_score": e.points, "message": message})  # fmt: skip
            child.stop()
        scores.append({"score": sum(line["score"] for line in lines),
                       "max_score": sum(line["max_score"] for line in lines),
                       "exercises": lines})  # fmt: skip
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
    seed = secrets.randbelow(2**40) if config.seed is None else config.seed
    scores = grade(config.submissions, seed)
    for name, score in zip(names, scores):
        folder = config.out if len(names) == 1 else config.out / name
        files = {"score.json": score}
        if config.format == "gradescope":
            files["results.json"] = gradescope(score, time.time() - start)
        elif config.format == "classroom50":
            files["result.json"] = classroom50(score)
        for file, content in files.items():
            put(folder, file, json.dumps(content, indent=1) + "\n")
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
