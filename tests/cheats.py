"""Submissions that cheat, break something or are merely unusual, and what the grader makes of them.

A cheat is (name, file, right code, wrong code, exercises that lose their points, what the message
of the first of these says): the repository's own solution with right, which the file has exactly
once, replaced by wrong. All other exercises keep their points; if the list is empty, all do.

If right is "", wrong is appended to the file. If right is None, wrong is the whole file: text or
bytes, None if there is no such file, a Path for a symbolic link to it, a dict for a folder.
`submit` makes the folder of a cheat.
"""

import codecs
import re
import shutil
import textwrap
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FILES = ("model.py", "sft.py", "reward.py", "ppo.py")
MODEL = ["attention", "draw", "cache", "mask", "logprobs"]
PPO = ["rewards", "gae", "whiten", "policy", "value", "average", "rollout"]

# Lines of the blanked functions that a cheat takes the place of, or stands in front of.
GAE = "    advantages = torch.zeros_like(rewards)\n"
GAE_DEF = "def gae(rewards, values, mask, lam: float):\n"
GAE_END = "    return advantages, (advantages + values) * mask\n"
GAE_BODY = (
    GAE
    + """    running = torch.zeros_like(rewards[:, 0])  # A_{t+1}, (B,)
    following = torch.zeros_like(running)  # V_{t+1}, (B,)
    for t in reversed(range(rewards.shape[1])):
        delta = rewards[:, t] + following - values[:, t]
        running = (delta + lam * running) * mask[:, t]
        following = values[:, t] * mask[:, t]
        advantages[:, t] = running
"""
    + GAE_END
)
ROLLOUT_END = """            "scores": scores, "ended": ended.float(), "returns": returns,
            "advantages": whiten(advantages, mask)}  # fmt: skip
"""
LOGPROBS_END = """\
        logp[:, 1:][chosen] = logits.log_softmax(dim=-1).gather(1, following[:, None]).squeeze(1)
        return logp
"""
MASK_BODY = """    require_room(prompts, context)
    rows = [(p + r)[:context] for p, r in zip(prompts, responses)]
    mask = [[0] * len(p) + [1] * (len(row) - len(p)) for p, row in zip(prompts, rows)]
    return pad_rows(rows, pad, device), pad_rows(mask, 0, device).float()
"""
MASK_END = MASK_BODY.splitlines(keepends=True)[-1]
DRAW_BODY = """    if temperature == 0:
        return logits.argmax(dim=-1)
    below = (logits / temperature).softmax(dim=-1).cumsum(dim=-1)  # (B,V), up to about 1
    drawn = torch.rand(len(below), 1, device=below.device) * below[:, -1:]
    token = torch.searchsorted(below, drawn, right=True).squeeze(1)
    return token.clamp(max=logits.shape[1] - 1)
"""
DRAWN = "    drawn = torch.rand(len(below), 1, device=below.device) * below[:, -1:]\n"
ATTENTION = """        att = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
        # The mask is small and is added: masked_fill would copy all scores, and their gradient.
        att = (att + torch.where(visible, 0.0, -torch.inf)).softmax(dim=-1)
        # (B,H,T,M) @ (B,H,M,D) -> (B,H,T,D) -> (B,T,C)
        y = (att @ v).transpose(1, 2).reshape(B, T, C)
"""
POLICY_END = "    return masked_mean(torch.maximum(unclipped, clipped), mask)\n"
REMEMBER = """    cache[0][rows, :, positions] = k.transpose(1, 2)
    cache[1][rows, :, positions] = v.transpose(1, 2)
"""
RANKING_END = """    pairs = beats.sum(dim=(1, 2))
    losses = -(F.logsigmoid(margins) * beats).sum(dim=(1, 2)) / pairs.clamp(min=1)
    return losses.sum() / (pairs > 0).sum().clamp(min=1)
"""
REWARDS_END = "    return rewards.scatter_add(1, last_token(mask)[:, None], scores[:, None])\n"
EMA = "        a.lerp_(p, 1 - decay)\n"


def own(file: str) -> str:
    return (ROOT / file).read_text(encoding="utf-8")


