"""Checkpoints: finished models, and the state of a training loop that --resume goes on from.

Files are written whole or not at all, and read without executing anything in them.
"""

import time
import zlib
from dataclasses import asdict
from pathlib import Path

import torch
import torch.nn as nn

from data.files import UserError, write_whole
from model import GPT, GPTConfig, ScalarGPT


def pick_device(name: str) -> str:
    """The device of this name, "auto" the GPU where there is one; UserError if it is not there."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=name)
    except (RuntimeError, AssertionError):
        raise UserError(f"the device {name} is not available here: use --device cpu") from None
    return name


def write(path: Path, content: dict) -> None:
    """Writes a file of tensors and plain values."""
    write_whole(path, lambda file: torch.save(content, file))


def read(path: Path, device="cpu") -> dict:
    """Reads what `write` wrote; nothing in a file is ever executed."""
    try:
        content = torch.load(path, map_location=device, weights_only=True)
        return {**content}
    except Exception:  # a damaged file can fail in any way: torch, zipfile and pickle differ
        raise UserError(f"{path} is damaged or not a checkpoint of this project") from None


def check_finite(model: nn.Module, path: Path) -> None:
    """Raises UserError if a weight is NaN or infinite, before it could overwrite a good file."""
    if not all(p.isfinite().all() for p in model.parameters()):
        raise UserError(f"training has diverged, {path} is left as it was: try a smaller --lr")


def save(path: str | Path, model: GPT, **extra) -> None:
    """Writes weights, architecture and `extra` (plain values)."""
    check_finite(model, Path(path))
    content = {"class": type(model).__name__, "config": asdict(model.config)}
    write(Path(path), {**content, "weights": model.state_dict(), **extra})


def load(path: str | Path, command: str, vocab_size: int, device="cpu", kind=None):
    """Reads what `save` wrote: (model in eval mode, the extra values).

    `command` is what makes the file, for the message when it is missing. Raises UserError for a
    missing, damaged or foreign file, one made with a vocabulary of another size, or one that is not
    of this kind, GPT or ScalarGPT, where one is asked for.
    """
    if not Path(path).exists():
        raise UserError(f"{path} is missing: run {command} first")
    content = read(Path(path), device)
    try:
        found = {"GPT": GPT, "ScalarGPT": ScalarGPT}[content.pop("class")]
        model = found(GPTConfig(**content.pop("config"))).to(device)
        model.load_state_dict(content.pop("weights"))
    except (KeyError, TypeError, RuntimeError, ArithmeticError):
        raise UserError(f"{path} is not a checkpoint of this project") from None
    if kind not in (None, found):
        raise UserError(f"{path} is not a {'policy' if kind is GPT else 'reward model'}")
    if model.config.vocab_size != vocab_size:
        raise UserError(f"{path} was made with another vocabulary: run {command} again")
    return model.eval(), content


def of_round(name: str, round: int) -> str:
    """A file's name in a round of steps 2 and 3: ppo, ppo2, ppo3, ..."""
    return f"{name}{round}" if round > 1 else name


def load_round(out: Path, step: str, round: int, vocab_size: int, device="cpu"):
    """`load` of what step "ppo" or "reward" made in a round; round 0 is the SFT model."""
    if round == 0:
        return load(out / "sft.pt", "python sft.py", vocab_size, device, GPT)
    command = f"python {step}.py" + (f" --round {round}" if round > 1 else "")
    kind = ScalarGPT if step == "reward" else GPT
    return load(out / f"{of_round(step, round)}.pt", command, vocab_size, device, kind)


class Progress:
    """The state of a training loop on disk: with --resume a killed run goes on where it was.

    `parts` are its modules and optimizers. With them go torch's random state, the steps done and
    the metrics so far. The order of the data is made anew from the seed, so on a CPU the weights
    end bit for bit as if nothing had happened.
    """

    seconds = 15  # between two states

    def __init__(self, path: Path, config, **parts):
        self.path, self.parts, self.written = path, parts, time.monotonic()
        self.resume = config.resume
        self.settings = {k: v for k, v in asdict(config).items() if k not in ("resume", "log")}
        # What the loop starts from: a checksum of the models' weights.
        self.settings["start"] = [
            zlib.crc32(p.detach().cpu().numpy().tobytes())
            for part in parts.values()
            if isinstance(part, nn.Module)
            for p in part.parameters()
        ]

    def start(self) -> tuple[int, list[dict]]:
        """With --resume, loads the state if there is one: (steps done, metrics so far).

        Raises UserError when the state is of a run with other settings.
        """
        if not (self.resume and self.path.exists()):
            return 0, []
        state = read(self.path)
        other = [k for k, v in self.settings.items() if state.get("settings", {}).get(k) != v]
        if other:
            raise UserError(f"{self.path} is of a run with another {other[0]}: leave --resume out")
        try:
            for name, part in self.parts.items():
                part.load_state_dict(state["parts"][name])
        except (KeyError, ValueError, RuntimeError):
            raise UserError(f"{self.path} is of another model: leave --resume out") from None
        torch.set_rng_state(state["random"])
        if torch.cuda.is_available():
            torch.cuda.set_rng_state_all(state["cuda_random"])
        return state["steps"], state["history"]

    def keep(self, steps: int, history: list[dict]) -> None:
        """Writes the state now and then, after so many steps."""
        if time.monotonic() - self.written < self.seconds:
            return
        for part in self.parts.values():
            if isinstance(part, nn.Module):
                check_finite(part, self.path)
        parts = {name: part.state_dict() for name, part in self.parts.items()}
        cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
        write(self.path, {"settings": self.settings, "parts": parts, "steps": steps,
                          "history": history, "random": torch.get_rng_state(),
                          "cuda_random": cuda})  # fmt: skip
        self.written = time.monotonic()

    def done(self) -> None:
        self.path.unlink(missing_ok=True)
