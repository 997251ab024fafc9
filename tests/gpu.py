"""A fake GPU: a CPU that refuses what CUDA refuses, and notes what CUDA would wait for.

It goes by the name "meta", a device that every torch knows. To torch a `Fake` is a tensor on that
device; its numbers are those of a CPU tensor inside. While a `Gpu` is on, every operation goes
through it, those of the backward pass and of torch's own functions among them. It shows neither
speed nor the numbers of a real GPU, which rounds and draws otherwise.
"""

import os
import sys
from pathlib import Path

import torch
from torch.utils._python_dispatch import TorchDispatchMode

ROOT = Path(__file__).parent.parent
FOLDERS = (str(ROOT), str(ROOT / "data"))  # of the project's own functions
META = torch.device("meta")


class Fake(torch.Tensor):
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, inside):
        return torch.Tensor._make_wrapper_subclass(
            cls, inside.shape, strides=inside.stride(), storage_offset=inside.storage_offset(),
            dtype=inside.dtype, device=META,
        )  # fmt: skip

    def __init__(self, inside):
        self.inside = inside

    def tolist(self):
        return self.cpu().tolist()

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        raise RuntimeError(f"{func} on a tensor of the fake GPU while it is off")


class Gpu(TorchDispatchMode):
    """While it is on: runs the operations, and notes in `waits` those that wait for the GPU.

    A wait is "function: operation" with the innermost function of the project. The program goes on
    only when the GPU has done all that it was given. A copy to the GPU waits, too, as its source
    is not in pinned memory.
    """

    def __init__(self):
        super().__init__()
        self.waits: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs, name, fakes, others = dict(kwargs or {}), func.overloadpacket.__name__, {}, []

        def inside(x):
            if isinstance(x, Fake):
                fakes[id(x.inside)] = x
                return x.inside
            others.append(x)
            return x

        device = kwargs.pop("device", None)
        plain, options = each(inside, args), each(inside, kwargs)
        on_gpu = bool(fakes) if device is None else torch.device(device) == META
        if name == "copy_":
            on_gpu = isinstance(args[0], Fake)
        if fakes and not all(may_join(x, name, args) for x in others):
            shapes = ", ".join(str(tuple(x.shape)) for x in others)
            raise RuntimeError(f"{name} mixes the GPU with what is on the CPU, of shape {shapes}")
        assert not any(x.is_meta for x in others), f"a tensor of {name} went past the fake GPU"
        for wait in waits_of(name, args, on_gpu, fakes, others):
            self.waits.append(f"{asking()}: {wait}")
        if device is not None:
            options["device"] = torch.device("cpu")
        result = func(*plain, **options)
        if not on_gpu:
            return result
        # An operation in place returns the tensor that it was given.
        return each(lambda x: fakes[id(x)] if id(x) in fakes else Fake(x), result)


def each(change, x):
    """x with every tensor in it changed."""
    if isinstance(x, torch.Tensor):
        return change(x)
    if isinstance(x, dict):
        return {key: each(change, value) for key, value in x.items()}
    return type(x)(each(change, y) for y in x) if isinstance(x, (list, tuple)) else x


def indices_of(name: str, args) -> list:
    """Of x[i, j] the tensors i and j."""
    if "index" in name and len(args) > 1 and isinstance(args[1], (list, tuple)):
        return [i for i in args[1] if i is not None]
    return []


def may_join(x, name: str, args) -> bool:
    """Whether a tensor x on the CPU may take part in an operation with tensors on the GPU."""
    if any(x is i for i in indices_of(name, args)):
        return isinstance(args[0], Fake)
    return name in ("copy_", "_to_copy") or (x.dim() == 0 and name not in ("cat", "stack"))


def waits_of(name: str, args, on_gpu: bool, fakes: dict, others: list) -> list[str]:
    """What an operation waits for."""
    if name in ("_to_copy", "copy_"):
        where = "GPU" if on_gpu else "CPU"
        return [f"copy to the {where}"] if (others if on_gpu else fakes) else []
    if name in ("_local_scalar_dense", "nonzero", "masked_select") and fakes:
        return ["item" if name == "_local_scalar_dense" else name]
    indices = indices_of(name, args) if fakes else []
    copies = ["index from the CPU" for i in indices if not isinstance(i, Fake)]
    # Only the GPU knows how many rows a mask selects.
    return copies + [f"{name} by mask" for i in indices if i.dtype == torch.bool]


def asking() -> str:
    """The innermost function of the project that runs."""
    frame = sys._getframe()
    while frame:
        code = frame.f_code
        if os.path.dirname(code.co_filename) in FOLDERS and code.co_name[0] != "<":
            return code.co_name
        frame = frame.f_back
    return "a test"


def fake_gpu(monkeypatch) -> Gpu:
    """To be used as `with gpu:`, and device="meta"."""
    # fused=True asks torch for which devices it has such code, and meta is none.
    asked = "_get_fused_kernels_supported_devices"
    for file in ("optimizer", "adam", "adamw"):
        module = sys.modules[f"torch.optim.{file}"]
        monkeypatch.setattr(module, asked, lambda: ["meta", "cpu"], raising=False)
    # These three are no operations, or look for the memory of a tensor.
    tensor, save, load = torch.tensor, torch.save, torch.load
    monkeypatch.setattr(torch, "tensor", lambda data, device="cpu": tensor(data).to(device))
    monkeypatch.setattr(torch, "save", lambda x, file: save(each(lambda t: t.cpu(), x), file))

    def load_to(file, map_location, **rest):
        return each(lambda t: t.to(map_location), load(file, map_location="cpu", **rest))

    monkeypatch.setattr(torch, "load", load_to)
    return Gpu()
