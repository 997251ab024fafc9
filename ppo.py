"""Step 3: PPO against the reward model (InstructGPT, sections 3.4-3.5, C.4 and equation 2).

    python ppo.py                      about 45 s on two CPU cores
    python ppo.py --round 2            goes on from its policy with the reward model of round 2

The policy answers prompts, the reward model scores the answers, and clipped PPO raises the score
while a per-token KL penalty keeps the policy near the SFT model. The moving average of the
policy's weights is the product.

Reads out/sft.pt, out/reward.pt, data/prompts_ppo.jsonl, and with --ptx-coef the web corpus.
Writes out/ppo.pt, out/snapshots/ppo_N.pt and out/ppo.jsonl (a line of metrics per iteration), with
ppo2 for ppo in round 2 and ppo_ptx with --ptx-coef.

Differences from the paper
  1. 7,680 episodes (and 640 before, for the value network) instead of 256,000, 128 an iteration
     instead of 512, in 2 minibatches instead of 8: small steps in noisy directions cost more KL
     than they gain. Adam's betas are (0.9, 0.999), not (0.9, 0.95); gradients are clipped to norm
     1 (the paper does not say).
  2. beta 0.15 instead of 0.02: it must fit the spread of the scores.
  3. The value network learns alone for some iterations before the policy moves: the pairwise loss
     leaves each prompt's offset free, so it starts far off. Its clip is in units of the spread (the
     paper prints none for values).
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
from data.checkpoints import Progress, load_round, of_round, pick_device, save
from data.files import UserError, option, read_jsonl, run, write_jsonl
from data.tokenizer import Tokenizer
from model import check_room, generate, join, last_token, pad_rows


@dataclass
class Config:
    prompts: str = option("data/prompts_ppo.jsonl", "JSONL of prompts to answer")
    round: int = option(1, "from 2 on: starts from the policy of the round before")
    iterations: int = option(60, "rollouts, each followed by one pass over its episodes")
    episodes: int = option(128, "prompts answered per iteration")
    minibatch: int = option(64, "episodes per step")
    inner_epochs: int = option(1, "passes over the episodes of an iteration")
    max_new: int = option(64, "longest response in tokens")
    lr: float = option(2e-4, "learning rate of the policy")
    value_lr: float = option(5e-4, "learning rate of the value network")
    warmup: int = option(10, "iterations with a learning rate rising from a tenth")
    value_warmup: int = option(
        5, "iterations that train the value network alone, before the others"
    )
    beta: float = option(0.15, "coefficient of the KL penalty, in score per nat")
    clip: float = option(0.2, "clip range of the probability ratio, and of values in spreads")
    lam: float = option(0.95, "lambda of the advantage estimate; there is no discount")
    ptx_coef: float = option(0.0, "weight of the pretraining log-likelihood; 0 is plain PPO")
    ema: float = option(0.95, "decay of the moving average of the policy's weights")
    snapshots: int = option(20, "iterations between two snapshots")
    log: int = option(5, "iterations between two printed lines")
    out: str = option("out", "folder of checkpoints and metrics")
    device: str = option("auto", "auto, cpu, cuda, mps")
    seed: int = option(0, "of prompts and sampling")
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
    return rewards.scatter_add(1, last_token(mask)[:, None], scores[:, None])


def gae(rewards, values, mask, lam: float):
    """Generalised advantage estimation without a discount (Schulman et al. 2016).

    rewards, values, mask (B,T) -> advantages, returns (B,T), 0 outside the mask.
    delta_t = r_t + V_{t+1} - V_t, A_t = delta_t + lam * A_{t+1}; V after the last token is 0.
    Returns are advantages + values, before any whitening.
    """
    assert rewards.shape == values.shape == mask.shape
    advantages, running = torch.zeros_like(rewards), torch.zeros_like(rewards[:, 0])
    following = torch.zeros_like(running)
    for t in reversed(range(rewards.shape[1])):
        delta = rewards[:, t] + following - values[:, t]
        running = (delta + lam * running) * mask[:, t]
        advantages[:, t], following = running, values[:, t] * mask[:, t]
    return advantages, (advantages + values) * mask


def whiten(x, mask):
    """x shifted and scaled to mean 0 and (biased) variance 1 over the mask, 0 outside: (B,T)."""
    mean = masked_mean(x, mask)
    variance = masked_mean((x - mean) ** 2, mask)
    return (x - mean) * torch.rsqrt(variance + 1e-8) * mask


def policy_loss(logp, old_logp, advantages, mask, clip: float):
    """PPO's clipped objective, to be minimised: (B,T) each -> scalar (Schulman et al. 2017).

    The maximum of two losses is the minimum of two gains: the pessimistic one. No gradient flows
    where the ratio is outside of 1 +- clip and moving further would raise the gain.
    """
    ratio = (logp - old_logp).exp()
    unclipped = -advantages * ratio
    clipped = -advantages * ratio.clamp(1 - clip, 1 + clip)
    return masked_mean(torch.maximum(unclipped, clipped), mask)


def value_loss(values, old_values, returns, mask, clip: float):
    """Half the squared error, of the value or of its clipped move, whichever is worse: scalar."""
    moved = old_values + (values - old_values).clamp(-clip, clip)
    worse = torch.maximum((values - returns) ** 2, (moved - returns) ** 2)
    return 0.5 * masked_mean(worse, mask)


def explained_variance(values, returns, mask):
    """1 - Var(returns - values) / Var(returns) over the mask: 1 is perfect, 0 a constant's."""
    error = returns - values
    residual = masked_mean((error - masked_mean(error, mask)) ** 2, mask)
    total = masked_mean((returns - masked_mean(returns, mask)) ** 2, mask)
    return 1 - residual / total.clamp(min=1e-8)


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