def source(file: str, name: str) -> str:
    """A function's text, and the blank lines behind it."""
    text = own(file)
    start = text.index(f"def {name}(")
    return text[start : text.index("\n\n\n", start) + 3]


def body(code: str) -> str:
    return textwrap.indent(textwrap.dedent(code).strip("\n") + "\n", "    ")


def gae(code: str) -> tuple[str, str, str]:
    """This code in front of gae's own, which is right: (file, right, wrong)."""
    return "ppo.py", GAE, body(code) + GAE


def lazy(code: str) -> tuple[str, str, str]:
    """This code in place of gae's own, and then an answer of zeros."""
    return "ppo.py", GAE_BODY, body(code) + body("return rewards * 0, values * 0")


def stolen(code: str) -> tuple[str, str, str]:
    """This code must find the text of the repository's ppo.py; then its gae is run."""
    code = re.sub(r"\bPATH\b", repr(str(ROOT / "ppo.py")), textwrap.dedent(code))
    code = re.sub(r"\bROOT\b", repr(str(ROOT)), code)
    once = "if not hasattr(torch, 'stolen'):\n" + body(code) + "    torch.stolen = text\n"
    return "ppo.py", GAE_BODY, body(once) + body(STOLEN)


STOLEN = """
    text = torch.stolen if isinstance(torch.stolen, str) else torch.stolen.decode()
    space = dict(globals())
    exec(text[text.index("def gae(") : text.index("def whiten(")], space)
    return space["gae"](rewards, values, mask, lam)
"""


def forged(code: str) -> tuple[str, str, str]:
    """This code must write outputs.npz; then the process is left."""
    return "ppo.py", GAE_BODY, body(code) + body("import os\nos._exit(0)")


