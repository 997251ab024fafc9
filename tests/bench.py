"""How fast it is: beside Hugging Face's GPT-2 and TRL's PPO, near the machine's peak, and larger.

    pip install -r tests/requirements.txt
    pip install trl==1.12.0            the last with PPO; with another one its row is left out
    python tests/bench.py              about two minutes on a CPU
    python tests/bench.py --quick      a smoke run of half a minute; its numbers say little

Ours and theirs have the same random weights and take turns, so that a busy moment of the machine
hits both. A time is the median, with the quartiles behind it. No row ever ends early: for us EOS is
a number that no token has, for them there is none, and neither has an output for PAD.
On a machine with other work take --threads 1: two threads wait for each other, and where a core is
busy a forward pass took seven times as long, sampling seventy times.
"""

import argparse
import copy
import math
import random
import statistics
import sys
import tempfile
import time
import warnings
from pathlib import Path
from types import SimpleNamespace

import torch
import torch.nn.functional as F
import transformers

sys.path.insert(0, str(Path(__file__).parent.parent))

import ppo  # noqa: E402
from data.convert import export  # noqa: E402
from data.tokenizer import Tokenizer  # noqa: E402
from model import GPT, GPTConfig, ScalarGPT, generate  # noqa: E402
from reward import bradley_terry_loss  # noqa: E402

SIZE = 1024  # of the vocabulary, EOS among them
NEVER = -1  # an EOS that is never sampled


def gpt(kind=GPT, vocabulary=SIZE, layers=4, width=128):
    return kind(GPTConfig(vocabulary, 256, layers, 4, width))


def rows(count: int, length: int, vocabulary=SIZE):
    return torch.randint(vocabulary, (count, length))


# ----------------------------------------------------------------------------------------- clocks
def seconds(task) -> float:
    start = time.perf_counter()
    task()
    return time.perf_counter() - start


def take_turns(tasks: list, times: int) -> list[list[float]]:
    """The seconds of each task's calls, one of each in turn; a first one is not counted."""
    rounds = [[seconds(task) for task in tasks] for _ in range(times + 1)]
    return list(zip(*rounds[1:]))


def middle(taken) -> str:
    """Median and quartiles in milliseconds."""
    low, median, high = statistics.quantiles([1000 * t for t in taken], method="inclusive")
    return f"{median:8.1f} [{low:6.1f}, {high:6.1f}]"


# --------------------------------------------------------------------------- what is measured
def training_step(model, tokens):
    """Next-token cross-entropy, backward, clip and AdamW, of ours or theirs."""
    adam = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def step():
        logits = model(tokens)
        logits = logits if isinstance(logits, torch.Tensor) else logits.logits
        loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())
        update(model, adam, loss)

    return step


def update(model, adam, loss):
    adam.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    adam.step()


def reward_step(model, k: int):
    """A step of reward.py on 8 prompts with k answers each, here in order from best to worst."""
    adam = torch.optim.Adam(model.parameters(), lr=1e-4, fused=True)
    tokens, ranks = rows(8, 32 + 32 * k), torch.arange(1, k + 1).expand(8, k)
    positions = torch.cat([torch.arange(32), torch.arange(32, 64).repeat(k)]).expand(8, -1)
    part = torch.arange(k + 1).repeat_interleave(32).expand(8, -1)
    return lambda: update(
        model, adam, bradley_terry_loss(model.score_each(tokens, positions, part, k), ranks)
    )


def ppo_iteration(policy, reward_model, prompts: list, config: ppo.Config):
    """An iteration as in ppo.main: a rollout, its minibatches' two updates, and the metrics."""
    policy, reference, average = (copy.deepcopy(policy) for _ in range(3))
    value_net, tokenizer = copy.deepcopy(reward_model), SimpleNamespace(eos=NEVER, pad=SIZE)
    policy_adam = torch.optim.Adam(policy.parameters(), lr=config.lr, fused=True)
    value_adam = torch.optim.Adam(value_net.parameters(), lr=config.value_lr, fused=True)

    def iteration():
        asked, steps = random.sample(prompts, config.episodes), []
        batch = ppo.rollout(policy, reference, value_net, reward_model, asked, tokenizer, config, 0)
        for mini in ppo.minibatches(batch, config):
            tokens, mask, old_logp = mini["tokens"], mini["mask"], mini["logp"]
            logp = policy.logprobs(tokens, mask)
            loss = ppo.policy_loss(logp, old_logp, mini["advantages"], mask, config.clip)
            update(policy, policy_adam, loss)
            ppo.update_ema(average, policy, config.ema)
            stats = ppo.step_metrics(logp, old_logp, mask, config.clip)
            values = value_net.values(tokens, mask)
            worse = ppo.value_loss(values, mini["values"], mini["returns"], mask, config.clip)
            update(value_net, value_adam, worse)
            steps.append({**stats, "policy_loss": loss.detach(), "value_loss": worse.detach()})
        return ppo.rollout_metrics(batch), ppo.mean_of(steps)

    return iteration


