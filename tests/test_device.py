"""The scripts on a fake GPU (tests/gpu.py): nothing is on the wrong device, and few steps wait."""

import inspect
import random
import re
import textwrap
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

import evaluate
import model
import ppo
import pretrain
import reward
import sft
from data import make
from data.checkpoints import State, read
from tests.gpu import META, Fake, fake_gpu
from tests.small import TOKENIZER, run_ppo, run_pretrain, run_reward, run_sft, stopped


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.setattr(make, "corpus", lambda count: ["The sky is blue."] * 9)  # of PPO-ptx
    return fake_gpu(monkeypatch)


# --------------------------------------------------------------------- what the fake GPU notices
MIXES = {
    "add": lambda x: x + torch.zeros(3),
    "add_": lambda x: torch.zeros(3).add_(x),
    "lt": lambda x: x < torch.tensor([1, 2, 3]),
    "mm": lambda x: torch.zeros(2, 3) @ x[:, None],
    "cat": lambda x: torch.cat([x, torch.zeros(3)]),
    "stack": lambda x: torch.stack([x.sum(), torch.tensor(0.0)]),
    "index": lambda x: torch.arange(3)[x.long()],
    "index_put_": lambda x: x.index_put_((torch.tensor([0]),), torch.zeros(1)),
    "gather": lambda x: x.gather(0, torch.tensor([0])),
    "embedding": lambda x: F.embedding(torch.tensor([0]), x[:, None]),
    "where": lambda x: torch.where(torch.tensor([True, False, True]), x, 0.0),
    "masked_fill": lambda x: x.masked_fill(torch.tensor([True, False, True]), 0.0),
}


@pytest.mark.parametrize("name", MIXES)
def test_a_mix_of_devices_is_refused_and_named(gpu, name):
    with gpu, pytest.raises(RuntimeError, match=f"^{name} mixes the GPU"):
        MIXES[name](torch.arange(3.0, device="meta"))


WAITS = [
    (lambda x: x.sum().item(), ["item"]),
    (lambda x: bool(x.sum() > 0), ["item"]),
    (lambda x: x[: x.long()[2]], ["item"]),
    (lambda x: x.tolist(), ["copy to the CPU"]),
    (lambda x: x.cpu().numpy(), ["copy to the CPU"]),
    (lambda x: torch.zeros(3).copy_(x), ["copy to the CPU"]),
    (lambda x: x.copy_(torch.zeros(3)), ["copy to the GPU"]),
    (lambda x: torch.tensor([1], device=x.device), ["copy to the GPU"]),
    (lambda x: x[torch.tensor([0])], ["index from the CPU"]),
    (lambda x: x.nonzero(), ["nonzero"]),
    (lambda x: x[x > 1], ["index by mask"]),
    (lambda x: x.masked_select(x > 1), ["masked_select"]),
    (lambda x: x[1:].index_put_((x[1:] > 1,), x[:1]), ["index_put_ by mask"]),
    (lambda x: x + torch.rand(3, device=x.device) * torch.tensor(2.0) + 1, []),
    (lambda x: x[x.long()].cumsum(0).to(x.device).float().sort(), []),
    (lambda x: torch.randperm(3, device=x.device).split(2), []),
]


@pytest.mark.parametrize("number", range(len(WAITS)))
def test_what_waits_is_noted(gpu, number):
    work, expected = WAITS[number]
    with gpu:
        x = torch.arange(3.0, device="meta")
        work(x)
    assert gpu.waits == [f"a test: {wait}" for wait in expected]


def test_gradients_are_where_their_tensors_are_and_numbers_are_not_read_from_there(gpu):
    with gpu:
        x = torch.arange(3.0, device="meta", requires_grad=True)
        y = 2 * x[1:]
        y[0] = 5
        y.sum().backward()
        assert x.grad.device == y.device == META and isinstance(x.grad, Fake)
        assert y.tolist() == [5, 4] and x.grad.tolist() == [0, 0, 2]
        with pytest.raises(RuntimeError, match="numpy"):
            y.detach().numpy()


