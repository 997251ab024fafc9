"""GPT-2's weights in, Hugging Face folders out: where one goes on with larger models and tools.

    python -m data.convert --gpt2 path/to/gpt2 --out out/gpt2    writes base.pt and the vocabulary
    python -m data.convert --folder exported                     out/ppo.pt and out/reward.pt
    python -m data.convert --gpt2 exported/rloo --name ppo --out out/back     a policy comes home

A GPT-2 folder has model.safetensors, config.json and either tokenizer.json, as other tools save it,
or GPT-2's vocab.json and merges.txt. Near the paper's are --lr 1e-5 for sft.py and reward.py,
--lr 5e-6 --value-lr 9e-6 for ppo.py. The exported folders load with AutoModelForCausalLM,
AutoModelForSequenceClassification and AutoTokenizer: notebooks/take_over.py has TRL take over.

PAD has a row in their embeddings, and so a logit. The row is the mean of all others, so PAD is no
likelier than they are on average; generation_config.json keeps it from being sampled at all.
The chat template puts all messages one below the other, as lines. What stands before the last
answer is the prompt, and EOS stands behind that answer alone. A line that starts with a space, as
sampled text does, gets no second one. Text that spells a special token, such as <|endoftext|>, is
plain text here but becomes that token there.
"""

import json
import math
import struct
from dataclasses import dataclass
from pathlib import Path

import torch

from data.checkpoints import load, save
from data.files import UserError, option, run, write_text, write_whole
from data.tokenizer import BYTES, Tokenizer
from model import GPT, GPTConfig, ScalarGPT

# Our name -> GPT-2's. Its linear layers keep their weights as (inputs, outputs): transposed.
NAMES = {
    "wte": "wte", "wpe": "wpe", "ln_f": "ln_f", "ln_1": "ln_1", "ln_2": "ln_2",
    "attention.qkv": "attn.c_attn", "attention.proj": "attn.c_proj",
    "up": "mlp.c_fc", "down": "mlp.c_proj",
}  # fmt: skip
# What config.json must say where it says anything: other settings make other logits.
SETTINGS = {
    "model_type": ("gpt2",), "activation_function": ("gelu_new", "gelu_pytorch_tanh"),
    "layer_norm_epsilon": (1e-5,), "scale_attn_weights": (True,), "tie_word_embeddings": (True,),
    "scale_attn_by_inverse_layer_idx": (False,), "reorder_and_upcast_attn": (False,),
}  # fmt: skip
EOS, PAD = "<|endoftext|>", "<|pad|>"
# A message's lines start with a space, as in data/tokenizer.py.
TEMPLATE = (
    "{% for m in messages %}"
    "{% if m['role'] not in ['system', 'user', 'assistant'] or m['content'] is not string %}"
    "{{ raise_exception('a message must be text of the system, the user or the assistant') }}"
    "{% endif %}"
    "{{ (('\\n' + m['content']) | replace('\\n ', '\\n') | replace('\\n', '\\n '))[1:] }}"
    "{{ eos_token if loop.last and m['role'] == 'assistant' else '\\n' }}"
    "{% endfor %}"
)
DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def gpt2_name(name: str) -> str:
    """blocks.0.attention.qkv.weight -> h.0.attn.c_attn.weight"""
    body, kind = name.rsplit(".", 1)
    if body.startswith("blocks."):
        _, layer, body = body.split(".", 2)
        return f"h.{layer}.{NAMES[body]}.{kind}"
    return f"{NAMES[body]}.{kind}"


def transposed(name: str, tensor: torch.Tensor) -> torch.Tensor:
    """A linear layer's weight the other way round; all else as it is."""
    return tensor.T if name.startswith("h.") and tensor.dim() == 2 else tensor


# ----------------------------------------------------------------------------------- safetensors
def read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    """Eight bytes of header length, a JSON header, then raw little-endian numbers."""
    try:
        data = bytearray(path.read_bytes())
        (length,) = struct.unpack("<Q", data[:8])
        header = json.loads(data[8 : 8 + length])
        header.pop("__metadata__", None)
        tensors = {}
        for name, entry in header.items():
            if entry["dtype"] not in DTYPES:  # such as the causal mask of old files
                continue
            start, end = (8 + length + offset for offset in entry["data_offsets"])
            flat = torch.frombuffer(data[start:end], dtype=DTYPES[entry["dtype"]])
            tensors[name.removeprefix("transformer.")] = flat.view(entry["shape"]).float()
        return tensors
    except (OSError, ValueError, KeyError, TypeError, AttributeError, struct.error, RuntimeError):
        raise UserError(f"{path} cannot be read as a safetensors file") from None


