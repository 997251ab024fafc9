"""The bug hunt: faults in ppo.py outside of the exercises, so that every visible test passes.

    python notebooks/course/bugs.py        runs PPO with each and writes bugs.json, about 8 minutes

A hunter gets the code with one fault planted (make.py --bug N) and the curves of its run in red
beside the right run's in black. key.md says what the curves show.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

BUGS = [  # file, right code, wrong code, what is wrong
    ("ppo.py", "value_net = copy.deepcopy(reward_model)", "value_net = reward_model",
     "the value network is the reward model itself, which is trained along with it"),
    ("ppo.py", 'mini["values"], mini["returns"], mask', 'mini["values"], mini["advantages"], mask',
     "the value network is taught the advantages and not the returns"),
    ("ppo.py", "batch = rollout(policy, reference,", "batch = rollout(policy, average,",
     "KL is measured to the moving average and not to the SFT model"),
    ("ppo.py", "{key: values[part] for key, values in batch.items()}",
     '{key: x[part.flip(0) if key == "advantages" else part] for key, x in batch.items()}',
     "each answer of a minibatch gets the advantages of another"),
    ("ppo.py", "order = order[size:]", "order = order[:size]",
     "the first batch of prompts is asked again and again"),
    ("ppo.py", "                policy_adam.zero_grad()\n", "",
     "the policy's gradients of all earlier steps are added up"),
]  # fmt: skip
METRICS = ("score", "kl", "entropy", "length", "no_eos", "explained_variance", "value_loss",
           "clipfrac")  # fmt: skip


def curves_of(number: int) -> dict[str, list[float]]:
    """The logged metrics of a run with this fault; 0 is without any."""
    from make import EXERCISES, make

    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder), EXERCISES, number)
        subprocess.run([sys.executable, "ppo.py"], cwd=folder, check=True)
        lines = (Path(folder) / "out" / "ppo.jsonl").read_text(encoding="utf-8").splitlines()
    history = [json.loads(line) for line in lines]
    return {key: [round(line.get(key, 0.0), 5) for line in history] for key in METRICS}


def main() -> None:
    runs = {str(i) if i else "right": curves_of(i) for i in range(len(BUGS) + 1)}
    lines = [f'"{name}": {json.dumps(run)}' for name, run in runs.items()]
    file = Path(__file__).with_name("bugs.json")
    file.write_text("{" + ",\n".join(lines) + "}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
