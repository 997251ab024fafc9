"""The published run: all that the tables and pictures of this folder's README are drawn from.

    python notebooks/published/run.py                   every part, about five hours of one CPU core
    python notebooks/published/run.py seed0 optimum     these parts alone
    python notebooks/published/draw.py                  draws them

A part calls the scripts as a user would, with checkpoints in out/published/, and writes its figures
to PART.json beside this file. A part whose file is there is left alone: delete it to run anew. All
but the chains, seedN and threads, start from the checkpoints of the chain with the same seed. Each
uses one thread, so that two cores run two parts side by side.

    seedN      the chain and its evaluation
    threads    seed 0's chain again with two threads: sums are rounded otherwise, and it is faster
    chain      seed 0's checkpoints in half precision, and what each model answers to PROMPT
    roundsN    two rounds more and PPO-ptx, evaluated beside it
    ptxN       PPO-ptx at other coefficients: gold and the skills of the web
    controlN   round 2 again, but with all comparisons sampled from SFT
    temperatureN   gold of GPT, SFT and PPO when they sample at lower temperatures
    room       careful demonstrations alone, as many and half as many
    optimum    over-optimisation: the reward model's score and gold against KL
    faults     what the numbers of a PPO run look like when something is wrong
"""

import itertools
import json
import math
import platform
import random
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import torch

RESULTS = Path(__file__).resolve().parent
sys.path.insert(0, str(RESULTS.parent))

from lab import ROOT  # noqa: E402, which makes the scripts importable

import evaluate  # noqa: E402
import ppo  # noqa: E402
import pretrain  # noqa: E402
import reward  # noqa: E402
import sft  # noqa: E402
from data import checkpoints, world  # noqa: E402
from data.files import UserError, write_jsonl, write_text  # noqa: E402
from data.forms import read_jsonl  # noqa: E402
from data.judges import interval, win_rate  # noqa: E402
from data.labelers import LABELERS, demonstration, gold, rate  # noqa: E402
from data.tokenizer import Tokenizer  # noqa: E402
from model import sample_responses, sample_texts, score_texts, tokens_and_mask  # noqa: E402

RUNS, TOKENIZER, MAX_NEW = ROOT / "out" / "published", Tokenizer(), evaluate.Config.max_new
STEPS = {module.__name__: module for module in (pretrain, sft, reward, ppo, evaluate)}
SEEDS, PTX, OTHER_PTX = (0, 1, 2), 0.5, (0.1, 2.0)
TEMPERATURES = (0.0, 0.5, 1.0)
HELD_OUT = LABELERS // 2  # the first labeler whose rankings train nothing
PROMPT = "Tell me a story about Grace and a wolf. Mention the word box."
BETAS, LONG = (0.0, 0.05, 0.15), 200  # of over-optimisation: coefficients of KL, iterations
FEW, MANY = 300, reward.Config.count  # comparisons
BEST_OF = (1, 2, 4, 8, 16, 32, 64)


def copied(source: Path, name: str, *files: str) -> Path:
    """A fresh folder of checkpoints with some files of another."""
    folder = RUNS / name
    folder.mkdir(parents=True, exist_ok=True)
    for file in files:
        shutil.copy(source / file, folder / file)
    return folder


def opened(path: str | Path):
    return checkpoints.load(path, "python notebooks/published/run.py", TOKENIZER.size)[0]


def answers(path: Path, prompts: list[str], seed: int = 0, heat: float = 1.0) -> list[str]:
    torch.manual_seed(seed)
    rows = list(map(TOKENIZER.prompt, prompts))
    return sample_texts(opened(path), TOKENIZER, rows, MAX_NEW, heat)


def over(prompts: list[str], values, signed: bool = False) -> dict:
    """The mean of a value per prompt and its interval; prompts on the same are drawn together."""
    return interval(values, topics=list(map(world.topic, prompts)), signed=signed)


