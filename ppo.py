"""Step 3: PPO against the reward model (InstructGPT, sections 3.4-3.5, C.4 and equation 2).

    python ppo.py                      about 65 s on two CPU cores
    python ppo.py --round 2            goes on from its policy with the reward model of round 2

PPO in five sentences. The policy answers prompts, and the reward model scores each answer. Before
each token the value network guesses what reward is still to come; a token after which things look
better than guessed has a positive advantage, one after which they look worse a negative one. A
gradient step makes tokens with a positive advantage more probable, and the others less. A token
whose probability has moved by more than the clip range, the way its advantage pushes, is pushed no
further: the answers are of the older policy and say little about the newer one. And a token costs a
little where the policy finds it more probable than the SFT model does (the KL penalty), because the
reward model is only right about answers like those it was trained on.

What is kept is a moving average of the policy's weights: single steps are noisy, their mean is not.

Reads out/sft.pt, out/reward.pt, data/prompts_ppo.jsonl, and with --ptx-coef the web corpus.
Writes out/ppo.pt, out/snapshots/ppo_N.pt and out/ppo.jsonl (a line of metrics per iteration), with
ppo2 for ppo in round 2 and ppo_ptx with --ptx-coef.

Differences from the paper
  1. 7,680 episodes (and 640 before, for the value network) instead of 256,000, 128 an iteration
     instead of 512, in 2 minibatches instead of 8: small steps in noisy directions cost more KL
     than they gain. Adam's betas are (0.9, 0.999), not (0.9, 0.95); gradients are clipped to norm
     1 (the paper does not say).
  2. beta 0.15 instead of 0.02: it must fit the spread of the scores.
  3. The value network learns alone for some iterations before the policy moves. Rankings say only
     which answer to a prompt is better, so scores of different prompts are not comparable, and the
     copied network must first learn their level. Its clip is in units of the spread (the paper
     prints none for values).
  4. A response without EOS gets the 1st percentile of the compared samples' scores.
  5. PPO-ptx mixes in one pretraining row per episode instead of 8, and its log-likelihood is a
     mean per token (the paper does not say), so the coefficient is near 1 and not 27.8.
  6. EMA decay 0.95 a step instead of 0.992: there are fewer steps.
  7. It starts from out/sft.pt, and the KL is to it. The paper trains another SFT model for that, of
     2 epochs with a tenth of pretraining data mixed in.
  8. A round starts from the policy before it, its KL is to the SFT model still, and its value
     network starts from the round's reward model (the paper does not say).
  9. Lambda 0.95 and whitening over the batch are common practice; the paper prints neither.
 10. Labelers and the reward model read an answer's text, encoded anew; here the sampled tokens are
     scored. They differ in fewer than one of a hundred answers.

Dimension key: B episodes, T tokens. Everything per token is (B,T), read where `mask` is 1.
"""

import copy
import random
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from tqdm import tqdm

from data import make
from data.checkpoints import (
    State,
    check_parents,
    fused,
    load_round,
    of_round,
    pick_device,
    resumable,
    save,
)
from data.files import UserError, option, run, write_jsonl
from data.forms import read
from data.tokenizer import Tokenizer
from model import generate, last_token, pad_rows, tokens_and_mask