def write_safetensors(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    header, chunks, at = {"__metadata__": {"format": "pt"}}, [], 0
    for name, tensor in tensors.items():
        chunks.append(tensor.detach().float().cpu().contiguous().numpy().tobytes())
        header[name] = {"dtype": "F32", "shape": list(tensor.shape),
                        "data_offsets": [at, at + len(chunks[-1])]}  # fmt: skip
        at += len(chunks[-1])
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    data = struct.pack("<Q", len(text)) + text + b"".join(chunks)
    write_whole(path, lambda file: file.write_bytes(data))


# ------------------------------------------------------------------------------------ vocabulary
def byte_letters() -> dict[int, str]:
    """GPT-2 writes each byte as a letter one can see: itself, or one from 256 on."""
    seen = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [b for b in range(256) if b not in seen]
    return {b: chr(b) for b in seen} | {b: chr(256 + i) for i, b in enumerate(hidden)}


def read_gpt2_vocabulary(folder: Path) -> dict[bytes, int]:
    """A folder's vocabulary -> {token: rank}; <|endoftext|> is our EOS, behind all ranks.

    It is in tokenizer.json, with one special token more at most, or in vocab.json and merges.txt.
    """
    letters = {letter: byte for byte, letter in byte_letters().items()}
    names = "tokenizer.json" if (folder / "tokenizer.json").exists() else "vocab.json or merges.txt"

    def as_bytes(token: str) -> bytes:
        return bytes(letters[letter] for letter in token)

    try:
        if names == "tokenizer.json":
            content = json.loads((folder / names).read_text(encoding="utf-8"))
            vocabulary, merges = content["model"]["vocab"], content["model"]["merges"]
            merges = [merge.split(" ") if isinstance(merge, str) else merge for merge in merges]
            special = {token["content"]: token["id"] for token in content["added_tokens"]}
            if content["pre_tokenizer"]["type"] != "ByteLevel":
                raise ValueError
        else:
            vocabulary = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
            lines = (folder / "merges.txt").read_text(encoding="utf-8").splitlines()
            merges = [line.split(" ") for line in lines if line and not line.startswith("#version")]
            special = {EOS: vocabulary[EOS]}
        ranks = {as_bytes(t): rank for t, rank in vocabulary.items() if t not in special}
        merged = [ranks[as_bytes(a + b)] for a, b in merges]
        size = len(ranks)
        if sorted(ranks.values()) != list(range(size)) or special[EOS] != size:
            raise ValueError
        if not set(special.values()) <= {size, size + 1}:
            raise UserError(f"{folder} has special tokens beside {EOS} and one for padding")
    except OSError as error:
        raise UserError(
            f"{error.filename} is missing: "
            "GPT-2's vocab.json and merges.txt, or a tokenizer.json, belong beside its weights"
        ) from None
    except (KeyError, ValueError, TypeError, AttributeError):
        raise UserError(f"{folder}/{names} is not what GPT-2 has") from None
    if not BYTES <= ranks.keys() or merged != list(range(256, size)):
        raise UserError(f"the tokens and the merges of {folder} do not belong together")
    return ranks


def parts_of(token: bytes, ranks: dict[bytes, int]) -> tuple[bytes, bytes]:
    """The two tokens that merge into this one: its bytes merged as far as lower ranks go."""
    parts = [bytes([b]) for b in token]
    while len(parts) > 2:
        i = min(range(len(parts) - 1),
                key=lambda i: ranks.get(parts[i] + parts[i + 1], math.inf))  # fmt: skip
        parts[i : i + 2] = [parts[i] + parts[i + 1]]
    return parts[0], parts[1]


# ------------------------------------------------------------------------------ in, and out again
def with_pad(rows: torch.Tensor) -> torch.Tensor:
    """Embeddings (V,C) and one for PAD, their mean: (V+1,C).

    Its logit is the mean of theirs. A row of zeros has the logit 0, and GPT-2's own are near -35.
    """
    return torch.cat([rows, rows.mean(dim=0, keepdim=True)])


def import_gpt2(file: Path, size: int) -> GPT:
    """GPT-2 of any size from its tensors' shapes; heads are 64 wide unless config.json says so.

    Raises UserError for a file that is something else, or whose logits this GPT would not compute.
    """
    if file.with_name(file.name + ".index.json").exists():
        raise UserError(f"{file.parent} has its weights in several files: save them as one")
    tensors, config = read_safetensors(file), file.parent / "config.json"
    try:
        if "score.weight" in tensors:
            raise UserError(f"{file} is a reward model: only a policy can be read")
        rows = tensors["wte.weight"]
        (known, width), (context, _) = rows.shape, tensors["wpe.weight"].shape
        settings = json.loads(config.read_text()) if config.exists() else {"n_head": width // 64}
        for name, allowed in SETTINGS.items():
            if settings.get(name, allowed[0]) not in allowed:
                raise UserError(f"{config} has {name} {settings[name]}, this GPT has {allowed[0]}")
        if not torch.equal(tensors.get("lm_head.weight", rows), rows):
            raise UserError(f"{file} has a head of its own, this GPT's is the token embedding")
        heads = settings["n_head"]
        if type(heads) is not int or heads < 1:
            raise ValueError
        layers = len({name.split(".")[1] for name in tensors if name.startswith("h.")})
        model = GPT(GPTConfig(size, context, layers, heads, width))
        if known < size:
            raise UserError(f"{file} has {known} tokens, its vocabulary {size}")
        weights = {name: transposed(gpt2_name(name), tensors[gpt2_name(name)])
                   for name in model.state_dict()}  # fmt: skip
        weights["wte.weight"] = with_pad(rows[:size])
        model.load_state_dict(weights)
    except (KeyError, ValueError, TypeError, AttributeError, RuntimeError, ZeroDivisionError):
        raise UserError(f"{file} does not hold the weights of a GPT-2") from None
    return model


@torch.no_grad()
def export(model: GPT, tokenizer: Tokenizer, folder: Path) -> None:
    """Writes a policy or a reward model with its vocabulary as a Hugging Face folder."""
    config, scalar = model.config, isinstance(model, ScalarGPT)
    weights = dict(model.state_dict())
    weights["wte.weight"] = with_pad(weights["wte.weight"][: config.vocab_size])
    tensors = {}
    if scalar:
        # Their scalar head has no bias: the LayerNorm before it takes it over.
        head, bias = weights.pop("scalar.weight"), weights.pop("scalar.bias")
        weights["ln_f.bias"] = weights["ln_f.bias"] + bias * head[0] / head.pow(2).sum()
        tensors["score.weight"] = head
    for name, tensor in weights.items():
        tensors["transformer." + gpt2_name(name)] = transposed(gpt2_name(name), tensor)
    write_safetensors(folder / "model.safetensors", tensors)
    letters = byte_letters()
    ids = {"eos_token_id": tokenizer.eos, "bos_token_id": tokenizer.eos,
           "pad_token_id": tokenizer.pad}  # fmt: skip
    kind = "GPT2ForSequenceClassification" if scalar else "GPT2LMHeadModel"

    def written(token: bytes) -> str:
        return "".join(letters[b] for b in token)

    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True,
             "use_regex": True}  # fmt: skip
    merges = [" ".join(map(written, parts_of(token, tokenizer.ranks)))
              for token, _ in sorted(tokenizer.ranks.items(), key=lambda item: item[1])
              if len(token) > 1]  # fmt: skip
    special = {"special": True, "single_word": False, "lstrip": False, "rstrip": False,
               "normalized": False}  # fmt: skip
    files = {
        "config.json": {
            "model_type": "gpt2", "architectures": [kind], "vocab_size": config.vocab_size + 1,
            "n_positions": config.context, "n_embd": config.width, "n_layer": config.layers,
            "n_head": config.heads, "activation_function": "gelu_new", "resid_pdrop": 0.0,
            "embd_pdrop": 0.0, "attn_pdrop": 0.0, "num_labels": 1, **ids},
        "tokenizer.json": {
            "version": "1.0", "truncation": None, "padding": None, "normalizer": None,
            "added_tokens": [{"id": tokenizer.eos, "content": EOS, **special},
                             {"id": tokenizer.pad, "content": PAD, **special}],
            "pre_tokenizer": level, "post_processor": None, "decoder": level,
            "model": {"type": "BPE", "merges": merges,
                      "vocab": {written(token): rank for token, rank in tokenizer.ranks.items()}}},
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast", "eos_token": EOS, "pad_token": PAD,
            "model_max_length": config.context, "chat_template": TEMPLATE,
            "clean_up_tokenization_spaces": False},
        "generation_config.json": {"suppress_tokens": [tokenizer.pad], **ids},
    }  # fmt: skip
    for name, content in files.items():
        if not (scalar and name == "generation_config.json"):
            write_text(folder / name, json.dumps(content, indent=1) + "\n")


