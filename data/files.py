"""What all scripts share outside of torch: one kind of error, JSONL files, the command line."""

import argparse
import contextlib
import dataclasses
import json
import math
import os
import sys
import time
from pathlib import Path

# The flags that need memory.
MEMORY = ("batch", "minibatch", "episodes", "k_max", "max_new", "count", "width")


class UserError(Exception):
    """A user's mistake: the message is one sentence that says what is wrong and what to do."""


def option(default, help: str, least: float | None = None, most: float = math.inf):
    """A dataclass field with its one-line meaning, which --help prints, and its limits.

    Without a `least` an integer starts at 1 and any other number at 0.
    """
    if least is None:
        least = 1 if type(default) is int else 0
    return dataclasses.field(default=default, metadata={"help": help, "least": least, "most": most})


def run(config_class, main, argv: list[str] | None = None) -> None:
    """Reads the command line into a config and calls main(config); a UserError, a file that
    cannot be used, or too little memory exits with 2.

    Every field of the dataclass is a flag. --fast applies the class's FAST values, if it has any,
    which flags given beside it override. A letter that the output cannot show is printed as \\u....
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    parser = argparse.ArgumentParser(
        description=sys.modules[config_class.__module__].__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    for f in dataclasses.fields(config_class):
        flag, help = "--" + f.name.replace("_", "-"), f"{f.metadata['help']} (default: {f.default})"
        help = help.replace("%", "%%")  # argparse would take it for a format
        if f.type is bool:
            parser.add_argument(flag, action=argparse.BooleanOptionalAction, help=help)
        else:
            parser.add_argument(flag, type=f.type, metavar=f.type.__name__, help=help)
    if hasattr(config_class, "FAST"):
        parser.add_argument("--fast", action="store_true", help="a preset for a try-out in seconds")
    given = {k: v for k, v in vars(parser.parse_args(argv)).items() if v is not None}
    preset = {"out": "out/fast", **config_class.FAST} if given.pop("fast", False) else {}
    try:
        for f in dataclasses.fields(config_class):
            if f.type in (int, float) and f.name in given:
                check_limits(f, given[f.name])
        main(config_class(**{**preset, **given}))
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        flags = [f"--{f.name}" for f in dataclasses.fields(config_class) if f.name in MEMORY]
        less = " or ".join(flags).replace("_", "-") or "model"
        print(f"error: the memory is full: try a smaller {less}", file=sys.stderr)
        sys.exit(2)


def is_out_of_memory(error: Exception) -> bool:
    """Also torch's own, which is a RuntimeError with a message of many kinds."""
    says = ("out of memory", "not enough memory", "allocate memory", "ALLOC_FAILED")
    return isinstance(error, MemoryError) or any(words in str(error) for words in says)


def check_limits(field: dataclasses.Field, value: float) -> None:
    least, most = field.metadata["least"], field.metadata["most"]
    if not least <= value <= most or value == math.inf:
        up_to = "a finite number" if most == math.inf else f"at most {most}"
        raise UserError(f"--{field.name.replace('_', '-')} must be {least} or more and {up_to}")


def located(path: str | Path) -> Path:
    """A file of this folder or, if it is not there, of the repository: data/ from anywhere."""
    root = Path(__file__).parent.parent
    return Path(path) if Path(path).exists() or not (root / path).exists() else root / path


def replace(source: Path, target: Path) -> None:
    """os.replace, tried for two seconds: on Windows a virus scanner may hold a file for one."""
    end = time.monotonic() + 2
    while True:
        try:
            return os.replace(source, target)
        except PermissionError:
            if time.monotonic() > end:
                raise
        time.sleep(0.1)


def write_whole(path: Path, write) -> None:
    """Has write(path) write a file whole or not at all: an interruption leaves the earlier one."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        replace(temporary, path)
    except (OSError, RuntimeError) as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        # torch has a RuntimeError of its own for a full disk, which does not say so.
        reason = error if isinstance(error, OSError) else f"is the disk full? {error}"
        raise UserError(f"{path} cannot be written: {reason}") from None


def write_text(path: str | Path, text: str) -> None:
    write_whole(Path(path), lambda file: file.write_text(text, encoding="utf-8", newline="\n"))


def write_jsonl(path: str | Path, records: list[dict]) -> None:
    """Writes an object a line. Raises ValueError for NaN and infinity, which JSON does not have."""
    lines = [json.dumps(r, ensure_ascii=False, allow_nan=False) + "\n" for r in records]
    write_text(path, "".join(lines))