def scored_samples(out: Path, prompts: list[str], count: int, seed: int):
    """`count` SFT answers to each prompt, and the reward model's scores of them (prompts,count)."""
    torch.manual_seed(seed)
    judge, policy = opened(out / "reward.pt"), opened(out / "sft.pt")
    groups = sample_responses(policy, TOKENIZER, prompts, [count] * len(prompts), MAX_NEW)
    flat = [(p, t) for p, group in zip(prompts, groups) for t in group]
    scores = score_texts(judge, TOKENIZER, *map(list, zip(*flat)))
    return groups, np.array(scores).reshape(len(prompts), count)


@torch.no_grad()
def kl_to_sft(path: Path, prompts: list[str], texts: list[str], sft_path: Path) -> float:
    """The mean of log pi(y) - log pi_SFT(y) over a policy's own answers, in nats.

    Answers are encoded anew, and one that was cut off counts as if it had ended.
    """
    rows = [TOKENIZER.prompt(p) for p in prompts], [TOKENIZER.response(t) for t in texts]
    policy, sft_model = opened(path), opened(sft_path)
    batch = tokens_and_mask(*rows, TOKENIZER.pad, policy.config.context)
    return (policy.logprobs(*batch) - sft_model.logprobs(*batch)).sum(dim=1).mean().item()


def again(number: int, out: Path, seed: int, policies: list | None = None) -> None:
    """A further round of steps 2 and 3, with comparisons of these policies or of the newest."""
    reward.main(reward.Config(out=str(out), seed=seed, round=number), policies)
    ppo.main(ppo.Config(out=str(out), seed=seed, round=number))


def chain(run: str, seed: int, threads: int = 1) -> dict:
    """From random weights to the evaluation."""
    torch.set_num_threads(threads)
    out, seconds, start, valid = RUNS / run, {}, time.time(), evaluate.read_prompts("valid")
    for name, step in STEPS.items():
        results = step.main(step.Config(out=str(out), seed=seed))
        seconds[name], start = time.time() - start, time.time()
    write_text(out / "made.json", json.dumps(made(seed, seconds), indent=1) + "\n")
    histories = {name: read_jsonl(out / f"{name}.jsonl") for name in ("pretrain", "reward", "ppo")}
    kl = kl_to_sft(out / "ppo.pt", valid, answers(out / "ppo.pt", valid, seed), out / "sft.pt")
    return {**results, "step_seconds": seconds, "kl": kl, "histories": histories,
            "calibration": calibration(out, seed)}  # fmt: skip


def shipped(seed: int = 0) -> dict:
    """The chain's checkpoints for the repository, how they were made, and a sample of answers."""
    source, folder = RUNS / f"seed{seed}", RESULTS / "chain"
    if not (source / "made.json").exists():
        chain(f"seed{seed}", seed)
    for file in ("base.pt", "sft.pt", "reward.pt", "ppo.pt"):
        content = checkpoints.read(source / file)
        for name, tensor in content["weights"].items():
            content["weights"][name] = tensor.half() if tensor.is_floating_point() else tensor
        checkpoints.write(folder / file, content)
    for file in ("comparisons.jsonl", "evaluate.json", "made.json"):
        shutil.copy(source / file, folder / file)
    texts = evaluate.main(evaluate.Config(out=str(folder), prompt=PROMPT))
    found = {name: {"answer": text, "gold": gold(PROMPT, text)} for name, (text,) in texts.items()}
    return {"prompt": PROMPT, "seed": seed, "answers": found}


def made(seed: int, seconds: dict) -> dict:
    """The settings, code and machine of a chain that has just ended, and the seconds it took."""
    file, git = Path("/proc/cpuinfo"), shutil.which("git")
    cpu = re.search(r"model name\s*: (.+)", file.read_text() if file.exists() else "")
    head = git and subprocess.run([git, "rev-parse", "HEAD"], cwd=ROOT, capture_output=True)
    return {
        "scripts": f"{', '.join(STEPS)} with --seed {seed}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "cpu": cpu[1] if cpu else platform.processor(),
        "seconds": seconds,
        "commit": head.stdout.decode().strip() if head else "",
    }