@dataclass
class Config:
    gpt2: str = option("", "a GPT-2 folder to import: its weights become a checkpoint in --out")
    name: str = option("base", "the checkpoint that --gpt2 becomes: base, sft or ppo")
    out: str = option("out", "folder of checkpoints")
    policy: str = option("ppo", "the checkpoint to export as the policy: sft, ppo, ppo2, ...")
    reward: str = option("reward", "the checkpoint to export as the reward model")
    folder: str = option("exported", "where to export to: its subfolders policy and reward")


def main(config: Config) -> None:
    out = Path(config.out)
    if config.gpt2:
        if config.name not in ("base", "sft", "ppo"):
            raise UserError(f"--name {config.name} is not base, sft or ppo")
        tokenizer = Tokenizer(read_gpt2_vocabulary(Path(config.gpt2)))
        model = import_gpt2(Path(config.gpt2) / "model.safetensors", tokenizer.size)
        tokenizer.save(out)
        save(out / f"{config.name}.pt", model, made_from={})
        print(f"wrote {out}/{config.name}.pt" + f" and {out}/vocab.tiktoken" * tokenizer.own)
        return
    tokenizer = Tokenizer.of(out)
    for name, kind, folder in (
        (config.policy, GPT, "policy"), (config.reward, ScalarGPT, "reward"),
    ):  # fmt: skip
        file = out / f"{name}.pt"
        model, _ = load(file, "the script that makes it", tokenizer.size, "cpu", kind)
        export(model, tokenizer, Path(config.folder) / folder)
        print(f"wrote {config.folder}/{folder}")


if __name__ == "__main__":
    run(Config, main)
