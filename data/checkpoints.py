"""Checkpoints: finished models, and the state of a training loop that --resume goes on from.

Files are written whole or not at all, and read without executing anything in them.
"""

import contextlib
import time
import zlib
from dataclasses import asdict
from pathlib import Path

import torch
import torch.nn as nn
from tqdm import tqdm

from data.files import UserError, is_out_of_memory, located, write_whole
from model import GPT, GPTConfig, ScalarGPT

SECONDS = 15  # between two states of a training loop, at least
SHARE = 1 / 50  # of the time may go into writing them: minutes apart for large models
UNCHECKED = ("resume", "out", "device", "log", "snapshots", "iterations")  # may change in between


def pick_device(name: str) -> str:
    """The device of this name, "auto" the GPU where one works; UserError if it does not work."""
    if name == "auto" and not torch.cuda.is_available():
        return "cpu"
    device = "cuda" if name == "auto" else name
    try:
        some = torch.ones(2, 2, device=device)
        (some @ some).sum().item()
    except (RuntimeError, AssertionError) as error:
        if name != "auto":
            raise UserError(f"the device {name} is not available here: use --device cpu") from None
        reason = str(error).partition("\n")[0]
        print(f"the GPU does not work, the CPU is used: {reason}")
        return "cpu"
    return device


def fused(device: str | torch.device) -> bool:
    """Whether an optimizer may be fused: torch 2.4's are not on a Mac's GPU."""
    return torch.device(device).type != "mps"


def write(path: Path, content: dict) -> None:
    """Writes a file of tensors and plain values."""
    write_whole(path, lambda file: torch.save(content, file))


def read(path: Path, device="cpu") -> dict:
    """Reads what `write` wrote; nothing in a file is ever executed."""
    try:
        content = torch.load(path, map_location=device, weights_only=True)
        return {**content}
    except Exception as error:  # a damaged file can fail in any way: torch and pickle differ
        if is_out_of_memory(error):
            raise
        raise UserError(f"{path} is damaged or not a checkpoint of this project") from None


# ------------------------------------------------------------------------------ finished models
def checksum(model: nn.Module) -> int:
    """Of all weights: two models with the same checksum are the same model."""
    total = 0
    for p in model.parameters():
        total = zlib.crc32(p.detach().cpu().numpy().tobytes(), total)
    return total


def save(path: str | Path, model: GPT, made_from: dict[str, int], **extra) -> None:
    """Writes a finished model, and removes the state of its training.

    made_from has the checksums of the checkpoints it was trained from, such as {"sft": 123};
    `extra` are plain values to be kept with it.
    """
    path = Path(path)
    check_finite([model], path)
    content = {"class": type(model).__name__, "config": asdict(model.config),
               "checksum": checksum(model), "made_from": made_from, **extra}  # fmt: skip
    write(path, {**content, "weights": model.state_dict()})
    with contextlib.suppress(OSError):  # going on from it would end in the same model
        path.with_suffix(".state").unlink(missing_ok=True)


