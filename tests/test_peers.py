"""Our GPT beside Hugging Face's GPT-2: pip install -r tests/requirements.txt, pytest -m peers."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from data.checkpoints import load, save
from data.convert import Config, byte_letters, export, parts_of
from data.convert import main as convert
from data.forms import read_jsonl
from data.tokenizer import Tokenizer
from model import GPT, GPTConfig, ScalarGPT, generate, score_texts, tokens_and_mask

pytestmark = pytest.mark.peers
transformers = pytest.importorskip("transformers", reason="pip install -r tests/requirements.txt")
ROOT = Path(__file__).parent.parent
CHAIN = ROOT / "notebooks" / "published" / "chain"
TOKENIZER = Tokenizer()
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def gpt(kind=GPT):
    torch.manual_seed(0)
    model = kind(GPTConfig(TOKENIZER.size, context=64, layers=3, heads=4, width=64)).eval()
    for p in model.parameters():
        p.data += 0.02 * torch.randn(p.shape)
    return model


def rows(count=6):
    generator = torch.Generator().manual_seed(1)
    prompts, responses = (
        [torch.randint(TOKENIZER.eos, (3 + (5 * i + j) % 11,), generator=generator).tolist()
         for i in range(count)] for j in (0, 4))  # fmt: skip
    return prompts, [r + [TOKENIZER.eos] for r in responses]


@pytest.fixture
def policy(tmp_path):
    export(gpt(), TOKENIZER, tmp_path)
    return gpt(), transformers.AutoModelForCausalLM.from_pretrained(tmp_path).eval()


def test_logits_are_theirs(policy):
    ours, theirs = policy
    assert type(theirs).__name__ == "GPT2LMHeadModel"
    tokens, _ = tokens_and_mask(*rows(), TOKENIZER.pad, 64)
    real = tokens != TOKENIZER.pad
    logits = theirs(tokens, attention_mask=real.long()).logits[..., : TOKENIZER.size]
    torch.testing.assert_close(ours(tokens)[real], logits[real], **CLOSE)


def test_gradients_are_theirs(policy):
    ours, theirs = policy
    prompts, responses = rows()
    tokens, mask = tokens_and_mask(prompts, responses, TOKENIZER.pad, 64)
    (-ours.logprobs(tokens, mask).sum() / mask.sum()).backward()
    logp = theirs(tokens).logits[..., : TOKENIZER.size].log_softmax(dim=-1)[:, :-1]
    chosen = logp.gather(2, tokens[:, 1:, None].clamp(max=TOKENIZER.eos)).squeeze(2)
    (-(chosen * mask[:, 1:]).sum() / mask.sum()).backward()
    pairs = [
        (ours.wte.weight.grad, theirs.transformer.wte.weight.grad),
        (ours.wpe.weight.grad, theirs.transformer.wpe.weight.grad),
    ]
    for block, h in zip(ours.blocks, theirs.transformer.h):
        pairs += [
            (block.attention.qkv.weight.grad.T, h.attn.c_attn.weight.grad),
            (block.attention.qkv.bias.grad, h.attn.c_attn.bias.grad),
            (block.attention.proj.weight.grad.T, h.attn.c_proj.weight.grad),
            (block.up.weight.grad.T, h.mlp.c_fc.weight.grad),
            (block.down.weight.grad.T, h.mlp.c_proj.weight.grad),
            (block.ln_1.weight.grad, h.ln_1.weight.grad),
            (block.ln_2.bias.grad, h.ln_2.bias.grad),
        ]
    for one, other in pairs:
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5 * other.abs().max().item())
        assert one.abs().max() > 0


def test_greedy_tokens_are_theirs(policy):
    ours, theirs = policy
    for prompt, response in zip(rows()[0], generate(ours, rows()[0], 20, TOKENIZER.eos, 0)):
        tokens = torch.tensor([prompt])
        long = theirs.generate(tokens, max_new_tokens=20, do_sample=False)[
            0, len(prompt) :
        ].tolist()
        assert response == long


def test_rewards_are_theirs_for_rows_of_unequal_length(tmp_path):
    ours = gpt(ScalarGPT)
    ours.scalar.bias.data += 1.5
    export(ours, TOKENIZER, tmp_path)
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    assert type(theirs).__name__ == "GPT2ForSequenceClassification"
    tokens, mask = tokens_and_mask(*rows(), TOKENIZER.pad, 64)
    assert len(set(mask.sum(dim=1).tolist())) > 2
    scores = theirs(tokens, attention_mask=(tokens != TOKENIZER.pad).long()).logits.squeeze(1)
    torch.testing.assert_close(ours.score(tokens, mask), scores, **CLOSE)


def test_a_random_gpt2_of_theirs_comes_in(tmp_path):
    torch.manual_seed(0)
    config = transformers.GPT2Config(vocab_size=TOKENIZER.size, n_positions=48, n_embd=64,
                                     n_layer=2, n_head=4)  # fmt: skip
    theirs = transformers.GPT2LMHeadModel(config).eval()
    theirs.save_pretrained(tmp_path)
    letters = byte_letters()
    ranks = TOKENIZER.ranks

    def written(token):
        return "".join(letters[b] for b in token)

    vocabulary = {written(t): r for t, r in ranks.items()} | {"<|endoftext|>": len(ranks)}
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary))
    merges = [" ".join(map(written, parts_of(t, ranks))) for t in ranks if len(t) > 1]
    (tmp_path / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    convert(Config(gpt2=str(tmp_path), out=str(tmp_path / "out")))
    tokenizer = Tokenizer.of(tmp_path / "out")
    ours, _ = load(tmp_path / "out" / "base.pt", "", tokenizer.size)
    tokens = torch.randint(tokenizer.size, (3, 40))
    torch.testing.assert_close(ours(tokens), theirs(tokens).logits, **CLOSE)
    peer = transformers.GPT2Tokenizer(str(tmp_path / "vocab.json"), str(tmp_path / "merges.txt"))
    for text in TEXTS:
        assert tokenizer.encode(text) == peer.encode(text)


TEXTS = [" The cat sat.\n", "  two  spaces\n\n \tand tabs", "Ä日本 🙂 don't 123,45", "", "\x00\x7f"]


def test_the_exported_vocabulary_and_template_are_ours(tmp_path):
    for name, kind in (("ppo", GPT), ("reward", ScalarGPT)):
        save(tmp_path / f"{name}.pt", gpt(kind), {})
    convert(Config(out=str(tmp_path), folder=str(tmp_path / "hf")))
    peer = transformers.AutoTokenizer.from_pretrained(tmp_path / "hf" / "policy")
    for text in TEXTS:
        assert peer.encode(text, add_special_tokens=False) == TOKENIZER.encode(text)
        assert peer.decode(TOKENIZER.encode(text)) == text
    assert (peer.eos_token_id, peer.pad_token_id) == (TOKENIZER.eos, TOKENIZER.pad)
    chat = CHAT[1:3]
    assert ids_of(peer, *chat) == TOKENIZER.prompt("What is\na cat?") + TOKENIZER.response("x")
    assert ids_of(peer, *CHAT[:2]) == TOKENIZER.prompt("Be kind.\nWhat is\na cat?")
    asked = "Be kind.\nWhat is\na cat?\nx\nAnd a dog?"
    assert ids_of(peer, *CHAT) == TOKENIZER.prompt(asked) + TOKENIZER.response("A dog.\nYes.")
    assert load(tmp_path / "ppo.pt", "", TOKENIZER.size)


CHAT = (("system", "Be kind."), ("user", "What is\na cat?"), ("assistant", "x"),
        ("user", "And a dog?"), ("assistant", "A dog.\nYes."))  # fmt: skip


def ids_of(peer, *chat):
    """Messages (role, content) as tokens, by the exported chat template."""
    messages = [{"role": role, "content": content} for role, content in chat]
    return peer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)[
        "input_ids"
    ]


def test_sampled_answers_keep_their_tokens_through_the_chat_template(tmp_path):
    """Where they keep them through our own decoding and encoding: nearly always."""
    policy, _ = load(CHAIN / "ppo.pt", "", TOKENIZER.size)
    export(policy, TOKENIZER, tmp_path)
    peer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    asked = [r["prompt"] for r in read_jsonl(ROOT / "data" / "prompts_ppo.jsonl")[:400]]
    prompts = [TOKENIZER.prompt(text) for text in asked]
    torch.manual_seed(0)
    responses = generate(policy, prompts, 64, TOKENIZER.eos)
    ended = [i for i in range(400) if responses[i][-1] == TOKENIZER.eos]
    kept = [i for i in ended if TOKENIZER.response(TOKENIZER.decode(responses[i])) == responses[i]]
    assert len(ended) > 380 and len(kept) > 0.98 * len(ended)
    for i in kept:
        answer = peer.decode(responses[i], skip_special_tokens=True)
        assert answer.startswith(" ")
        ids = ids_of(peer, ("user", asked[i]), ("assistant", answer))
        assert ids == prompts[i] + responses[i]


def test_what_they_save_in_half_precision_comes_home(tmp_path):
    export(gpt(), TOKENIZER, tmp_path / "policy")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "policy")
    theirs = theirs.to(torch.bfloat16)
    theirs.save_pretrained(tmp_path / "saved")
    transformers.AutoTokenizer.from_pretrained(tmp_path / "policy").save_pretrained(
        tmp_path / "saved"
    )
    convert(Config(gpt2=str(tmp_path / "saved"), name="ppo", out=str(tmp_path)))
    ours, _ = load(tmp_path / "ppo.pt", "", TOKENIZER.size)
    assert not Tokenizer.of(tmp_path).own
    tokens = torch.randint(TOKENIZER.size, (3, 40))
    logits = theirs.float()(tokens).logits[..., : TOKENIZER.size]
    torch.testing.assert_close(ours(tokens), logits, **CLOSE)


# Runs notebooks/take_over.py and writes what TRL keeps of its last step, with all digits.
NOTING = """
import json, sys
sys.path.insert(0, sys.argv.pop(1))
import take_over