def further(seed: int) -> dict:
    """Rounds 2 and 3 and PPO-ptx, with the evaluation of all models."""
    out = RUNS / f"seed{seed}"
    for number in (2, 3):
        again(number, out, seed)
    ppo.main(ppo.Config(out=str(out), seed=seed, ptx_coef=PTX))
    return evaluate.main(evaluate.Config(out=str(out), seed=seed))


def calibration(out: Path, seed: int, bins: int = 10) -> list[dict]:
    """Of pairs with a predicted preference, how many held-out labelers then preferred so."""
    prompts = evaluate.read_prompts("valid")
    groups, scores = scored_samples(out, prompts, 6, seed)
    hits: list[list] = [[] for _ in range(bins)]
    for i, (prompt, texts) in enumerate(zip(prompts, groups)):
        ratings = rate(HELD_OUT + i % HELD_OUT, prompt, texts, seed)
        for a, b in itertools.combinations(range(6), 2):
            chance = 1 / (1 + math.exp(scores[i, b] - scores[i, a]))
            if ratings[a] != ratings[b]:
                where = min(bins - 1, int(bins * chance))
                hits[where].append((chance, ratings[a] > ratings[b], world.topic(prompt)))
    filled = [list(zip(*pairs)) for pairs in hits if pairs]
    return [{"predicted": float(np.mean(chances)), **interval(right, topics=asked)}
            for chances, right, asked in filled]  # fmt: skip


def control(seed: int) -> dict:
    """Round 2 with as many comparisons and iterations, but all comparisons sampled from SFT.

    Beside round 2 of `further`, from the same first round: gold, and which of the two labelers
    prefer, paired by prompt.
    """
    source, test = RUNS / f"seed{seed}", evaluate.read_prompts("test")
    out = copied(source, f"control{seed}", "sft.pt", "comparisons.jsonl", "reward.pt", "ppo.pt")
    folders = {"newest": source, "control": out}
    if not (source / "ppo2.pt").exists():
        again(2, source, seed)
    again(2, out, seed, [opened(out / "sft.pt")])
    texts = {name: answers(folder / "ppo2.pt", test, seed) for name, folder in folders.items()}
    true = {name: evaluate.golds(test, found) for name, found in texts.items()}
    gain = over(test, np.subtract(true["newest"], true["control"]), signed=True)
    wins = win_rate(test, texts["newest"], texts["control"], seed)
    golds = {name: over(test, values) for name, values in true.items()}
    return {**golds, "gain": gain, "newest/control": wins}


def ptx(seed: int) -> dict:
    """Gold and the skills of the web at other coefficients of the pretraining gradient."""
    results, test = {}, evaluate.read_prompts("test")
    closed = evaluate.read_prompts("probes/closed_qa")
    for coef in OTHER_PTX:
        out = copied(RUNS / f"seed{seed}", f"ptx{seed}_{coef}", "sft.pt", "reward.pt")
        ppo.main(ppo.Config(out=str(out), seed=seed, ptx_coef=coef))
        skills = evaluate.taxes(opened(out / "ppo_ptx.pt"), TOKENIZER, closed, 400, MAX_NEW)
        true = evaluate.golds(test, answers(out / "ppo_ptx.pt", test, seed))
        entry = {"gold": over(test, true), **{name: interval(x) for name, x in skills.items()}}
        results[str(coef)] = entry
    return results