@dataclass
class Config:  # a field is a flag: --beta; FAST is what --fast changes
    prompts: str = option("data/prompts_ppo.jsonl", "JSONL of prompts to answer")
    round: int = option(1, "from 2 on: starts from the policy of the round before")
    iterations: int = option(60, "rollouts, each followed by one pass over its episodes")
    episodes: int = option(128, "prompts answered per iteration")
    minibatch: int = option(64, "episodes per step")
    inner_epochs: int = option(1, "passes over the episodes of an iteration")
    max_new: int = option(64, "longest response in tokens")
    lr: float = option(2e-4, "learning rate of the policy")
    value_lr: float = option(5e-4, "learning rate of the value network")
    warmup: int = option(10, "iterations with a learning rate rising from a tenth", least=0)
    value_warmup: int = option(
        5, "iterations that train the value network alone, before the others", least=0
    )
    beta: float = option(0.15, "coefficient of the KL penalty, in score per nat")
    clip: float = option(0.2, "clip range of the probability ratio, and of values in spreads")
    lam: float = option(0.95, "lambda of the advantage estimate; there is no discount", most=1)
    ptx_coef: float = option(0.0, "weight of the pretraining log-likelihood; 0 is plain PPO")
    ema: float = option(0.95, "decay of the moving average of the policy's weights", most=1)
    snapshots: int = option(20, "iterations between two snapshots")
    log: int = option(5, "iterations between two printed lines")
    out: str = option("out", "folder of checkpoints and metrics")
    device: str = option("auto", "auto, cpu, cuda, mps")
    seed: int = option(0, "of prompts and sampling", least=0, most=2**63 - 1)
    resume: bool = option(False, "go on with a run that was stopped")
    FAST = {"iterations": 2, "episodes": 64, "value_warmup": 1, "warmup": 1, "log": 1}


LINE = (
    "step {iteration} | score {score:.2f} | kl {kl:.2f} | entropy {entropy:.2f} "
    "| ev {explained_variance:.2f} | clipfrac {clipfrac:.3f} | length {length:.1f} "
    "| no eos {no_eos:.2f} | {seconds:.0f}s"
)


# ------------------------------------------------------------------- formulas, pure and on (B,T)
def masked_mean(x, mask):
    """Mean of x where mask is 1: (B,T), (B,T) -> scalar."""
    return (x * mask).sum() / mask.sum()


def shaped_rewards(scores, logp, ref_logp, mask, beta: float):
    """Per-token rewards: -beta * (logp - ref_logp), plus the score at the last response token.

    scores (B,), logp, ref_logp and mask (B,T) -> (B,T), 0 outside the mask. logp are the sampling
    policy's log-probabilities, ref_logp the SFT model's. The KL estimate of a single token, and
    even of a response, can be negative; its expectation cannot.
    """
    assert logp.shape == ref_logp.shape == mask.shape, f"{logp.shape} {ref_logp.shape} {mask.shape}"
    rewards = -beta * (logp - ref_logp) * mask
    # Adds scores[b] to row b at its last response token.
    return rewards.scatter_add(1, last_token(mask)[:, None], scores[:, None])


def gae(rewards, values, mask, lam: float):
    """Generalised advantage estimation without a discount (Schulman et al. 2016).

    rewards, values, mask (B,T) -> advantages, returns (B,T), 0 outside the mask. Whatever stands
    outside the mask in rewards and values does not matter.
    delta_t = r_t + V_{t+1} - V_t, A_t = delta_t + lam * A_{t+1}; V after the last token is 0.
    delta says how much better things look after a token than before. lam = 0 believes the value
    network alone, lam = 1 waits for the real score. Returns, advantages + values before any
    whitening, are what the value network should have said.
    """
    assert rewards.shape == values.shape == mask.shape
    advantages = torch.zeros_like(rewards)
    running = torch.zeros_like(rewards[:, 0])  # A_{t+1}, (B,)
    following = torch.zeros_like(running)  # V_{t+1}, (B,)
    for t in reversed(range(rewards.shape[1])):
        delta = rewards[:, t] + following - values[:, t]
        running = (delta + lam * running) * mask[:, t]
        following = values[:, t] * mask[:, t]
        advantages[:, t] = running
    return advantages, (advantages + values) * mask


def whiten(x, mask):
    """x shifted and scaled to mean 0 and (biased) variance 1 over the mask, 0 outside: (B,T)."""
    mean = masked_mean(x, mask)
    variance = masked_mean((x - mean) ** 2, mask)
    return (x - mean) * torch.rsqrt(variance + 1e-8) * mask


