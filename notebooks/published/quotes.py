"""Numbers in the texts, taken from where they were measured: python notebooks/published/quotes.py

A number in a README or a notebook may be followed by a comment, which a reader does not see, that
says where it comes from:

    0.78<!-- seed0/models/ppo/gold/value -->        a value of this folder's seed0.json
    0.78<!-- mean seed/models/ppo/gold -->          mean, min or max over seeds 0, 1 and 2
    0.9<!-- max optimum/300/beta 0.0/*/gold -->     over a list
    0.21<!-- seed0/models/ppo/gold - seed0/models/sft/gold -->      a difference
    52 %<!-- out: broken +\\d+ +\\S+ +(\\S+) -->    what the notebook itself printed, as a pattern

This script writes the numbers anew, with as many digits as before. Tests hold that nothing changes.
"""

import functools
import json
import re
from pathlib import Path

RESULTS = Path(__file__).resolve().parent
ROOT = RESULTS.parent.parent
NOTEBOOKS = RESULTS.parent
PAGES = [ROOT / "README.md", RESULTS / "README.md", *sorted(NOTEBOOKS.glob("course/*.md")),
         *sorted(NOTEBOOKS.glob("*.ipynb"))]  # fmt: skip
QUOTE = re.compile(r"(?P<number>[-−+]?\d*\.?\d+)(?P<percent> ?%)?<!-- (?P<source>.+?) -->")
SEEDS = (0, 1, 2)
OVER = {"mean": lambda x: sum(x) / len(x), "min": min, "max": max}


@functools.lru_cache(maxsize=None)
def part(name: str) -> dict:
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def found(values: list, keys: list[str]) -> list[float]:
    """What stands under these keys in each of the values; * stands for a list's every entry."""
    for key in keys:
        if key == "*":
            values = [entry for value in values for entry in value]
        elif isinstance(values[0], list):
            values = [value[int(key)] for value in values]
        else:
            values = [value[key] for value in values]
    return [value["value"] if isinstance(value, dict) else value for value in values]


def look_up(source: str, outputs: str) -> float:
    """The number that a comment names. Raises LookupError where there is none."""
    if source.startswith("out: "):
        match = re.search(source.removeprefix("out: "), outputs)
        if not match:
            raise LookupError(f"no output fits {source!r}")
        text = match[1].replace("−", "-").replace(",", "")
        return float(text.rstrip("%")) / (100 if text.endswith("%") else 1)
    if " - " in source:
        one, other = source.split(" - ")
        return look_up(one, outputs) - look_up(other, outputs)
    over, path = re.fullmatch(rf"(?:({'|'.join(OVER)}) )?(.+)", source).groups()
    name, *keys = path.split("/")
    several = not (RESULTS / f"{name}.json").exists()
    values = found([part(f"{name}{s}") for s in SEEDS] if several else [part(name)], keys)
    if len(values) > 1 and not over:
        raise LookupError(f"{source!r} names several numbers: mean, min or max?")
    return OVER[over or "mean"](values)


def filled(text: str, outputs: str = "") -> str:
    """The text with the number before each such comment as it was measured."""

    def number(match: re.Match) -> str:
        value = look_up(match["source"], outputs) * (100 if match["percent"] else 1)
        digits = len(match["number"].partition(".")[2])
        sign = "+" if match["number"].startswith("+") and value >= 0 else ""
        shown = sign + f"{round(value, digits) + 0.0:.{digits}f}"
        if match["number"].startswith("."):
            shown = shown.removeprefix("0")
        shown = shown.replace("-", "−") if "−" in match["number"] else shown
        return f"{shown}{match['percent'] or ''}<!-- {match['source']} -->"

    return QUOTE.sub(number, text)


def outputs_of(notebook: dict) -> str:
    """All that a notebook's cells have printed and shown as text, in order."""
    texts = []
    for cell in notebook["cells"]:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            texts += [output.get("text", ""), data.get("text/markdown", data.get("text/plain", ""))]
    return "\n".join("".join(text) for text in texts)


def rewritten(file: Path) -> str:
    """A page's text with its numbers written anew."""
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".md":
        return filled(text)
    notebook = json.loads(text)
    outputs = outputs_of(notebook)
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            cell["source"] = filled("".join(cell["source"]), outputs).splitlines(keepends=True)
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(rewritten(page), encoding="utf-8")