def pieces(folder: Path) -> None:
    """What the scripts do with tensors, on tiny models."""
    shape = model.GPTConfig(TOKENIZER.size, context=256, layers=1, heads=2, width=16)
    policy, scorer = model.GPT(shape).to("meta"), model.ScalarGPT(shape).to("meta")
    rows, pad, config = [[5, 6, 7], [5, 6, 7, 8, 9]], TOKENIZER.pad, ppo.Config(max_new=5)
    config.episodes, config.minibatch = 2, 1
    pretrain.held_out_loss(policy, rows, TOKENIZER, "meta")
    sft.sft_loss(policy, *sft.collate([(rows[0], rows[1])], pad, 256, "meta", True)).backward()
    batch = ppo.rollout(policy, policy, scorer, scorer, rows, TOKENIZER, config, 0.0)
    ppo.ptx_loss(policy, rows, 2, pad)
    assert len(list(ppo.minibatches(batch, config))) == 2
    ranked = [{"prompt": "Hi.", "completions": ["yes", "no"], "ranks": [1, 2]}]
    once = reward.Config(epochs=1)
    state = State(folder / "some.state", once)
    reward.train(once, policy, ranked, TOKENIZER, random.Random(0), state)
    model.score_texts(scorer, TOKENIZER, ["Hi."], ["yes"])
    evaluate.taxes(policy, TOKENIZER, evaluate.read_prompts("probes/closed_qa")[:1], 1, 2)


def forgotten_devices():
    """(function, its source without one of the devices that it names) for every one of them."""
    steps = (model, pretrain, sft, reward, ppo, evaluate)
    places = [vars(step) for step in steps]
    places += [vars(kind) for kind in (model.Attention, model.GPT, model.ScalarGPT)]
    for name, function in [item for place in places for item in place.items()]:
        function = inspect.unwrap(function) if callable(function) else None
        if not inspect.isfunction(function) or name in ("main", "load_models", "answer"):
            continue
        if function.__module__ in [step.__name__ for step in steps]:
            source = inspect.getsource(function)
            source = textwrap.dedent(source[source.index("def ") :])
            for found in re.finditer(r", [\w.]*device(=[\w.]+)?(?=[,)])", source):
                yield function, source[: found.start()] + source[found.end() :]


def test_whichever_device_is_forgotten_it_is_refused_or_waits(gpu, monkeypatch, tmp_path):
    def waits():
        torch.manual_seed(0)
        gpu.waits = []
        with gpu:
            pieces(tmp_path)
        return Counter(gpu.waits)

    usual, forgotten = waits(), list(dict.fromkeys(forgotten_devices()))
    assert len(forgotten) > 30
    for function, source in forgotten:
        made = {}
        exec(source, function.__globals__, made)
        with monkeypatch.context() as patch:
            patch.setattr(function, "__code__", made[function.__name__].__code__)
            try:
                assert waits() != usual, f"not noticed:\n{source}"
            except (RuntimeError, TypeError) as error:  # a TypeError where a call must name it
                assert re.search("mixes the GPU|missing 1 required", str(error)), error


# ------------------------------------------------------------------------------------- the chain
def chain(folder: Path, monkeypatch, device: str) -> list[dict]:
    """Runs every script: the checksums of all models, and what each script returned."""
    few = {"comparisons": "", "count": 3, "k_max": 4, "max_new": 6, "epochs": 2}
    one = {"value_warmup": 0, "iterations": 1}
    asked = {"out": str(folder), "device": device, "count": 1, "max_new": 3}
    results = [run_pretrain(folder, device=device, batch=60, tokens=600)]
    results += [run_sft(folder, device=device, batch=4, epochs=1)]
    results += [run_reward(folder, device=device, **few)]
    with monkeypatch.context() as patch:
        stopped(patch, 2, run_ppo, folder, device=device, log=1)
    results += [run_ppo(folder, device=device, log=1, resume=True)]
    results += [evaluate.main(evaluate.Config(**asked))]
    results += [run_reward(folder, device=device, round=2, **few)]
    results += [run_ppo(folder, device=device, round=2, snapshots=1, **one)]
    results += [run_ppo(folder, device=device, ptx_coef=0.5, **one)]
    results += [evaluate.main(evaluate.Config(prompt="Say one.", **asked))]
    times = ("seconds", "tokens_per_second", "sampling_seconds")
    weights = {file.name: read(file)["checksum"] for file in folder.rglob("*.pt")}
    return [weights] + [{k: v for k, v in x.items() if k not in times} for x in results]