def policy_loss(logp, old_logp, advantages, mask, clip: float):
    """PPO's clipped objective, to be minimised: (B,T) each -> scalar (Schulman et al. 2017).

    Before the first step the ratio is 1, and the gradient that of -advantage * logp: a positive
    advantage makes its token more probable. The maximum of two losses is the pessimistic one: no
    gradient flows where the ratio is outside of 1 +- clip and moving further would raise the gain.
    """
    ratio = (logp - old_logp).exp()
    unclipped = -advantages * ratio
    clipped = -advantages * ratio.clamp(1 - clip, 1 + clip)
    return masked_mean(torch.maximum(unclipped, clipped), mask)


def value_loss(values, old_values, returns, mask, clip: float):
    """Half the squared error, of the value or of its clipped move, whichever is worse: scalar.

    A value further than `clip` from the old one gains nothing by it: no big jumps on noisy returns.
    """
    moved = old_values + (values - old_values).clamp(-clip, clip)
    worse = torch.maximum((values - returns) ** 2, (moved - returns) ** 2)
    return 0.5 * masked_mean(worse, mask)


def explained_variance(values, returns, mask):
    """1 - Var(returns - values) / Var(returns) over the mask: 1 is perfect, 0 a constant's."""
    error = returns - values
    residual = masked_mean((error - masked_mean(error, mask)) ** 2, mask)
    total = masked_mean((returns - masked_mean(returns, mask)) ** 2, mask)
    return 1 - residual / total.clamp(min=1e-8)


@torch.no_grad()
def update_ema(average, model, decay: float):
    """average <- decay * average + (1 - decay) * model, in place, for all weights.

    The last step's weights carry the noise of its batch; their average over about 1 / (1 - decay)
    steps does not, and it is the average that is evaluated.
    """
    for a, p in zip(average.parameters(), model.parameters()):
        a.lerp_(p, 1 - decay)


@torch.no_grad()
def rollout(policy, reference, value_net, reward_model, prompts, tokenizer, config, floor):
    """Answers prompts and computes all that the update needs, as a dict of tensors.

    (B,T): tokens, mask, logp, ref_logp, values, returns, advantages. (B,): scores, ended (1.0 where
    a response ends with EOS, else 0.0).

    Steps: 1. sample at temperature 1  2. log-probabilities of the policy (the "old" ones) and of
    the reference, and values  3. score at the last token; without EOS it is `floor`: otherwise an
    answer that was cut off could score well
    4. rewards = KL penalty per token + score at the end  5. advantages and returns
    6. whitening of the advantages.
    """
    responses = generate(policy, prompts, config.max_new, tokenizer.eos)
    device = policy.wte.weight.device
    tokens, mask = tokens_and_mask(prompts, responses, tokenizer.pad, policy.config.context, device)
    logp, ref_logp = policy.logprobs(tokens, mask), reference.logprobs(tokens, mask)
    values = value_net.values(tokens, mask)
    scores = reward_model.score(tokens, mask)
    ended = torch.tensor([r[-1] == tokenizer.eos for r in responses], device=scores.device)
    scores = torch.where(ended, scores, floor)
    rewards = shaped_rewards(scores, logp, ref_logp, mask, config.beta)
    advantages, returns = gae(rewards, values, mask, config.lam)
    return {"tokens": tokens, "mask": mask, "logp": logp, "ref_logp": ref_logp, "values": values,
            "scores": scores, "ended": ended.float(), "returns": returns,
            "advantages": whiten(advantages, mask)}  # fmt: skip


# ------------------------------------------------------------------------------ what is logged
def rollout_metrics(batch: dict) -> dict[str, float]:
    """What is logged of a rollout, before any update.

    score, kl (to the SFT model, summed over a response), length and no_eos are means over episodes;
    entropy, the mean surprise of a sampled token, and explained_variance are over response tokens.
    """
    mask = batch["mask"]
    return {
        "score": batch["scores"].mean().item(),
        "kl": ((batch["logp"] - batch["ref_logp"]) * mask).sum(dim=1).mean().item(),
        "entropy": -masked_mean(batch["logp"], mask).item(),
        "explained_variance": explained_variance(batch["values"], batch["returns"], mask).item(),
        "length": mask.sum(dim=1).mean().item(),
        "no_eos": 1 - batch["ended"].mean().item(),
    }


