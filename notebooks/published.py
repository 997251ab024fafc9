"""The published run: all that the README's tables and pictures are drawn from.

    python notebooks/published.py                   every part, a few hours on two CPU cores
    python notebooks/published.py seed0 optimum     these parts alone
    python notebooks/draw.py                        draws them

A part calls the scripts as a user would, with checkpoints in out/published/, and writes its figures
to notebooks/published/PART.json. A part whose file is there is left alone: delete it to run anew.

    seedN      the chain and its evaluation
    roundsN    two rounds more and PPO-ptx, evaluated beside it
    longer     seed 0's chain with three times as many tokens of pretraining
    longer_rounds  the same as roundsN for it
    ptxN       PPO-ptx at other coefficients: gold and the skills of the web
    controlN   (of seeds 0 and 1) the rounds again, but with all comparisons sampled from SFT
    room       more and fewer careless demonstrations, and the careful ones alone
    optimum    over-optimisation: the reward model's score and gold against KL
    faults     what the numbers of a PPO run look like when something is wrong
"""

import itertools
import json
import math
import random
import shutil
import sys
import time
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import evaluate  # noqa: E402
import ppo  # noqa: E402
import pretrain  # noqa: E402
import reward  # noqa: E402
import sft  # noqa: E402
from data import world  # noqa: E402
from data.checkpoints import load  # noqa: E402
from data.files import UserError, read_jsonl, write_jsonl, write_text  # noqa: E402
from data.labelers import LABELERS, demonstration, gold, interval, rate  # noqa: E402
from data.tokenizer import Tokenizer  # noqa: E402
from model import join  # noqa: E402

RUNS, RESULTS = ROOT / "out" / "published", ROOT / "notebooks" / "published"
STEPS = {
    "pretrain": pretrain,
    "sft": sft,
    "reward": reward,
    "ppo": ppo,
    "evaluate": evaluate,
}
SEEDS, PTX, OTHER_PTX = (0, 1, 2), 0.5, (0.1, 2.0)
LONGER = 3 * pretrain.Config.tokens
SHARES = {"none careless": 0.0, "a quarter careless": 0.25, "half careless": 0.5}
BETAS, LONG = (0.0, 0.05, 0.15), 200  # of over-optimisation: coefficients of KL, iterations
FEW, MANY = 300, 7000  # comparisons
BEST_OF = (1, 2, 4, 8, 16, 32, 64)


def copied(source: Path, name: str, *files: str) -> Path:
    """A fresh folder of checkpoints with some files of another."""
    folder = RUNS / name
    folder.mkdir(parents=True, exist_ok=True)
    for file in files:
        shutil.copy(source / file, folder / file)
    return folder


def answers(path: Path, prompts: list[str], seed: int = 0) -> list[str]:
    tokenizer = Tokenizer()
    torch.manual_seed(seed)
    model, _ = load(path, "python notebooks/published.py", tokenizer.size)
    return evaluate.answer_all(model, tokenizer, prompts, 64)


@torch.no_grad()
def kl_to_sft(path: Path, sft_path: Path, prompts: list[str], texts: list[str]) -> float:
    """The mean of log pi(y) - log pi_SFT(y) over a policy's own answers, in nats.

    Answers are encoded anew, and one that was cut off counts as if it had ended.
    """
    tokenizer, logps = Tokenizer(), []
    for file in (path, sft_path):
        model, _ = load(file, "python notebooks/published.py", tokenizer.size)
        rows = [tokenizer.prompt(p) for p in prompts], [tokenizer.response(t) for t in texts]
        logps.append(model.logprobs(*join(*rows, tokenizer.pad, model.config.context)).sum(dim=1))
    return (logps[0] - logps[1]).mean().item()


def measured_kl(out: str, name: str, seed: int) -> float:
    """The KL of a policy to its SFT model on validation prompts."""
    file, prompts = Path(out) / f"{name}.pt", evaluate.read_prompts("valid")
    return kl_to_sft(file, Path(out) / "sft.pt", prompts, answers(file, prompts, seed))


def golds(path: Path, prompts: list[str], seed: int = 0) -> list[float]:
    return [gold(p, t) for p, t in zip(prompts, answers(path, prompts, seed))]


def rounds(out: str, seed: int, policies: str = "") -> None:
    """Rounds 2 and 3 of steps 2 and 3."""
    for number in (2, 3):
        reward.main(reward.Config(out=out, seed=seed, round=number, policies=policies))
        ppo.main(ppo.Config(out=out, seed=seed, round=number))


def chain(run: str, seed: int, **pretraining) -> dict:
    """From random weights to the evaluation."""
    out, seconds, start = str(RUNS / run), {}, time.time()
    for name, step in STEPS.items():
        settings = pretraining if step is pretrain else {}
        results = step.main(step.Config(out=out, seed=seed, **settings))
        seconds[name], start = time.time() - start, time.time()
    histories = {name: read_jsonl(f"{out}/{name}.jsonl") for name in ("pretrain", "reward", "ppo")}
    return {**results, "step_seconds": seconds, "kl": measured_kl(out, "ppo", seed),
            "histories": histories, "calibration": calibration(out, seed)}  # fmt: skip