CHEATS = [
    # ------------------------------------------------------------------------- time and memory
    ("endless loop", *lazy("while True: pass"), ["gae"], "too long"),
    ("endless loop in C", *lazy("import itertools; sum(itertools.count())"), ["gae"], "too long"),
    ("sleep", *lazy("import time; time.sleep(1e6)"), ["gae"], "too long"),
    ("loop that swallows all", *lazy("""
        import signal
        for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(number, lambda *args: None)
        while True:
            try:
                while True: pass
            except BaseException:
                pass
     """), ["gae"], "too long"),
    ("loop in the message of an error", *lazy("""
        class Endless(Exception):
            def __str__(self):
                while True: pass
        raise Endless
     """), ["gae"], "too long"),
    ("deadlock", *lazy("""
        import threading
        lock = threading.Lock()
        lock.acquire()
        lock.acquire()
     """), ["gae"], "too long"),
    ("list without an end", *lazy("""
        much = [0]
        while True: much += much
     """), ["gae"], "MemoryError"),
    ("tensor of a terabyte", *lazy("torch.empty(2**40)"), ["gae"], "memory"),
    ("recursion without an end", *lazy("return gae(rewards, values, mask, lam)"), ["gae"],
     "RecursionError"),
    ("recursion through the end of the stack", *lazy("""
        import sys
        sys.setrecursionlimit(10**9)
        def deep(x): return max([x], key=deep)
        deep(1)
     """), ["gae"], "ended without an answer"),
    ("gigabyte on the disk", *lazy("open('much', 'wb').write(bytes(2**30))"), ["gae"],
     "File too large"),
    ("print-spam", *gae("""
        import sys
        for _ in range(100_000):
            print("x" * 100)
            print("x" * 100, file=sys.stderr)
     """), [], ""),
    # ----------------------------------------------------------------------------------- exits
    ("sys.exit", *lazy("import sys; sys.exit(0)"), ["gae"], "SystemExit"),
    ("os._exit", *lazy("import os; os._exit(0)"), ["gae"], "ended without an answer"),
    ("segmentation fault", *lazy("import faulthandler; faulthandler._sigsegv()"), ["gae"],
     "ended without an answer"),
    ("error that cannot be told", *lazy("""
        class Mute(Exception):
            def __str__(self):
                raise self
        raise Mute
     """), ["gae"], ""),
    ("os._exit at import", "model.py", "", "\nimport os\nos._exit(0)\n", [], ""),
    ("loop at import", "reward.py", "", "\nwhile True: pass\n", [], ""),
    ("exit in a decorator", "ppo.py", GAE_DEF, "@exit\n" + GAE_DEF, ["gae"], "SystemExit"),
    # ------------------------------------------------------------------------------- processes
    ("parent killed", *lazy("import os; os.kill(os.getppid(), 9)"), ["gae"], "not allowed"),
    ("parent stopped through a descriptor", *lazy("""
        import os, signal, time
        signal.pidfd_send_signal(os.pidfd_open(os.getppid()), signal.SIGSTOP)
        time.sleep(9)
     """), ["gae"], ""),
    ("fork bomb", *lazy("""
        import os
        while True: os.fork()
     """), ["gae"], "os.fork is not allowed"),
    ("subprocess", *stolen("import subprocess\ntext = subprocess.check_output(['cat', PATH])"),
     ["gae"], "subprocess.Popen is not allowed"),
    ("git", *stolen("""
        import subprocess
        text = subprocess.check_output(["git", "-C", ROOT, "show", "HEAD:ppo.py"])
     """), ["gae"], "not allowed"),
    # ----------------------------------------------------------- the repository's own solution
    ("open", *stolen("text = open(PATH).read()"), ["gae"], "not to be read"),
    ("open of a link", *stolen("import os\nos.symlink(PATH, 'x')\ntext = open('x').read()"),
     ["gae"], "not to be read"),
    ("inspect", *stolen("""
        import importlib.util, inspect
        spec = importlib.util.spec_from_file_location("solution", PATH)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        text = inspect.getsource(module)
     """), ["gae"], "not to be read"),
    ("io.FileIO of a Path", *stolen("""
        import io, pathlib
        text = io.FileIO(pathlib.Path(PATH)).read()
     """), ["gae"], "not to be read"),
    ("torch.from_file", *stolen("""
        import os
        text = bytes(torch.from_file(PATH, size=os.stat(PATH).st_size, dtype=torch.uint8).tolist())
     """), ["gae"], ""),
    ("left over by the exercise before", "ppo.py", REWARDS_END + "\n\n" + GAE_DEF,
     body("""
        import tempfile, os
        with open(tempfile.gettempdir() + "/solution-of-gae", "w") as file:
            file.write(open(__file__).read())
     """) + REWARDS_END + "\n\n" + GAE_DEF + body("""
        import os, tempfile
        if not hasattr(torch, "stolen"):
            torch.stolen = open(tempfile.gettempdir() + "/solution-of-gae").read()
            os.remove(tempfile.gettempdir() + "/solution-of-gae")
     """) + body(STOLEN), ["gae"], ""),
    ("link to the solution", "ppo.py", None, ROOT / "ppo.py", PPO, "ppo.py"),
    ("download with a socket", *stolen("""
        import socket
        text = socket.create_connection(("raw.githubusercontent.com", 443)).recv(9999)
     """), ["gae"], "socket"),
    # ------------------------------------------------------------------ the fence and its hook
    ("realpath replaced", *stolen("""
        import os
        os.path.realpath = lambda path: "/"
        text = open(PATH).read()
     """), ["gae"], ""),
    ("isinstance replaced", *stolen("""
        import __main__
        __main__.isinstance = lambda *args: False
        text = open(PATH).read()
     """), ["gae"], ""),
    ("frames of the callers", *stolen("""
        import sys
        frame = sys._getframe()
        while frame:
            if "FORBIDDEN" in frame.f_globals:
                frame.f_globals["FORBIDDEN"] = ("nothing",)
            frame = frame.f_back
        import subprocess
        text = subprocess.check_output(["cat", PATH])
     """), ["gae"], ""),
    ("ctypes", *stolen("""
        import ctypes
        libc = ctypes.CDLL(None)
        libc.system(b"cp " + PATH.encode() + b" x")
        text = open("x").read()
     """), ["gae"], "ctypes"),
    # --------------------------------------------------------------------------- forged results
    ("score.json", *lazy("""
        import json, os
        for folder in (".", "..", os.path.dirname(os.getcwd())):
            try:
                with open(folder + "/score.json", "w") as file:
                    json.dump({"score": 100, "max_score": 100, "exercises": []}, file)
            except OSError:
                pass
     """), ["gae"], "advantages is wrong"),
    ("error.txt that says right", *lazy("open('error.txt', 'w').write('right')"), ["gae"],
     "it failed: right"),
    ("error.txt that is empty", *forged("open('error.txt', 'w')"), ["gae"], "it failed"),
    ("error.txt linked to a secret", *forged("import os; os.symlink('/etc/passwd', 'error.txt')"),
     ["gae"], "left something else"),
    ("outputs of no words", *forged("""
        import numpy
        names = ("inputs left as they were", "advantages", "returns")
        empty = {f"{i}/{name}": numpy.asarray("") for i in range(3) for name in names}
        numpy.savez("outputs.npz", **empty)
     """), ["gae"], "is no tensor"),
    ("outputs that are not printable", *forged("""
        import numpy
        numpy.savez("outputs.npz", **{f"{i}/inputs left as they were": numpy.asarray("\\ud800\\x1b")
                                      for i in range(3)})
     """), ["gae"], "inputs left as they were"),
    # -------------------------------------------------------------------------------- patching
    ("torch.isclose", *lazy("torch.isclose = torch.equal = torch.allclose = lambda *a, **k: True"),
     ["gae"], "advantages is wrong"),
    ("torch.autograd.grad", "ppo.py", POLICY_END,
     body("torch.autograd.grad = lambda loss, x, **k: [torch.zeros_like(x)]") + POLICY_END,
     ["policy"], "gradient of logp is wrong"),
    ("exercises.difference", *lazy("""
        import exercises
        exercises.difference = lambda *args: ""
        exercises.looks_like = lambda *args: ""
     """), ["gae"], "advantages is wrong"),
    ("exercises.outputs_of", *lazy("""
        import exercises
        exercises.outputs_of = lambda *args: {}
     """), ["gae"], "an answer is missing"),
    # -------------------------------------------------------------- what is no right answer
    ("nothing", *lazy("return None"), ["gae"], "TypeError"),
    ("lists", "ppo.py", GAE_END, "    return advantages.tolist(), values.tolist()\n", ["gae"],
     "advantages is a list"),
    ("words", *lazy("return 'ab'"), ["gae"], "advantages is a str"),
    ("arrays of numpy", "ppo.py", GAE_END,
     "    return advantages.numpy(), ((advantages + values) * mask).numpy()\n", ["gae"],
     "advantages is a ndarray"),
    ("equal to all", *lazy("""
        class Equal:
            __class__ = torch.Tensor
            def __eq__(self, other): return True
            def __getattr__(self, name): return lambda *args, **kwargs: self
        return Equal(), Equal()
     """), ["gae"], ""),
    ("tensor of a class of one's own", *lazy("""
        class Equal(torch.Tensor):
            @classmethod
            def __torch_function__(cls, func, types, args=(), kwargs=None): return args[0]
        return rewards.as_subclass(Equal), values.as_subclass(Equal)
     """), ["gae"], ""),
    ("sparse", "ppo.py", GAE_END,
     "    return advantages.to_sparse(), ((advantages + values) * mask).to_sparse()\n", ["gae"],
     ""),
    ("nowhere", *lazy("return rewards.to('meta'), values.to('meta')"), ["gae"], ""),
    ("nested", *lazy("""
        rows = torch.nested.nested_tensor(list(rewards))
        return rows, rows
     """), ["gae"], ""),
    ("quantized numbers of tokens", "model.py", MASK_END, """\
    tokens = pad_rows(rows, pad, device).float()
    tokens = torch.quantize_per_tensor(tokens, 1.0, 0, torch.quint8)
    return tokens, pad_rows(mask, 0, device).float()
""", ["mask"], ""),
    ("other keys", "ppo.py", ROLLOUT_END, ROLLOUT_END.replace('"scores"', '"score"'), ["rollout"],
     "scores is missing"),
    ("transposed", "ppo.py", GAE_END, GAE_END.replace("return advantages", "return advantages.T"),
     ["gae"], "advantages has the shape (9, 4), not (4, 9)"),
    ("tokens of float", "model.py", MASK_END, MASK_END.replace("device),", "device).float(),"),
     ["mask"], "type"),
    ("detached", "ppo.py", POLICY_END, POLICY_END.rstrip() + ".detach()\n", ["policy"],
     "gradient of logp is missing"),
    ("NaN everywhere", *lazy("return rewards * torch.nan, values * torch.nan"), ["gae"], "wrong"),
    ("mask wiped out in place", "model.py", LOGPROBS_END,
     LOGPROBS_END.replace("        return", "        mask.zero_()\n        return"), ["logprobs"],
     ""),
    ("values wiped out in place", "ppo.py", GAE_END, """\
    returns = (advantages + values) * mask
    values.zero_()
    return advantages, returns
""", ["gae"], ""),
    ("the same draw again and again", "model.py", DRAWN,
     DRAWN.replace("    drawn", "    torch.manual_seed(1)\n    drawn"), ["draw"], ""),
    ("answers to the visible tests", *lazy("""
        import exercises
        for seed in exercises.SEEDS:
            given = exercises.inputs_of(exercises.BY_NAME["gae"], seed)
            if torch.equal(given["rewards"], rewards):
                return values, values  # as written down for this seed
     """), ["gae"], "advantages is wrong"),
    # -------------------------------------------------------------------------------- the file
    ("generator", "ppo.py", GAE_END, GAE_END.replace("return", "yield"), ["gae"], "ValueError"),
    ("renamed", "ppo.py", GAE_DEF, GAE_DEF.replace("gae", "advantages"), ["gae"],
     "gae is missing in ppo.py"),
    ("deleted", "sft.py", source("sft.py", "sft_loss"), "", ["sft"],
     "sft_loss is missing in sft.py"),
    ("helper outside", "ppo.py", GAE_DEF,
     "def helper(x):\n    return x\n\n\n" + GAE_DEF + "    rewards = helper(rewards)\n", ["gae"],
     "NameError: name 'helper' is not defined"),
    ("import outside", "ppo.py", GAE, body("itertools.count()") + GAE, ["gae"],
     "NameError: name 'itertools' is not defined"),
    ("type of an argument imported outside", "ppo.py", GAE_DEF,
     "from torch import Tensor\n\n\n" + GAE_DEF.replace("rewards,", "rewards: Tensor,"), [], ""),
    ("defined twice", "ppo.py", "", "\ndef gae(*args):\n    return args\n", ["gae"], "ValueError"),
    ("syntax error", "ppo.py", "", "\ndef\n", PPO, "ppo.py is not Python"),
    ("not UTF-8", "sft.py", None, own("sft.py").encode() + b"# \xe9\n", ["sft"], "not UTF-8"),
    ("five megabytes", "reward.py", "", "#" * 5_000_000, ["ranking", "centre"], "more than 128 KB"),
    ("folder", "sft.py", None, {}, ["sft"], "sft.py is missing"),
    ("missing", "model.py", None, None, MODEL, "model.py is missing"),
    ("parentheses", "ppo.py", "", "\nx = " + "(" * 99_999, PPO, "ppo.py is not Python"),
    ("f-string of a megabyte", "model.py", "", '\nf"' + "{a}" * 300_000 + '"\n', MODEL,
     "more than 128 KB"),
    # ------------------------------------------------------------ honest, if unusual: the file
    ("CRLF", "ppo.py", None, own("ppo.py").replace("\n", "\r\n").encode(), [], ""),
    ("byte order mark", "ppo.py", None, codecs.BOM_UTF8 + own("ppo.py").encode(), [], ""),
    ("form feed", "ppo.py", GAE_DEF, "\x0c\n" + GAE_DEF, [], ""),
    ("bracket at the margin of a method", "model.py", "        return self.proj(y)\n",
     "        return self.proj(\ny\n)\n", [], ""),
    ("string at the margin of a method", "model.py", LOGPROBS_END,
     '        """\nA note of several\nlines.\n        """\n' + LOGPROBS_END, [], ""),
    # ------------------------------------------------------------ honest, if unusual: the code
    ("gae as a product of matrices", "ppo.py", GAE_BODY, """\
    T = rewards.shape[1]
    values = values * mask
    delta = (rewards + torch.nn.functional.pad(values[:, 1:], (0, 1)) - values) * mask
    steps = torch.arange(T)[:, None] - torch.arange(T)
    powers = torch.where(steps >= 0, lam ** steps.clamp(min=0).to(delta.dtype), 0)
    advantages = delta @ powers * mask
    return advantages, advantages + values
""", [], ""),
    ("gae by numpy", "ppo.py", GAE_BODY, """\
    import numpy as np

    r, v, m = (x.detach().cpu().numpy() for x in (rewards, values * mask, mask))
    out = np.zeros((r.shape[0], r.shape[1] + 1))
    ahead = np.concatenate([v[:, 1:], np.zeros_like(v[:, :1])], axis=1)
    for t in range(r.shape[1] - 1, -1, -1):
        out[:, t] = (r[:, t] + ahead[:, t] - v[:, t] + lam * out[:, t + 1]) * m[:, t]
    return torch.tensor(out[:, :-1]), torch.tensor(out[:, :-1] + v)
""", [], ""),
    ("attention of PyTorch", "model.py", ATTENTION, """\
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=visible)
        y = y.transpose(1, 2).reshape(B, T, C)
""", [], ""),
    ("draw by multinomial", "model.py", DRAW_BODY, """\
    if temperature == 0:
        return logits.argmax(dim=-1)
    return torch.multinomial((logits / temperature).softmax(-1), 1).squeeze(1)
""", [], ""),
    ("cache by a loop", "model.py", REMEMBER, """\
    for row in range(len(k)):
        for t, position in enumerate(positions[row].tolist()):
            cache[0, row, :, position] = k[row, :, t]
            cache[1, row, :, position] = v[row, :, t]
""", [], ""),
    ("mask by pad_sequence", "model.py", MASK_BODY, """\
    from torch.nn.utils.rnn import pad_sequence

    require_room(prompts, context)
    rows = [torch.tensor((p + r)[:context]) for p, r in zip(prompts, responses)]
    masks = [(torch.arange(len(row)) >= len(p)).float() for p, row in zip(prompts, rows)]
    tokens = pad_sequence(rows, batch_first=True, padding_value=pad)
    return tokens.to(device), pad_sequence(masks, batch_first=True).to(device)
""", [], ""),
    ("logprobs by cross_entropy", "model.py", LOGPROBS_END, """\
        logp[:, 1:][chosen] = -F.cross_entropy(logits, following, reduction="none")
        return logp
""", [], ""),
    ("ranking by loops", "reward.py", RANKING_END, """\
    means = []
    for row in range(len(scores)):
        found = [F.logsigmoid(scores[row, i] - scores[row, j]) for i, j in beats[row].nonzero()]
        means += [-sum(found) / len(found)] if found else []
    return sum(means) / len(means) if means else scores.sum() * 0
""", [], ""),
    ("average by two steps", "ppo.py", EMA, "        a.mul_(decay).add_(p, alpha=1 - decay)\n", [],
     ""),
    # ---------------------------------------------------------- honest, if they leave a mess
    ("default of half precision", *gae("torch.set_default_dtype(torch.float16)"), [], ""),
    ("another folder", *gae("import os; os.chdir('/')"), [], ""),
]  # fmt: skip


def submit(cheat: tuple, folder: Path) -> None:
    """Makes the folder of a submission."""
    name, file, right, wrong, *_ = cheat
    folder.mkdir(parents=True)
    for other in FILES:
        shutil.copy(ROOT / other, folder)
    text, place = own(file), folder / file
    if right is not None:
        if right and text.count(right) != 1:
            raise ValueError(f"{name}: {file} has {text.count(right)} places like {right!r}")
        wrong = text.replace(right, wrong) if right else text + wrong
    place.unlink()
    put(place, wrong)


def put(place: Path, content) -> None:
    if isinstance(content, dict):
        place.mkdir()
        for name, inner in content.items():
            put(place / name, inner)
    elif isinstance(content, Path):
        place.symlink_to(content)
    elif content is not None:
        place.write_bytes(content.encode() if isinstance(content, str) else content)