def trl_iterations(ours, policy, reward_model, tokenizer, prompts, config, times: int):
    """Our iterations, each after one of TRL's in its own loop: seconds of ours, of theirs.

    Both answer as many prompts with as many tokens, score them, compute values, the KL to a
    reference, GAE and whitening, and take as many steps, and both are counted from prompts to
    metrics, without setup: theirs from the end of a callback to the next one. What only theirs
    does: all logits, each token's entropy, garbage collections. What only ours does: clipped
    gradients, the average of the weights, a pass for the log-probabilities (theirs come from
    sampling), and two optimizers, where theirs has one for both networks.
    """
    from datasets import Dataset
    from trl.experimental.ppo import PPOConfig, PPOTrainer

    class Turns(transformers.TrainerCallback):
        taken = ([], [])

        def on_train_begin(self, *args, **kwargs):
            self.start = time.perf_counter()

        def on_step_end(self, *args, **kwargs):
            self.taken[1].append(time.perf_counter() - self.start)
            self.taken[0].append(seconds(ours))
            self.start = time.perf_counter()

    load = transformers.AutoModelForSequenceClassification.from_pretrained
    with tempfile.TemporaryDirectory() as folder:
        given = PPOConfig(
            folder, total_episodes=(times + 1) * config.episodes, response_length=config.max_new,
            per_device_train_batch_size=config.episodes, gradient_accumulation_steps=1,
            num_mini_batches=config.episodes // config.minibatch, num_ppo_epochs=1,
            local_rollout_forward_batch_size=config.episodes, num_sample_generations=0,
            temperature=1.0, kl_coef=config.beta, learning_rate=config.lr, use_cpu=True, bf16=False,
            gradient_checkpointing=False, report_to="none", save_strategy="no", disable_tqdm=True,
        )  # fmt: skip
        turns = Turns()
        trainer = PPOTrainer(
            given, tokenizer, policy, copy.deepcopy(policy), load(reward_model),
            Dataset.from_dict({"input_ids": prompts}), load(reward_model), callbacks=[turns],
        )  # fmt: skip
        trainer.remove_callback(transformers.PrinterCallback)
        trainer.train()
    return [taken[1:] for taken in turns.taken]


