"""Runs submitted functions, away from the grader: started by grade.py, which trusts nothing here.

A line on the standard input names an exercise and a folder with the repository's scripts, the
submitted functions in place of the right ones, and inputs.pt. For each line a child is forked, so
that torch is imported once. The child writes outputs.npz or error.txt into the folder; the answer
is a line with how it ended.
"""

import importlib
import os
import resource
import signal
import sys
import time
import traceback
from pathlib import Path

import numpy
import tiktoken  # noqa: F401  (what the scripts import is read before the fork)
import torch
import torch.nn.functional  # noqa: F401
import tqdm  # noqa: F401

SECONDS, MEMORY = 3, 2 * 2**30  # for an exercise


def limit(barred: str) -> None:
    """Of time, memory and files; no processes, no network, no reading of the repository.

    A fence inside of Python, where the system gives no better one: see README.md.
    """
    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS + 1, SECONDS + 1))
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**23, 2**23))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for place, name in (("_posixsubprocess", "fork_exec"), ("os", "pidfd_open"),
                        ("signal", "pidfd_send_signal")):  # fmt: skip
        vars(importlib.import_module(place)).pop(name, None)  # these tell no hook
    forbidden = ("subprocess.", "os.exec", "os.fork", "os.posix_spawn", "os.spawn", "os.system",
                 "os.kill", "socket.", "ctypes.", "signal.pthread_kill")  # fmt: skip

    def watch(event, args, realpath=os.path.realpath, fsdecode=os.fsdecode, isinstance=isinstance):
        if event.startswith(forbidden):
            raise PermissionError(f"{event} is not allowed in an exercise")
        if event in ("open", "os.listdir", "os.scandir") and not isinstance(args[0], int | None):
            if realpath(fsdecode(args[0])).startswith(barred):
                raise PermissionError("the grader's files are not to be read")

    sys.addaudithook(watch)


def answer(name: str, folder: str, rest: str, barred: str) -> None:
    """In the forked child: runs one exercise."""
    os.setsid()
    os.chdir(folder)
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    sys.path[:0] = [folder, rest]
    exercises = importlib.import_module("exercises")
    exercise = exercises.BY_NAME[name]
    cases = torch.load("inputs.pt", weights_only=True)
    for module in ("data.files", "data.checkpoints", "data.judges", "data.labelers", "data.make"):
        importlib.import_module(module)
    limit(barred)
    try:
        module = importlib.import_module(exercise.file.removesuffix(".py"))
        found = [exercises.outputs_of(exercise, module, case) for case in cases]
        arrays = {f"{i}/{key}": numpy.asarray(x) for i, case in enumerate(found)
                  for key, x in case.items()}  # fmt: skip
        numpy.savez(f"{folder}/outputs.npz", **arrays)
    except BaseException as error:  # also SystemExit
        place = [f for f in traceback.extract_tb(error.__traceback__) if folder in f.filename]
        try:
            says = f"{type(error).__name__}: {error}"
        except BaseException:
            says = f"{type(error).__name__}, and it cannot be told why"
        says += f" ({place[-1].name}: {place[-1].line})" if place else ""
        Path(folder, "error.txt").write_text(says[:1000], encoding="utf-8", errors="replace")
    os._exit(0)


def main() -> None:
    torch.set_num_threads(1)
    rest, barred = sys.argv[1:]
    print("ready", flush=True)
    for line in sys.stdin:
        name, folder = line.rstrip("\n").split("\t")
        child = os.fork()
        if child == 0:
            answer(name, folder, rest, barred)
        end, ended = time.monotonic() + SECONDS, 0
        while not ended and time.monotonic() < end:
            time.sleep(0.01)
            ended, _ = os.waitpid(child, os.WNOHANG)
        for kill in (os.killpg, os.kill):
            try:
                kill(child, signal.SIGKILL)
            except OSError:
                pass
        if not ended:
            os.waitpid(child, 0)
        print("ended" if ended else "too long", flush=True)


if __name__ == "__main__":
    main()