def temperature(seed: int) -> dict:
    """Gold at each temperature, and by how much PPO's is above SFT's, paired by prompt."""
    results, test, folder = {}, evaluate.read_prompts("test"), RUNS / f"seed{seed}"
    for heat in TEMPERATURES:
        texts = {x: answers(folder / f"{x}.pt", test, seed, heat) for x in ("base", "sft", "ppo")}
        true = {name: evaluate.golds(test, found) for name, found in texts.items()}
        gain = over(test, np.subtract(true["ppo"], true["sft"]), signed=True)
        results[str(heat)] = {**{name: over(test, x) for name, x in true.items()}, "gain": gain}
    return results


def room(seed: int = 0) -> dict:
    """What PPO adds to careful demonstrations alone, beside the usual ones, of which half are."""
    rng, results, test = random.Random(seed), {}, evaluate.read_prompts("test")
    prompts = [record["prompt"] for record in read_jsonl("data/demonstrations.jsonl")]
    usual, half = RUNS / f"seed{seed}", [p for p in prompts if rng.random() < 0.5]
    chains = {"half careless": (usual, len(prompts))}
    for name, asked in (("the careful half", half), ("all careful", prompts)):
        folder = copied(usual, f"room {name}", "base.pt")
        out, file = str(folder), folder / "demonstrations.jsonl"
        written = [demonstration(p, random.Random(p), careless=False) for p in asked]
        write_jsonl(file, [{"prompt": p, "completion": t} for p, t in zip(asked, written)])
        epochs = sft.Config.epochs * len(prompts) // len(asked)  # as many steps
        sft.main(sft.Config(out=out, seed=seed, demonstrations=str(file), epochs=epochs))
        reward.main(reward.Config(out=out, seed=seed, demonstrations=str(file)))
        ppo.main(ppo.Config(out=out, seed=seed))
        chains[name] = folder, len(asked)
    for name, (folder, count) in chains.items():
        texts = {step: answers(folder / f"{step}.pt", test, seed) for step in ("sft", "ppo")}
        entry = {step: over(test, evaluate.golds(test, found)) for step, found in texts.items()}
        for one, found in (("ppo", texts["ppo"]), ("right", evaluate.right_answers(test))):
            entry[f"{one}/sft"] = win_rate(test, found, texts["sft"], seed)
        results[name] = {**entry, "demonstrations": count}
    return results


# Settings and functions of ppo.py that are wrong: what a run's numbers look like then.
POLICY_LOSS, SHAPED_REWARDS = ppo.policy_loss, ppo.shaped_rewards
FAULTS: dict[str, tuple[dict, dict]] = {
    "nothing": ({}, {}),
    "beta 0": ({"beta": 0.0}, {}),
    "beta ten times too large": ({"beta": 1.5}, {}),
    "KL penalty with the wrong sign": ({"beta": -0.15}, {}),
    "learning rate ten times too large": ({"lr": 2e-3}, {}),
    "learning rate ten times too small": ({"lr": 2e-5}, {}),
    "loss with the wrong sign": ({}, {"policy_loss": lambda *x: -POLICY_LOSS(*x)}),
    "advantages not whitened": ({}, {"whiten": lambda x, mask: x * mask}),
    "value network learns nothing": ({"value_lr": 0.0}, {}),
    "score lost on padding": ({}, {"shaped_rewards": lambda s, *x: SHAPED_REWARDS(0 * s, *x)}),
}


def faults(seed: int = 0) -> dict:
    """For each fault the means of the last ten iterations, and gold on validation prompts."""
    results, prompts = {}, evaluate.read_prompts("valid")
    out = copied(RUNS / f"seed{seed}", "faults", "sft.pt", "reward.pt")
    for name, (settings, functions) in FAULTS.items():
        right = {key: getattr(ppo, key) for key in functions}
        vars(ppo).update(functions)
        try:
            ppo.main(ppo.Config(out=str(out), seed=seed, **settings))
        except UserError as error:
            print(f"{name}: {error}")
            continue
        finally:
            vars(ppo).update(right)
        lines = read_jsonl(out / "ppo.jsonl")[-10:]
        means = {key: float(np.mean([line[key] for line in lines])) for key in lines[0]}
        true = evaluate.golds(prompts, answers(out / "ppo.pt", prompts, seed))
        results[name] = {**means, "gold": over(prompts, true)}
    return results