@torch.no_grad()
def update_ema(average, model, decay: float):
    """average <- decay * average + (1 - decay) * model, in place, for all weights."""
    for a, p in zip(average.parameters(), model.parameters()):
        a.lerp_(p, 1 - decay)


@torch.no_grad()
def rollout(policy, reference, value_net, reward_model, prompts, tokenizer, config, floor):
    """Answers prompts and computes all that the update needs: a dict of tensors.

    Steps: 1. sample at temperature 1  2. log-probabilities of the policy (the "old" ones) and of
    the reference, and values  3. score at the last token; without EOS the score is set to `floor`
    4. rewards = KL penalty per token + score at the end  5. advantages and returns  6. whitening.
    """
    responses = generate(policy, prompts, config.max_new, tokenizer.eos)
    device = policy.wte.weight.device
    tokens, mask = join(prompts, responses, tokenizer.pad, policy.config.context, device)
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


def main(config: Config) -> dict:
    """Trains and writes the policy; returns the last iteration's metrics."""
    start = time.time()
    if config.episodes % config.minibatch:
        raise UserError("--episodes must be a multiple of --minibatch")
    if max(config.lam, config.ema) > 1:
        raise UserError("--lam and --ema must be from 0 to 1")
    if config.round > 1 and config.ptx_coef:
        raise UserError("--ptx-coef is for round 1: leave --round out")
    device, tokenizer = pick_device(config.device), Tokenizer.of(config.out)
    seed = config.seed + 1000 * (config.round - 1)
    torch.manual_seed(seed)
    rng = random.Random(seed)
    out = Path(config.out)
    name = "ppo_ptx" if config.ptx_coef else of_round("ppo", config.round)
    # Five networks: policy, its average, the frozen reference, the reward model, the value network.
    policy, _ = load_round(out, "ppo", config.round - 1, tokenizer.size, device)
    reference, _ = load_round(out, "ppo", 0, tokenizer.size, device)
    reward_model, scale = load_round(out, "reward", config.round, tokenizer.size, device)
    average = copy.deepcopy(policy)
    value_net = copy.deepcopy(reward_model)
    policy_adam = torch.optim.Adam(policy.parameters(), lr=config.lr, fused=True)
    value_adam = torch.optim.Adam(value_net.parameters(), lr=config.value_lr, fused=True)
    prompts = [tokenizer.prompt(r["prompt"]) for r in read_jsonl(config.prompts, "prompt")]
    check_room(prompts, policy.config.context)
    web = []  # rows of the small web, for PPO-ptx
    if config.ptx_coef:
        if tokenizer.own:
            raise UserError(
                "--ptx-coef mixes the small web in: it needs the small world's vocabulary"
            )
        web = [tokenizer.document(text)[:128] for text in make.corpus(8000)]
    # 1. Prompts in random order, so that every batch mixes all kinds.
    batches, order = [], []
    for _ in range(config.value_warmup + config.iterations):
        if len(order) < config.episodes:
            order = rng.sample(prompts, len(prompts))
        more = rng.choices(prompts, k=max(0, config.episodes - len(order)))
        batches.append(order[: config.episodes] + more)
        order = order[config.episodes :]
    progress = Progress(
        out / f"{name}.state", config, policy=policy, average=average, value_net=value_net,
        policy_adam=policy_adam, value_adam=value_adam,
    )  # fmt: skip
    first, history = progress.start()
    for step in tqdm(range(first, len(batches)), "ppo", leave=False, disable=None):
        iteration = step - config.value_warmup  # below 0 the value network trains alone
        # 2. Rollout.
        batch = rollout(policy, reference, value_net, reward_model, batches[step], tokenizer,
                        config, scale["floor"])  # fmt: skip
        # 3. The learning rate rises from a tenth. Before iteration 0 the policy takes no step.
        rise = min(1.0, 0.1 + 0.9 * iteration / config.warmup) if config.warmup else 1.0
        for group in policy_adam.param_groups:
            group["lr"] = config.lr * rise
        stats, value_losses = [], []
        for _ in range(config.inner_epochs):
            shuffled = torch.randperm(config.episodes, device=device)
            for part in shuffled.split(config.minibatch):
                tokens, mask, old_logp, old_values, returns, advantages = (
                    batch[key][part] for key in
                    ("tokens", "mask", "logp", "values", "returns", "advantages"))  # fmt: skip
                # 4. The policy's step, with the pretraining gradient added for PPO-ptx.
                if iteration >= 0:
                    logp = policy.logprobs(tokens, mask)
                    policy_adam.zero_grad()
                    loss = policy_loss(logp, old_logp, advantages, mask, config.clip)
                    loss.backward()
                    if config.ptx_coef:
                        drawn = torch.randint(len(web), (config.minibatch,)).tolist()
                        rows = pad_rows([web[i] for i in drawn], tokenizer.pad, device)
                        real = (rows != tokenizer.pad).float()
                        real[:, 0] = 0
                        (
                            -config.ptx_coef * masked_mean(policy.logprobs(rows, real), real)
                        ).backward()
                    torch.nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
                    policy_adam.step()
                    update_ema(average, policy, config.ema)
                    # How far this update has moved the policy: approx_kl and clipfrac.
                    log_ratio = (logp - old_logp).detach()
                    outside = ((log_ratio.exp() - 1).abs() > config.clip).float()
                    stats.append(
                        torch.stack(
                            [
                                loss.detach(),
                                0.5 * masked_mean(log_ratio**2, mask),
                                masked_mean(outside, mask),
                            ]
                        )
                    )
                # 5. The value network's step.
                values = value_net.values(tokens, mask)
                value_adam.zero_grad()
                loss = value_loss(values, old_values, returns, mask, config.clip * scale["spread"])
                value_losses.append(loss.detach())
                loss.backward()
                torch.nn.utils.clip_grad_norm_(value_net.parameters(), 1.0)
                value_adam.step()
        # 6. Metrics.
        line = {
            "iteration": iteration,
            **rollout_metrics(batch),
            "value_loss": torch.stack(value_losses).mean().item(),
            "seconds": time.time() - start,
        }
        if stats:
            means = torch.stack(stats).mean(dim=0).tolist()
            line |= dict(zip(("policy_loss", "approx_kl", "clipfrac"), means))
        history.append(line)
        if iteration % config.log == 0 or iteration + 1 == config.iterations:
            tqdm.write(LINE.format(**{"clipfrac": 0.0, **line}))
        if iteration % (4 * config.log) == 0:
            tqdm.write("sample | " + tokenizer.decode(batch["tokens"][0].tolist()))
        if iteration >= 0 and (iteration + 1) % config.snapshots == 0:
            save(out / "snapshots" / f"{name}_{iteration + 1}.pt", average)
        progress.keep(step + 1, history)
    # 7. The average is the product.
    save(out / f"{name}.pt", average)
    write_jsonl(out / f"{name}.jsonl", history)
    progress.done()
    print(f"wrote {out}/{name}.pt in {time.time() - start:.0f} s")
    return history[-1]


if __name__ == "__main__":
    run(Config, main)
