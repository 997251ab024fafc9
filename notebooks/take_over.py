"""Hugging Face's TRL takes over step 3: RLOO, PPO without a value network, on several processes.

    python -m data.convert --policy sft
    torchrun --nproc_per_node 2 notebooks/take_over.py --steps 30
    python -m data.convert --gpt2 exported/rloo --name ppo --out out/back

What takes over what: the policy of exported/policy answers each prompt four times, and an answer's
advantage is its reward less the mean of the other three's, in place of the value network's guess.
Its score is that of exported/reward, read at the EOS that the chat template puts behind it, even
where the answer was cut off at 64 tokens; ppo.py gives such an answer a fixed low score. The reward
is the score less beta times the KL to the policy at the start. Each process answers half of the
prompts of a step, and the gradients are averaged.
"""

import argparse
import json
from pathlib import Path

from datasets import Dataset
from transformers import AutoTokenizer, PrinterCallback, TrainerCallback
from trl import RLOOConfig, RLOOTrainer

PROMPTS = Path(__file__).parent.parent / "data" / "prompts_ppo.jsonl"


class Line(TrainerCallback):
    """Prints the metrics of a step as ppo.py does; its kl is per answer, this one per token."""

    def on_log(self, args, state, control, logs=None, **kwargs):
        if state.is_world_process_zero and "kl" in logs:
            print("step {} | score {reward:.2f} | kl {kl:.3f} | entropy {entropy:.2f} "
                  "| length {completions/mean_length:.1f} | no eos {completions/clipped_ratio:.2f}"
                  .format(state.global_step, **logs), flush=True)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--folder", default="exported", help="what python -m data.convert wrote")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--lr", type=float, default=5e-4)
    given = parser.parse_args()
    policy, reward, out = (f"{given.folder}/{name}" for name in ("policy", "reward", "rloo"))
    prompts = [json.loads(line)["prompt"] for line in PROMPTS.read_text("utf-8").splitlines()]
    # As messages: TRL then lays out prompts and answers by the chat template, with EOS.
    asked = Dataset.from_list([{"prompt": [{"role": "user", "content": p}]} for p in prompts])
    config = RLOOConfig(
        out, max_steps=given.steps, learning_rate=given.lr, lr_scheduler_type="constant",
        per_device_train_batch_size=64, num_generations=4, max_completion_length=64,
        beta=0.15, temperature=1.0, use_cpu=True, bf16=False, gradient_checkpointing=False,
        # PAD has a logit in these folders, and TRL makes a generation config of its own.
        generation_kwargs={"suppress_tokens": [AutoTokenizer.from_pretrained(policy).pad_token_id]},
        logging_steps=5, log_completions=True, num_completions_to_print=2,
        ddp_find_unused_parameters=False, disable_tqdm=True, report_to="none", save_strategy="no",
    )  # fmt: skip
    trainer = RLOOTrainer(policy, reward, config, asked, callbacks=[Line()])
    trainer.remove_callback(PrinterCallback)
    done = trainer.train()
    trainer.save_model(out)
    if trainer.is_world_process_zero():
        print(f"wrote {out} in {done.metrics['train_runtime']:.0f} s")


if __name__ == "__main__":
    main()