def optimum(seed: int = 0) -> dict:
    """The score of reward models from few and many comparisons, and gold, as KL grows."""
    results, prompts = {}, evaluate.read_prompts("valid")
    for count in (FEW, MANY):
        out = copied(RUNS / f"seed{seed}", f"optimum{count}", "sft.pt")
        reward.main(reward.Config(out=str(out), seed=seed, count=count, public=0))
        judge = opened(out / "reward.pt")

        def scored(texts: list[str]) -> dict:
            both = score_texts(judge, TOKENIZER, prompts, texts), evaluate.golds(prompts, texts)
            return {name: float(np.mean(x)) for name, x in zip(("score", "gold"), both)}

        curves = {"start": scored(answers(out / "sft.pt", prompts, seed))}
        for beta in BETAS:
            ppo.main(ppo.Config(out=str(out), seed=seed, beta=beta, iterations=LONG, snapshots=10))
            curve = []
            for number in range(10, LONG + 1, 10):
                file = out / "snapshots" / f"ppo_{number}.pt"
                texts = answers(file, prompts, seed)
                kl = kl_to_sft(file, prompts, texts, out / "sft.pt")
                curve.append({"iteration": number, "kl": kl, **scored(texts)})
            curves[f"beta {beta}"] = curve
            examples = random.Random(seed).sample(list(zip(prompts, texts)), 8)
            curves[f"samples {beta}"] = [{"prompt": p, "answer": t, "gold": gold(p, t)}
                                         for p, t in examples]  # fmt: skip
        curves["best_of_n"] = best_of_n(out, prompts[:200], seed)
        results[str(count)] = curves
    return results


def best_of_n(out: Path, prompts: list[str], seed: int) -> list[dict]:
    """The best of n SFT samples by score: its score and gold, unbiased from 64 samples each."""
    most, points = max(BEST_OF), []
    groups, scores = scored_samples(out, prompts, most, seed)
    true = np.array([evaluate.golds([p] * most, group) for p, group in zip(prompts, groups)])
    order = scores.argsort(axis=1)
    ranked = [np.take_along_axis(values, order, axis=1).mean(axis=0) for values in (scores, true)]
    for n in BEST_OF:
        # The i-th lowest of all is the best of n in C(i, n-1) of C(most, n) choices.
        chances = np.array([math.comb(i, n - 1) for i in range(most)]) / math.comb(most, n)
        best = [float(chances @ values) for values in ranked]
        kl = math.log(n) - (n - 1) / n  # at most: less where answers repeat
        points.append({"n": n, "kl": kl, "score": best[0], "gold": best[1]})
    return points


PARTS = {
    **{f"seed{seed}": lambda seed=seed: chain(f"seed{seed}", seed) for seed in SEEDS},
    "threads": lambda: chain("threads", 0, threads=2),
    "chain": shipped,
    **{f"rounds{seed}": lambda seed=seed: further(seed) for seed in SEEDS},
    **{f"ptx{seed}": lambda seed=seed: ptx(seed) for seed in SEEDS},
    **{f"control{seed}": lambda seed=seed: control(seed) for seed in SEEDS},
    **{f"temperature{seed}": lambda seed=seed: temperature(seed) for seed in SEEDS},
    "room": room,
    "optimum": optimum,
    "faults": faults,
}


if __name__ == "__main__":
    if unknown := set(sys.argv[1:]) - PARTS.keys():
        sys.exit(f"no such part: {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    for part in sys.argv[1:] or PARTS:
        torch.set_num_threads(1)
        file, start = RESULTS / f"{part}.json", time.time()
        if not file.exists():
            write_text(file, json.dumps(PARTS[part](), indent=1) + "\n")
            print(f"{part}: {time.time() - start:.0f} s")