# ----------------------------------------------------------------------------------- the tables
def beside(times: int) -> dict:
    """Ours beside theirs, as a table; the medians of ours in seconds."""
    ours, judge = gpt(), gpt(ScalarGPT)
    world = sorted(Tokenizer().ranks.items(), key=lambda item: item[1])
    with tempfile.TemporaryDirectory() as folder:
        for model, name in ((ours, "policy"), (judge, "reward")):
            export(model, Tokenizer(dict(world[: SIZE - 1])), Path(folder) / name)
        theirs = transformers.AutoModelForCausalLM.from_pretrained(f"{folder}/policy")
        theirs.resize_token_embeddings(SIZE)  # without PAD
        plain = transformers.GenerationConfig(
            max_new_tokens=32, do_sample=True, top_k=0, top_p=1.0, pad_token_id=0
        )
        theirs.generation_config = transformers.GenerationConfig(pad_token_id=0)
        prompts, wide, long = rows(64, 32), rows(64, 64), rows(32, 128)
        assert len(theirs.generate(prompts, generation_config=plain)[0]) == 64
        torch.testing.assert_close(ours(wide), theirs(wide).logits, rtol=1e-4, atol=1e-4)
        pairs = {
            "generation, 64 x (32 + 32)": (
                lambda: generate(ours, prompts.tolist(), 32, NEVER),
                lambda: theirs.generate(prompts, generation_config=plain)),
            "forward, 64 x 64": (
                lambda: ours(wide), lambda: theirs(wide, use_cache=False).logits),
        }  # fmt: skip
        with torch.no_grad():
            taken = {name: take_turns(pair, times) for name, pair in pairs.items()}
        steps = [training_step(copy.deepcopy(model), long) for model in (ours, theirs)]
        taken["training step, 32 x 128"] = take_turns(steps, times)
        try:
            import trl.experimental.ppo  # noqa: F401
        except ImportError:
            print("no row for PPO: pip install trl==1.12.0 has TRL's")
        else:
            config = ppo.Config(episodes=64, minibatch=8, max_new=32)
            many = rows(512, 32).tolist()
            tokenizer = transformers.AutoTokenizer.from_pretrained(f"{folder}/policy")
            taken["PPO iteration, 64 episodes"] = trl_iterations(
                ppo_iteration(ours, judge, many, config),
                theirs, f"{folder}/reward", tokenizer, many, config, max(2, times // 2),
            )  # fmt: skip
    print(f"{'milliseconds, median [quartiles]':34}{'ours':>12}{'theirs':>25}{'theirs/ours':>26}")
    for name, (mine, other) in taken.items():
        ratio = statistics.median(other) / statistics.median(mine)
        print(f"{name:34}{middle(mine)}{middle(other)}{ratio:10.2f}")
    return {name: statistics.median(mine) for name, (mine, _) in taken.items()}


def peak(medians: dict) -> None:
    """The shares of a large matrix product's speed; a backward pass is two forward ones."""

    def flops(count, length, layers=4, width=128):
        # 2 a matrix weight and token, and attention's two products, unmasked.
        weights = 12 * layers * width**2 + SIZE * width
        return count * length * (2 * weights + 4 * layers * width * length)

    x = torch.randn(2048, 2048)
    best = 2 * 2048**3 / min(take_turns([lambda: x @ x], 8)[0])
    print(f"\n{best / 1e9:.0f} GFLOP/s in a product of 2048 x 2048 float32 matrices, best of 8")
    counts = {"forward, 64 x 64": flops(64, 64), "training step, 32 x 128": 3 * flops(32, 128)}
    for name, count in counts.items():
        print(f"{count / medians[name] / best:4.0%} of it: {name}")


def growth(times: int, sizes: slice) -> None:
    """How the cost grows with each size, the others as in the first table."""

    def step(count=32, length=128, vocabulary=SIZE, **shape):
        return training_step(gpt(GPT, vocabulary, **shape), rows(count, length, vocabulary))

    def iteration(episodes=16, length=32):
        config = ppo.Config(episodes=episodes, minibatch=8, max_new=32)
        return ppo_iteration(gpt(), gpt(ScalarGPT), rows(episodes, length).tolist(), config)

    grown = {
        "training step: width": ([64, 128, 256], lambda n: step(width=n)),
        "training step: layers": ([2, 4, 8], lambda n: step(layers=n)),
        "training step: length of rows": ([64, 128, 256], lambda n: step(length=n)),
        "training step: rows": ([16, 32, 64], lambda n: step(count=n)),
        "training step: vocabulary": ([512, 1024, 2048], lambda n: step(vocabulary=n)),
        "PPO iteration: episodes": ([16, 32, 64], lambda n: iteration(episodes=n)),
        "PPO iteration: prompt's length": ([32, 64, 128], lambda n: iteration(length=n)),
        "reward model's step: K, 8 prompts": (
            [2, 4, 8], lambda n: reward_step(gpt(ScalarGPT), n)),
    }  # fmt: skip
    print("\nmilliseconds where a size doubles, and b of cost = a * size^b")
    for name, (values, task) in grown.items():
        values = values[sizes]
        medians = list(map(statistics.median, take_turns([task(n) for n in values], times)))
        b = statistics.linear_regression(*(list(map(math.log, x)) for x in (values, medians))).slope
        cells = "".join(f"{n:7}: {1000 * median:6.0f}" for n, median in zip(values, medians))
        print(f"{name:34}{cells}    b {b:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="few repetitions")
    parser.add_argument("--threads", type=int, default=2, help="of torch")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    warnings.simplefilter("ignore")  # theirs, of names that will change
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    print(f"torch {torch.__version__}, transformers {transformers.__version__}, "
          f"{given.threads} threads, CPU")  # fmt: skip
    peak(beside(2 if given.quick else 10))
    growth(1 if given.quick else 3, slice(2) if given.quick else slice(None))


if __name__ == "__main__":
    main()