def load(path: str | Path, command: str, vocab_size: int, device="cpu", kind=None):
    """Reads what `save` wrote: (model in eval mode, the other values, "checksum" among them).

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
    except (KeyError, TypeError, ValueError, RuntimeError, ArithmeticError) as error:
        if is_out_of_memory(error):
            raise
        raise UserError(f"{path} is not a checkpoint of this project") from None
    if kind not in (None, found):
        raise UserError(f"{path} is not a {'policy' if kind is GPT else 'reward model'}")
    if model.config.vocab_size != vocab_size:
        raise UserError(f"{path} was made with another vocabulary: run {command} again")
    if "made_from" not in content:
        raise UserError(f"{path} is of an older version: run {command} again")
    return model.eval(), content


def check_parents(path: Path, made_from: dict[str, int], command: str) -> None:
    """Raises UserError if a checkpoint that this one was trained from has been trained anew.

    Or one that it was trained from in turn. Those that are not in the folder are not checked.
    """
    ancestors = list(made_from.items())
    while ancestors:
        name, made = ancestors.pop(0)
        file = path.with_name(f"{name}.pt")
        if file.exists():
            content = read(file)
            if content.get("checksum") != made:
                raise UserError(f"{path} was trained from another {name}.pt: run {command} again")
            ancestors += content["made_from"].items()


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


# ------------------------------------------------------------------------------------- resuming
class State:
    """The file that a training loop writes now and then, and that --resume goes on from.

    `settings` are what the loop depends on: flags, data files by their content, and the models it
    starts from. Making it, before anything is written, raises UserError if --resume meets a state
    of other settings.
    """

    def __init__(self, path: Path, config, **models: nn.Module):
        self.path, self.settings = path, {}
        for name, value in asdict(config).items():
            if isinstance(value, str) and (file := located(value)).is_file():
                value = [zlib.crc32(file.read_bytes())]
            if name not in UNCHECKED:
                self.settings["--" + name.replace("_", "-")] = value
        for name, model in models.items():
            self.settings[f"{name} model"] = checksum(model)
        self.resume = config.resume and path.exists()
        if self.resume:
            check_same(path, read(path).get("settings", {}), self.settings)
        elif config.resume:
            print(f"there is no {path} to go on from: a new run starts")


def check_same(path: Path, then: dict, now: dict) -> None:
    """Raises UserError for the first setting of a state that is another now."""
    if then.keys() != now.keys():
        raise UserError(f"{path} is of another version: leave --resume out to start anew")

    def flag(key, value):
        if isinstance(value, bool):
            return key if value else key.replace("--", "--no-")
        return f"{key} {value}"

    for key in [key for key in now if then[key] != now[key]]:
        if not key.startswith("--"):
            what = f"from another {key}: put it back"
        elif then[key] == "":
            what = f"without {key}: leave it out"
        elif isinstance(then[key], list):
            what = f"with another {key} file: put it back"
        else:
            before = flag(key, then[key])
            what = f"with {before}, not with {flag(key, now[key])}: give {before}"
        raise UserError(f"{path} was made {what}, or leave --resume out to start anew")


def resumable(steps: list, state: State, history: list[dict], **parts):
    """Yields (number, step) of a training loop; with --resume a killed run goes on where it was.

    Now and then it writes to the state's file what the loop has changed: `parts`, its modules and
    optimizers, torch's random state, and `history`, the metrics so far. The steps are made anew
    from the seed and those done are skipped, so on a CPU the weights end bit for bit as if nothing
    had happened. `save` removes the state. A state that cannot be written is a warning. Raises
    UserError when a weight is NaN or infinite, before that could overwrite a good file.
    """
    modules = [part for part in parts.values() if isinstance(part, nn.Module)]
    done = restore(state.path, history, parts) if state.resume else 0
    if done > len(steps):
        raise UserError(
            f"{state.path} has {done} steps done, more than the {len(steps)} asked for: "
            "give more --iterations, or leave --resume out to start anew"
        )
    written, pause, warned = time.monotonic(), SECONDS, False
    for number, step in enumerate(tqdm(steps, state.path.stem, leave=False, disable=None)):
        if number < done:
            continue
        yield number, step
        if (begun := time.monotonic()) - written >= pause:
            check_finite(modules, state.path)
            try:
                keep(state.path, state.settings, number + 1, history, parts)
            except UserError as error:
                if not warned:
                    tqdm.write(f"warning: {error}; the training goes on without it")
                warned = True
            written = time.monotonic()
            pause = max(SECONDS, (written - begun) / SHARE)
    check_finite(modules, state.path)


def check_finite(modules: list[nn.Module], path: Path) -> None:
    """Raises UserError if a weight is NaN or infinite."""
    if not all(p.isfinite().all() for module in modules for p in module.parameters()):
        product = path.with_suffix(".pt")
        raise UserError(f"training has diverged, {product} is left as it was: try a smaller --lr")


def keep(state: Path, settings: dict, steps: int, history: list[dict], parts: dict) -> None:
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    parts = {name: part.state_dict() for name, part in parts.items()}
    write(state, {"settings": settings, "parts": parts, "steps": steps, "history": history,
                  "random": torch.get_rng_state(), "cuda_random": cuda})  # fmt: skip


def restore(state: Path, history: list[dict], parts: dict) -> int:
    """Puts back what `keep` wrote; returns the number of steps done."""
    content = read(state)
    try:
        for name, part in parts.items():
            part.load_state_dict(content["parts"][name])
    except (KeyError, ValueError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise
        raise UserError(f"{state} is of another model: leave --resume out") from None
    history += content["history"]
    torch.set_rng_state(content["random"])
    if torch.cuda.is_available():
        torch.cuda.set_rng_state_all(content["cuda_random"][: torch.cuda.device_count()])
    return content["steps"]