class Noting(take_over.RLOOTrainer):
    def log(self, *args):
        if self.is_world_process_zero():
            noted = {"prompt": self._logs["prompt"], "completion": self._logs["completion"],
                     "reward": self._logs["rewards"]["reward"]}
            with open("noted.json", "w") as file:
                json.dump({key: list(values) for key, values in noted.items()}, file)
        super().log(*args)

take_over.RLOOTrainer = Noting
take_over.main()
"""


def test_trl_takes_over_on_two_processes_with_our_scores_and_comes_home(tmp_path):
    """TRL puts EOS behind every answer, so one that was cut off is scored as if it had ended."""
    pytest.importorskip("trl", reason="pip install -r tests/requirements.txt")
    convert(Config(out=str(CHAIN), policy="sft", folder=str(tmp_path / "exported")))
    (tmp_path / "noting.py").write_text(NOTING)
    subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2",
         "noting.py", str(ROOT / "notebooks"), "--steps", "3"],
        cwd=tmp_path, env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        check=True, timeout=300,
    )  # fmt: skip
    noted = json.loads((tmp_path / "noted.json").read_text())
    prompts = [messages[0]["content"] for messages in noted["prompt"]]
    texts = [m[0]["content"].removeprefix(" ").replace("\n ", "\n") for m in noted["completion"]]
    assert len(prompts) == 128 and len(set(prompts)) == 32
    reward_model, _ = load(CHAIN / "reward.pt", "", TOKENIZER.size)
    ours = torch.tensor(score_texts(reward_model, TOKENIZER, prompts, texts))
    torch.testing.assert_close(torch.tensor(noted["reward"]), ours, rtol=1e-4, atol=1e-4)
    convert(Config(gpt2=str(tmp_path / "exported/rloo"), name="ppo", out=str(tmp_path / "out")))
    ours, _ = load(tmp_path / "out" / "ppo.pt", "", TOKENIZER.size)
    moved = (ours.wpe.weight - load(CHAIN / "sft.pt", "", TOKENIZER.size)[0].wpe.weight).abs()
    assert 0 < moved.max() < 0.01 and not Tokenizer.of(tmp_path / "out").own