@pytest.mark.filterwarnings("ignore:.*meta parameter")
def test_every_script_does_on_a_gpu_bit_for_bit_what_it_does_on_a_cpu(folder, gpu, monkeypatch):
    for place in ("cpu", "meta"):
        (folder / place).mkdir()
        for file in folder.glob("*.jsonl"):
            (folder / place / file.name).write_text(file.read_text())
    expected = chain(folder / "cpu", monkeypatch, "cpu")
    with gpu:
        found = chain(folder / "meta", monkeypatch, "meta")
    assert found == expected and gpu.waits
    assert {"base.pt", "sft.pt", "reward2.pt", "ppo2.pt", "ppo_ptx.pt"} <= expected[0].keys()


# ------------------------------------------------------------------------------------- the waits
def waits_of_steps(monkeypatch, gpu, module, loop, run, folder, **settings) -> list[Counter]:
    """The waits in each step over what the function `loop` of a script yields."""
    counts, steps = [], getattr(module, loop)

    def watched(*args, **kwargs):
        for step in steps(*args, **kwargs):
            before = len(gpu.waits)
            yield step
            counts.append(Counter(gpu.waits[before:]))

    with monkeypatch.context() as patch, gpu:
        patch.setattr(module, loop, watched)
        run(folder, device="meta", log=99, **settings)
    return counts


LENGTHS = {"hidden_by_length: copy to the CPU": 1}
LOGPROBS = LENGTHS | {"logprobs: nonzero": 1}
BATCH = {"pad_rows: copy to the GPU": 2}  # tokens and mask
ROWS = {"pad_rows: copy to the GPU": 4}  # tokens, positions, parts and ranks
PTX = [{"pad_rows: copy to the GPU": 1}, LOGPROBS]
SAMPLING = {"generate: copy to the GPU": 1, "pad_rows: copy to the GPU": 1, "read_prompts: item": 1,
            "read_prompts: copy to the GPU": 2, "generate: copy to the CPU": 1}  # fmt: skip
ROLLOUT = [SAMPLING, BATCH, LOGPROBS, LOGPROBS, LENGTHS, LENGTHS, {"rollout: copy to the GPU": 1}]
METRICS = {"rollout_metrics: item": 6, "mean_of: item": 4}
STEP = [LOGPROBS, LENGTHS]  # of PPO: the policy's and the value network's
ONE = {"value_warmup": 0, "minibatch": 16, "iterations": 3}
EXPECTED = [
    (pretrain, "resumable", run_pretrain, {"batch": 60}, [{"pad_rows: copy to the GPU": 1}]),
    (sft, "resumable", run_sft, {"batch": 7, "epochs": 1}, [BATCH, LOGPROBS]),
    (reward, "resumable", run_reward, {"batch": 7, "epochs": 1}, [ROWS]),
    (ppo, "minibatches", run_ppo, ONE, STEP),
    (ppo, "minibatches", run_ppo, ONE | {"ptx_coef": 0.5}, STEP + PTX),
    (ppo, "resumable", run_ppo, ONE, [*ROLLOUT, {"generate: nonzero": 1}, *STEP, METRICS]),
]


@pytest.mark.filterwarnings("ignore:.*meta parameter")
@pytest.mark.parametrize("module, loop, run, settings, parts", EXPECTED)
def test_a_step_waits_for_the_gpu_no_more_often(
    folder, gpu, monkeypatch, module, loop, run, settings, parts
):
    found = waits_of_steps(monkeypatch, gpu, module, loop, run, folder, **settings)
    assert found[1] == sum(map(Counter, parts), Counter())  # the first and the last step may log


@pytest.mark.parametrize("longest", [8, 12])
def test_sampling_waits_at_every_fourth_token_and_a_rollout_little_more(gpu, longest):
    shape = model.GPTConfig(TOKENIZER.size, context=64, layers=1, heads=2, width=16)
    config, rows = ppo.Config(max_new=longest), [[5, 6], [7], [8, 9, 5], [6]]
    tokenizer = SimpleNamespace(pad=TOKENIZER.pad, eos=-1)  # no answer ends
    with gpu:
        policy, scorer = model.GPT(shape).to("meta"), model.ScalarGPT(shape).to("meta")
        gpu.waits = []
        model.generate(policy, rows, longest, eos=-1)
        fourth = {"generate: nonzero": longest // 4}
        assert Counter(gpu.waits) == Counter(SAMPLING | fourth)
        gpu.waits = []
        ppo.rollout(policy, policy, scorer, scorer, rows, tokenizer, config, 0.0)
    assert Counter(gpu.waits) == sum(map(Counter, [*ROLLOUT, fourth]), Counter())