def step_metrics(logp, old_logp, mask, clip: float) -> dict:
    """How far the policy has moved from the one that sampled, before a step: (B,T) each.

    approx_kl, half the mean squared log ratio, and clipfrac, the share of tokens whose ratio is
    outside of the clip range.
    """
    log_ratio = (logp - old_logp).detach()
    outside = ((log_ratio.exp() - 1).abs() > clip).float()
    return {"approx_kl": 0.5 * masked_mean(log_ratio**2, mask),
            "clipfrac": masked_mean(outside, mask)}  # fmt: skip


def mean_of(steps: list[dict]) -> dict[str, float]:
    """The mean of each metric over the steps of an iteration."""
    return {key: torch.stack([step[key] for step in steps]).mean().item() for key in steps[0]}


def show(line: dict, batch: dict, tokenizer: Tokenizer, config: Config) -> None:
    """Prints a line of metrics now and then, and an answer more rarely."""
    iteration = line["iteration"]
    if iteration % config.log == 0 or iteration + 1 == config.iterations:
        tqdm.write(LINE.format(**{"clipfrac": 0.0, **line}))
    if iteration % (4 * config.log) == 0:
        tqdm.write("sample | " + tokenizer.decode(batch["tokens"][0].tolist()))


# ------------------------------------------------------------------------------------ the loop
def prompt_batches(prompts: list, size: int, count: int, rng: random.Random) -> list[list]:
    """`count` batches of prompts in random order, so that each mixes all kinds."""
    batches, order = [], []
    for _ in range(count):
        if len(order) < size:
            order = rng.sample(prompts, len(prompts))
        more = rng.choices(prompts, k=max(0, size - len(order)))  # of a file with fewer prompts
        batches.append(order[:size] + more)
        order = order[size:]
    return batches


def minibatches(batch: dict, config: Config):
    """Yields the episodes in random parts, each of them once in each of the passes."""
    device = batch["mask"].device
    for _ in range(config.inner_epochs):
        for part in torch.randperm(config.episodes, device=device).split(config.minibatch):
            yield {key: values[part] for key, values in batch.items()}


def web_rows(config: Config, tokenizer: Tokenizer, context: int) -> list[list[int]]:
    """Documents of the small web as token lists for PPO-ptx, cut at 128 tokens."""
    if not config.ptx_coef:
        return []
    if tokenizer.own:
        raise UserError("--ptx-coef mixes the small web in: it needs the small world's vocabulary")
    return [tokenizer.document(text)[: min(128, context)] for text in make.corpus(8000)]


def ptx_loss(policy, web: list[list[int]], count: int, pad: int):
    """Mean negative log-likelihood, per token, of `count` random documents of the web: scalar."""
    drawn = torch.randint(len(web), (count,)).tolist()
    tokens = pad_rows([web[i] for i in drawn], pad, policy.wte.weight.device)
    mask = (tokens != pad).float()
    mask[:, 0] = 0
    return -masked_mean(policy.logprobs(tokens, mask), mask)


