"""GPT-2's weights in, Hugging Face folders out: where one goes on with larger models and tools.

    python -m data.convert --gpt2 path/to/gpt2 --out out/gpt2    writes base.pt and the vocabulary
    python -m data.convert --folder exported                     out/ppo.pt and out/reward.pt

A GPT-2 folder has model.safetensors, vocab.json, merges.txt and config.json. Near the paper's are
--lr 1e-5 for sft.py and reward.py, --lr 5e-6 --value-lr 9e-6 for ppo.py. The exported folders
load with AutoModelForCausalLM, AutoModelForSequenceClassification and AutoTokenizer, so that TRL,
OpenRLHF or vLLM can take over. PAD has a row in their embeddings, and so a logit, which must not be
sampled: generation_config.json suppresses it.
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
    """vocab.json and merges.txt -> {token: rank}; <|endoftext|> is our EOS, behind all ranks."""
    letters = {letter: byte for byte, letter in byte_letters().items()}

    def as_bytes(token: str) -> bytes:
        return bytes(letters[letter] for letter in token)

    try:
        vocabulary = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
        lines = (folder / "merges.txt").read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise UserError(
            f"{error.filename} is missing: GPT-2's vocab.json and merges.txt belong beside it"
        ) from None
    except ValueError:
        raise UserError(f"{folder}/vocab.json or merges.txt is not what GPT-2 has") from None
    try:
        vocabulary.pop("<|endoftext|>")
        ranks = {as_bytes(token): rank for token, rank in vocabulary.items()}
        merges = [line.split(" ") for line in lines if line and not line.startswith("#version")]
        merged = [ranks[as_bytes(a + b)] for a, b in merges]
        if sorted(ranks.values()) != list(range(len(ranks))):
            raise ValueError
    except (KeyError, ValueError, TypeError, AttributeError):
        raise UserError(f"{folder}/vocab.json or merges.txt is not what GPT-2 has") from None
    if not BYTES <= ranks.keys() or merged != list(range(256, len(ranks))):
        raise UserError(f"{folder}/vocab.json and merges.txt do not belong together")
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
def import_gpt2(file: Path, size: int) -> GPT:
    """GPT-2 of any size from its tensors' shapes; heads are 64 wide unless config.json says so.

    Raises UserError for a file that is something else.
    """
    tensors = read_safetensors(file)
    try:
        (rows, width), (context, _) = tensors["wte.weight"].shape, tensors["wpe.weight"].shape
        config = file.parent / "config.json"
        heads = json.loads(config.read_text())["n_head"] if config.exists() else width // 64
        if type(heads) is not int or heads < 1:
            raise ValueError
        layers = len({name.split(".")[1] for name in tensors if name.startswith("h.")})
        model = GPT(GPTConfig(size, context, layers, heads, width))
        if rows < size:
            raise UserError(f"{file} has {rows} tokens, its vocabulary {size}")
        weights = {name: transposed(gpt2_name(name), tensors[gpt2_name(name)])
                   for name in model.state_dict()}  # fmt: skip
        pad = torch.zeros(1, width)
        weights["wte.weight"] = torch.cat([tensors["wte.weight"][:size], pad])
        model.load_state_dict(weights)
    except (KeyError, ValueError, TypeError, RuntimeError, ZeroDivisionError):
        raise UserError(f"{file} does not hold the weights of a GPT-2") from None
    return model


@torch.no_grad()
def export(model: GPT, tokenizer: Tokenizer, folder: Path) -> None:
    """Writes a policy or a reward model with its vocabulary as a Hugging Face folder."""
    config, scalar = model.config, isinstance(model, ScalarGPT)
    weights = dict(model.state_dict())
    tensors = {}
    if scalar:
        # Their scalar head has no bias: the LayerNorm before it takes it over.
        head, bias = weights.pop("scalar.weight"), weights.pop("scalar.bias")
        weights["ln_f.bias"] = weights["ln_f.bias"] + bias * head[0] / head.pow(2).sum()
        tensors["score.weight"] = head
    for name, tensor in weights.items():
        tensors["transformer." + gpt2_name(name)] = transposed(gpt2_name(name), tensor)
    write_safetensors(folder / "model.safetensors", tensors)
    letters, eos, pad = byte_letters(), "<|endoftext|>", "<|pad|>"
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
    # A prompt's lines start with a space and it ends with a newline, as in data/tokenizer.py.
    template = (
        "{% for m in messages %}{{ ' ' + m['content'] | replace('\\n', '\\n ') }}"
        "{{ '\\n' if m['role'] == 'user' else eos_token }}{% endfor %}"
    )
    files = {
        "config.json": {
            "model_type": "gpt2", "architectures": [kind], "vocab_size": config.vocab_size + 1,
            "n_positions": config.context, "n_embd": config.width, "n_layer": config.layers,
            "n_head": config.heads, "activation_function": "gelu_new", "resid_pdrop": 0.0,
            "embd_pdrop": 0.0, "attn_pdrop": 0.0, "num_labels": 1, **ids},
        "tokenizer.json": {
            "version": "1.0", "truncation": None, "padding": None, "normalizer": None,
            "added_tokens": [{"id": tokenizer.eos, "content": eos, **special},
                             {"id": tokenizer.pad, "content": pad, **special}],
            "pre_tokenizer": level, "post_processor": None, "decoder": level,
            "model": {"type": "BPE", "merges": merges,
                      "vocab": {written(token): rank for token, rank in tokenizer.ranks.items()}}},
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast", "eos_token": eos, "pad_token": pad,
            "model_max_length": config.context, "chat_template": template},
        "generation_config.json": {"suppress_tokens": [tokenizer.pad], **ids},
    }  # fmt: skip
    for name, content in files.items():
        if not (scalar and name == "generation_config.json"):
            write_text(folder / name, json.dumps(content, indent=1) + "\n")


@dataclass
class Config:
    gpt2: str = option("", "a GPT-2 folder to import: its weights become base.pt in --out")
    out: str = option("out", "folder of checkpoints")
    policy: str = option("ppo", "the checkpoint to export as the policy: sft, ppo, ppo2, ...")
    reward: str = option("reward", "the checkpoint to export as the reward model")
    folder: str = option("exported", "where to export to: its subfolders policy and reward")


def main(config: Config) -> None:
    out = Path(config.out)
    if config.gpt2:
        tokenizer = Tokenizer(read_gpt2_vocabulary(Path(config.gpt2)))
        model = import_gpt2(Path(config.gpt2) / "model.safetensors", tokenizer.size)
        tokenizer.save(out)
        save(out / "base.pt", model, made_from={})
        print(f"wrote {out}/base.pt and {out}/vocab.tiktoken")
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
