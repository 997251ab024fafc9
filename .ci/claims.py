"""Fails unless out/evaluate.json shows the core claims: python .ci/claims.py SECONDS"""

import json
import sys

seconds = int(sys.argv[1])
results = json.load(open("out/evaluate.json"))
models, wins = results["models"], results["wins"]
order = ("gpt", "prompted", "sft", "ppo")
# Bars that are aimed at: printed, so that nobody takes the checks for them.
goals = {}
# Machines differ: the time is that of one which pretrains 16,000 tokens a second.
speed = json.loads(open("out/pretrain.jsonl").readlines()[-1])["tokens_per_second"]
scaled = seconds * speed / 16_000
shown = f"the chain took {seconds} s, {scaled:.0f} s at 16,000 tokens/s, at most 750"
checks = {shown: scaled <= 750}
for metric in ("gold", "gold_phrasing"):
    gpt, prompted, sft, ppo = (models[name][metric]["value"] for name in order)
    shown = f"gpt {gpt:.3f} < prompted {prompted:.3f} < sft {sft:.3f} < ppo {ppo:.3f}"
    checks[f"{metric}: {shown}"] = gpt < prompted < sft < ppo
    for pair in ("prompted-gpt", "sft-prompted", "ppo-sft"):
        low = results["differences"][f"{metric} {pair}"]["low"]
        checks[f"{metric}: {pair} at least {low:.3f}, above 0"] = low > 0
    n = models["ppo"][metric]["n"]
    checks[f"{metric}: n {n}, at least 1000"] = n >= 1000
win, swapped = wins["ppo/sft"], models["ppo"]["swapped"]
interval = f"{win['value']:.3f} [{win['low']:.3f}, {win['high']:.3f}]"
checks[f"PPO preferred to SFT {interval}, interval above 0.60"] = win["low"] > 0.60
goals[f"PPO preferred to SFT {interval}, at least 0.65"] = win["value"] >= 0.65
checks[f"swapped texts followed {swapped['value']:.3f}, at least 0.60"] = swapped["value"] >= 0.60
for name in ("count", "mention", "avoid", "two"):
    seen = results["labelers"][f"rm_sees_{name}"]["value"]
    goals[f"broken constraints seen, {name}: {seen:.3f}, at least 0.80"] = seen >= 0.8
for metric, sign in (("unanswerable", 1), ("hallucination", -1)):
    sft, ppo = (models[name][metric]["value"] for name in ("sft", "ppo"))
    gain = sign * (ppo - sft)
    goals[f"{metric}: SFT {sft:.3f}, PPO {ppo:.3f}, not worse by 0.03"] = gain >= -0.03
for text, reached in goals.items():
    print("reached   " if reached else "not yet   ", text)
for text, holds in checks.items():
    print("holds     " if holds else "DOES NOT HOLD", text)
print(f"{sum(checks.values())} passed, {len(checks) - sum(checks.values())} failed")
sys.exit(0 if all(checks.values()) else 1)