def main(config: Config) -> dict:
    """Trains and writes the policy; returns the last iteration's metrics."""
    start = time.time()
    if config.episodes % config.minibatch:
        raise UserError("--episodes must be a multiple of --minibatch")
    if config.round > 1 and config.ptx_coef:
        raise UserError("--ptx-coef is for round 1: leave --round out")
    device, tokenizer, out = pick_device(config.device), Tokenizer.of(config.out), Path(config.out)
    seed = config.seed + 1000 * (config.round - 1)
    torch.manual_seed(seed)
    rng = random.Random(seed)
    name = "ppo_ptx" if config.ptx_coef else of_round("ppo", config.round)
    # Five networks: policy, its average, the frozen reference, the reward model, the value network.
    policy, before = load_round(out, "ppo", config.round - 1, tokenizer.size, device)
    reference, sft = load_round(out, "ppo", 0, tokenizer.size, device)  # the SFT model
    reward_model, scored = load_round(out, "reward", config.round, tokenizer.size, device)
    judge, rerun = of_round("reward", config.round), f"python reward.py --round {config.round}"
    check_parents(out / f"{judge}.pt", scored["made_from"], rerun)
    made_from = {"sft": sft["checksum"], judge: scored["checksum"]}
    if config.round > 1:
        made_from[of_round("ppo", config.round - 1)] = before["checksum"]
    average = copy.deepcopy(policy)
    value_net = copy.deepcopy(reward_model)  # the same head, read before each token
    policy_adam = torch.optim.Adam(policy.parameters(), lr=config.lr, fused=fused(device))
    value_adam = torch.optim.Adam(value_net.parameters(), lr=config.value_lr, fused=fused(device))
    context = policy.config.context
    records = read(config.prompts, "prompts", tokenizer, context)
    prompts = [tokenizer.prompt(record["prompt"]) for record in records]
    web = web_rows(config, tokenizer, context)
    iterations = config.value_warmup + config.iterations
    batches, history = prompt_batches(prompts, config.episodes, iterations, rng), []
    # resumable enumerates the batches and keeps the state for --resume.
    state = State(out / f"{name}.state", config, sft=reference, reward=reward_model, policy=policy)
    for number, asked in resumable(
        batches, state, history, policy=policy, average=average,
        value_net=value_net, policy_adam=policy_adam, value_adam=value_adam,
    ):  # fmt: skip
        iteration = number - config.value_warmup  # below 0 the value network trains alone
        # 1. Answers, and all that is computed of them before any step.
        batch = rollout(policy, reference, value_net, reward_model, asked, tokenizer, config,
                        scored["floor"])  # fmt: skip
        # 2. The policy's learning rate rises from a tenth.
        rise = min(1.0, 0.1 + 0.9 * iteration / config.warmup) if config.warmup else 1.0
        steps = []
        for mini in minibatches(batch, config):
            tokens, mask, old_logp, stats = mini["tokens"], mini["mask"], mini["logp"], {}
            if iteration >= 0:
                # 3. The policy's step, with the pretraining gradient added for PPO-ptx.
                policy_adam.param_groups[0]["lr"] = config.lr * rise
                logp = policy.logprobs(tokens, mask)
                policy_adam.zero_grad()
                loss = policy_loss(logp, old_logp, mini["advantages"], mask, config.clip)
                loss.backward()
                if config.ptx_coef:
                    web_loss = ptx_loss(policy, web, config.minibatch, tokenizer.pad)
                    (config.ptx_coef * web_loss).backward()
                torch.nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
                policy_adam.step()
                # 4. The average follows.
                update_ema(average, policy, config.ema)
                stats = {"policy_loss": loss.detach(),
                         **step_metrics(logp, old_logp, mask, config.clip)}  # fmt: skip
            # 5. The value network's step.
            values = value_net.values(tokens, mask)
            value_adam.zero_grad()
            loss = value_loss(
                values, mini["values"], mini["returns"], mask, config.clip * scored["spread"]
            )
            loss.backward()
            torch.nn.utils.clip_grad_norm_(value_net.parameters(), 1.0)
            value_adam.step()
            steps.append({**stats, "value_loss": loss.detach()})
        # 6. Metrics, and a snapshot now and then.
        history.append({"iteration": iteration, **rollout_metrics(batch), **mean_of(steps),
                        "seconds": time.time() - start})  # fmt: skip
        show(history[-1], batch, tokenizer, config)
        if iteration >= 0 and (iteration + 1) % config.snapshots == 0:
            save(out / "snapshots" / f"{name}_{iteration + 1}.pt", average, made_from)
    # 7. The average is the product.
    write_jsonl(out / f"{name}.jsonl", history)
    save(out / f"{name}.pt", average, made_from)
    print(f"wrote {out}/{name}.pt in {time.time() - start:.0f} s")
    return history[-1]


if __name__ == "__main__":
    run(Config, main)