def further(run: str, seed: int) -> dict:
    """Rounds 2 and 3 and PPO-ptx, with the evaluation of all models."""
    out, start = str(RUNS / run), time.time()
    rounds(out, seed)
    seconds = time.time() - start
    ppo.main(ppo.Config(out=out, seed=seed, ptx_coef=PTX))
    kl = {name: measured_kl(out, name, seed) for name in ("ppo2", "ppo3", "ppo_ptx")}
    results = evaluate.main(evaluate.Config(out=out, seed=seed))
    return {**results, "round_seconds": seconds, "kl": kl}


def calibration(out: str, seed: int, bins: int = 10) -> list[dict]:
    """Of pairs with a predicted preference, how many held-out labelers then preferred so."""
    tokenizer = Tokenizer()
    torch.manual_seed(seed)
    model, _ = load(f"{out}/reward.pt", "python reward.py", tokenizer.size)
    policy, _ = load(f"{out}/sft.pt", "python sft.py", tokenizer.size)
    prompts = evaluate.read_prompts("valid")
    both = reward.sample_responses(policy, tokenizer, prompts, [6] * len(prompts), 64)
    flat = [(p, t) for p, texts in zip(prompts, both) for t in texts]
    scores = np.array(reward.score_texts(model, tokenizer, *map(list, zip(*flat))))
    hits: list[list] = [[] for _ in range(bins)]
    for i, (prompt, texts) in enumerate(zip(prompts, both)):
        ratings = rate(LABELERS // 2 + i % (LABELERS // 2), prompt, texts, seed)
        mine = scores[6 * i : 6 * i + 6]
        for a, b in itertools.combinations(range(6), 2):
            chance = 1 / (1 + math.exp(mine[b] - mine[a]))
            if ratings[a] != ratings[b]:
                where = min(bins - 1, int(bins * chance))
                hits[where].append((chance, ratings[a] > ratings[b], world.topic(prompt)))
    filled = [list(zip(*pairs)) for pairs in hits if pairs]
    return [{"predicted": float(np.mean(chances)), **interval(right, topics=asked)}
            for chances, right, asked in filled]  # fmt: skip


def control(seed: int) -> dict:
    """Rounds of as many iterations and comparisons, but all sampled from the SFT model.

    Beside the rounds of `further`, from the same first round: gold, and which of the two labelers
    prefer, paired by prompt.
    """
    source, test = RUNS / f"seed{seed}", evaluate.read_prompts("test")
    out = copied(source, f"control{seed}", "sft.pt", "comparisons.jsonl", "reward.pt", "ppo.pt")
    folders, results = {"newest": source, "control": out}, {}
    for folder, policies in ((source, ""), (out, str(out / "sft.pt"))):
        if not (folder / "ppo3.pt").exists():
            rounds(str(folder), seed, policies)
    for number in (2, 3):
        texts = {name: answers(folder / f"ppo{number}.pt", test, seed)
                 for name, folder in folders.items()}  # fmt: skip
        true = {name: [gold(p, t) for p, t in zip(test, texts[name])] for name in folders}
        true["gain"] = np.subtract(true["newest"], true["control"])
        entry = {name: interval(x, topics=topics(test)) for name, x in true.items()}
        wins = evaluate.win_rate(test, texts["newest"], texts["control"], seed, LABELERS // 2)
        results[f"round {number}"] = {**entry, "newest/control": wins}
    return results


def ptx(seed: int) -> dict:
    """Gold and the skills of the web at other coefficients of the pretraining gradient."""
    results, tokenizer = {}, Tokenizer()
    prompts = evaluate.read_prompts("test")
    closed = evaluate.read_prompts("probes/closed_qa")
    for coef in OTHER_PTX:
        out = copied(RUNS / f"seed{seed}", f"ptx{seed}_{coef}", "sft.pt", "reward.pt")
        ppo.main(ppo.Config(out=str(out), seed=seed, ptx_coef=coef))
        model, _ = load(out / "ppo_ptx.pt", "python ppo.py --ptx-coef", tokenizer.size)
        skills = evaluate.taxes(model, tokenizer, closed, 400, 64)
        entry = {"gold": interval(golds(out / "ppo_ptx.pt", prompts, seed), topics=topics(prompts))}
        entry |= {name: interval(values) for name, values in skills.items()}
        results[str(coef)] = {**entry, "kl": measured_kl(str(out), "ppo_ptx", seed)}
    return results


def topics(prompts: list[str]) -> list:
    return list(map(world.topic, prompts))


def room(seed: int = 0) -> dict:
    """What PPO adds to demonstrations of more and less care, and to the careful ones alone."""
    rng, results = random.Random(seed), {}
    records = read_jsonl("data/demonstrations.jsonl", "prompt", "completion")
    luck = [(rng.random(), record["prompt"]) for record in records]
    sets = {name: [(p, x < share) for x, p in luck] for name, share in SHARES.items()}
    half = sets["half careless"]
    sets["the careful half alone"] = [(p, False) for p, careless in half if not careless]
    test = evaluate.read_prompts("test")
    for name, pairs in sets.items():
        folder = copied(RUNS / f"seed{seed}", f"room {name}", "base.pt")
        out, file = str(folder), folder / "demonstrations.jsonl"
        write_jsonl(file, [{"prompt": p, "completion": demonstration(p, random.Random(p), careless)}
                           for p, careless in pairs])  # fmt: skip
        epochs = sft.Config.epochs * len(records) // len(pairs)  # as many steps for half as many
        sft.main(sft.Config(out=out, seed=seed, demonstrations=str(file), epochs=epochs))
        reward.main(reward.Config(out=out, seed=seed, demonstrations=str(file)))
        ppo.main(ppo.Config(out=out, seed=seed))
        texts = {step: answers(folder / f"{step}.pt", test, seed) for step in ("sft", "ppo")}
        entry = {step: interval([gold(p, t) for p, t in zip(test, texts[step])],
                                topics=topics(test)) for step in texts}  # fmt: skip
        others = {"ppo/sft": texts["ppo"], "right/sft": evaluate.right_answers(test)}
        entry |= {pair: evaluate.win_rate(test, one, texts["sft"], seed, LABELERS // 2)
                  for pair, one in others.items()}  # fmt: skip
        kl = measured_kl(out, "ppo", seed)
        results[name] = {**entry, "kl": kl, "demonstrations": len(pairs)}
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
        true = golds(out / "ppo.pt", prompts, seed)
        results[name] = {**means, "gold": interval(true, topics=topics(prompts))}
    return results


def optimum(seed: int = 0) -> dict:
    """The score of reward models from few and many comparisons, and gold, as KL grows."""
    source, results, tokenizer = RUNS / f"seed{seed}", {}, Tokenizer()
    prompts = evaluate.read_prompts("valid")
    for count in (FEW, MANY):
        out = copied(source, f"optimum{count}", "sft.pt")
        reward.main(reward.Config(out=str(out), seed=seed, count=count))
        model, _ = load(out / "reward.pt", "python reward.py", tokenizer.size)

        def scored(texts: list[str]) -> dict:
            scores = reward.score_texts(model, tokenizer, prompts, texts)
            true = [gold(p, t) for p, t in zip(prompts, texts)]
            return {"score": float(np.mean(scores)), "gold": float(np.mean(true))}

        curves = {"start": scored(answers(out / "sft.pt", prompts, seed))}
        for beta in BETAS:
            ppo.main(ppo.Config(out=str(out), seed=seed, beta=beta, iterations=LONG, snapshots=10))
            curve = []
            for number in range(10, LONG + 1, 10):
                file = out / "snapshots" / f"ppo_{number}.pt"
                texts = answers(file, prompts, seed)
                kl = kl_to_sft(file, out / "sft.pt", prompts, texts)
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
    tokenizer, most = Tokenizer(), max(BEST_OF)
    torch.manual_seed(seed)
    model, _ = load(out / "reward.pt", "python reward.py", tokenizer.size)
    policy, _ = load(out / "sft.pt", "python sft.py", tokenizer.size)
    texts = reward.sample_responses(policy, tokenizer, prompts, [most] * len(prompts), 64)
    flat = [(p, t) for p, group in zip(prompts, texts) for t in group]
    scores = np.array(reward.score_texts(model, tokenizer, *map(list, zip(*flat))))
    true = np.array([gold(p, t) for p, t in flat]).reshape(len(prompts), most)
    scores = scores.reshape(len(prompts), most)
    order = scores.argsort(axis=1)
    ranked = [np.take_along_axis(values, order, axis=1).mean(axis=0) for values in (scores, true)]
    points = []
    for n in BEST_OF:
        # The i-th lowest of all is the best of n in C(i, n-1) of C(most, n) choices.
        chances = np.array([math.comb(i, n - 1) for i in range(most)]) / math.comb(most, n)
        best = [float(chances @ values) for values in ranked]
        kl = math.log(n) - (n - 1) / n
        points.append({"n": n, "kl": kl, "score": best[0], "gold": best[1]})
    return points


PARTS = {
    **{f"seed{seed}": lambda seed=seed: chain(f"seed{seed}", seed) for seed in SEEDS},
    **{f"rounds{seed}": lambda seed=seed: further(f"seed{seed}", seed) for seed in SEEDS},
    **{f"ptx{seed}": lambda seed=seed: ptx(seed) for seed in SEEDS},
    **{f"control{seed}": lambda seed=seed: control(seed) for seed in SEEDS[:2]},
    "longer": lambda: chain("longer", 0, tokens=LONGER),
    "longer_rounds": lambda: further("longer", 0),
    "room": room,
    "optimum": optimum,
    "faults": faults,
}


if __name__ == "__main__":
    for part in sys.argv[1:] or PARTS:
        file, start = RESULTS / f"{part}.json", time.time()
        if not file.exists():
            write_text(file, json.dumps(PARTS[part](), indent=1) + "\n")
            print(f"{part}: {time.time() - start:.0f} s")
