"""GPT-2's format in and out, without other packages; test_peers.py has the comparison with them."""

import json
import math
import os
import struct

import numpy as np
import pytest
import torch
from jinja2.sandbox import ImmutableSandboxedEnvironment  # torch brings it along

import sft
from data import convert
from data.checkpoints import load
from data.convert import (
    DTYPES,
    TEMPLATE,
    byte_letters,
    export,
    import_gpt2,
    parts_of,
    read_safetensors,
    write_safetensors,
)
from data.files import UserError, write_jsonl
from data.tokenizer import Tokenizer, train_bpe
from model import GPT, GPTConfig, ScalarGPT

RANKS = train_bpe(["the cat sat on the mat, the cat sat"] * 3, 280)
TOKENIZER = Tokenizer(RANKS)


def gpt(kind=GPT, seed=0):
    torch.manual_seed(seed)
    model = kind(GPTConfig(TOKENIZER.size, context=32, layers=2, heads=2, width=16)).eval()
    for p in model.parameters():
        p.data += 0.1 * torch.randn(p.shape)  # biases and LayerNorms too
    return model


def write_vocabulary(folder):
    letters = byte_letters()

    def written(token):
        return "".join(letters[b] for b in token)

    vocabulary = {written(t): r for t, r in RANKS.items()} | {"<|endoftext|>": len(RANKS)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    merges = [" ".join(map(written, parts_of(t, RANKS))) for t in RANKS if len(t) > 1]
    text = "\n".join(["#version: 0.2", *merges]) + "\n"
    (folder / "merges.txt").write_text(text, encoding="utf-8")


def imported(folder, out=None, name="base"):
    """What `python -m data.convert --gpt2` makes of a folder."""
    out = out or folder / "out"
    convert.main(convert.Config(gpt2=str(folder), out=str(out), name=name))
    tokenizer = Tokenizer.of(out)
    return load(out / f"{name}.pt", "", tokenizer.size)[0], tokenizer


def change(file, *keys, **values):
    """Changes entries of a JSON file, those of the object that the keys lead to."""
    content = json.loads(file.read_text(encoding="utf-8"))
    part = content
    for key in keys:
        part = part[key]
    part.update(values)
    file.write_text(json.dumps(content), encoding="utf-8")


@pytest.fixture
def folder(tmp_path):
    """A model as GPT-2 comes: weights, configuration, vocabulary."""
    export(gpt(), TOKENIZER, tmp_path)
    write_vocabulary(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    return tmp_path


@pytest.fixture
def exported(tmp_path):
    """A model as this project exports it."""
    export(gpt(), TOKENIZER, tmp_path)
    return tmp_path


def test_safetensors_keep_names_shapes_and_values(tmp_path):
    file = tmp_path / "a.safetensors"
    tensors = {"a": torch.randn(2, 3), "b.c": torch.randn(4, 5).T}
    write_safetensors(file, tensors)
    again = read_safetensors(file)
    assert again.keys() == tensors.keys() and all(torch.equal(again[k], tensors[k]) for k in again)
    assert struct.unpack("<Q", file.read_bytes()[:8])[0] % 8 == 0


def test_half_precision_and_unknown_types_are_read_and_left_out(tmp_path):
    header = {"transformer.x": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]},
              "mask": {"dtype": "U8", "shape": [1], "data_offsets": [4, 5]}}  # fmt: skip
    text = json.dumps(header).encode()
    (tmp_path / "a").write_bytes(
        struct.pack("<Q", len(text)) + text + b"\x80\x3f\x00\xc0\x01"  # 1.0, -2.0
    )
    assert {k: v.tolist() for k, v in read_safetensors(tmp_path / "a").items()} == {"x": [1.0, -2]}


def test_gpt2_goes_out_and_in_with_its_logits_and_its_vocabulary(folder):
    tokens = torch.randint(TOKENIZER.size, (2, 9))
    model, tokenizer = imported(folder)
    assert model.config == gpt().config
    torch.testing.assert_close(model(tokens), gpt()(tokens), rtol=1e-6, atol=1e-6)
    text = "the cat sat.\n\nÄ mat"
    assert tokenizer.encode(text) == TOKENIZER.encode(text) and tokenizer.eos == TOKENIZER.eos


def test_heads_are_64_wide_without_a_configuration(tmp_path):
    torch.manual_seed(0)
    model = GPT(GPTConfig(TOKENIZER.size, context=8, layers=1, heads=2, width=128))
    export(model, TOKENIZER, tmp_path)
    (tmp_path / "config.json").unlink()
    assert import_gpt2(tmp_path / "model.safetensors", TOKENIZER.size).config.heads == 2


def test_a_reward_models_bias_moves_into_the_layer_norm(tmp_path):
    model = gpt(ScalarGPT)
    model.scalar.bias.data += 3.0
    export(model, TOKENIZER, tmp_path)
    tensors = read_safetensors(tmp_path / "model.safetensors")
    tokens = torch.randint(TOKENIZER.size, (2, 9))
    expected = model(tokens)
    model.ln_f.bias.data = tensors["ln_f.bias"]
    model.scalar.bias.data.zero_()
    torch.testing.assert_close(model(tokens), expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(model.scalar.weight, tensors["score.weight"])


def test_parts_of_undo_every_merge():
    learned = [t for t in RANKS if len(t) > 1]
    for token in learned:
        one, other = parts_of(token, RANKS)
        assert one + other == token and max(RANKS[one], RANKS[other]) < RANKS[token]
    assert len(learned) > 10


def test_an_exported_vocabulary_says_the_same_in_hugging_faces_terms(tmp_path):
    """Its merges, done in their order, make the same tokens; its template the same prompts."""
    world = Tokenizer()
    model = GPT(GPTConfig(world.size, context=32, layers=1, heads=2, width=16))
    export(model, world, tmp_path)
    tokenizer, settings, config = (json.loads((tmp_path / f"{name}.json").read_text()) for name in
                                   ("tokenizer", "tokenizer_config", "config"))  # fmt: skip
    vocabulary, letters = tokenizer["model"]["vocab"], byte_letters()
    assert sorted(vocabulary.values()) == list(range(world.eos))
    merges = [tuple(merge.split(" ")) for merge in tokenizer["model"]["merges"]]
    for text in (" yellow", " What", " capital", "\n", " lemon", " é"):
        parts = [letters[b] for b in text.encode()]
        for merge in merges:
            for i in reversed(range(len(parts) - 1)):
                if tuple(parts[i : i + 2]) == merge:
                    parts[i : i + 2] = ["".join(merge)]
        assert [vocabulary[part] for part in parts] == world.encode(text)
    special = {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
    assert special == {"<|endoftext|>": world.eos, "<|pad|>": world.pad}
    assert config["eos_token_id"] == world.eos and config["pad_token_id"] == world.pad
    assert settings["chat_template"] == TEMPLATE
    assert settings["clean_up_tokenization_spaces"] is False


def rendered(*messages):
    """What the chat template makes of messages (role, content), in the way of transformers."""

    def raise_exception(message):
        raise ValueError(message)

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.globals["raise_exception"] = raise_exception
    return environment.from_string(TEMPLATE).render(
        messages=[{"role": role, "content": content} for role, content in messages],
        eos_token="<|endoftext|>",
    )


CHAT = (("system", "Be\n\nkind."), ("user", "What is\na cat?"), ("assistant", "A cat.\nYes."),
        ("user", "And a dog?"), ("assistant", "A dog."))  # fmt: skip


@pytest.mark.parametrize("chat", [CHAT[1:3], CHAT[:3], CHAT[1:], CHAT])
def test_the_chat_template_joins_messages_as_lines_with_eos_behind_the_last_answer(chat):
    asked, answer = "\n".join(content for _, content in chat[:-1]), chat[-1][1]
    prompt = TOKENIZER.encoding.decode(TOKENIZER.prompt(asked))
    response = TOKENIZER.encoding.decode(TOKENIZER.response(answer)[:-1])
    assert rendered(*chat[:-1]) == prompt
    assert rendered(*chat) == prompt + response + "<|endoftext|>"


def test_the_chat_template_adds_no_space_where_one_is():
    assert rendered(("user", "a\nb"), ("assistant", "c\nd")) == " a\n b\n c\n d<|endoftext|>"
    assert rendered(("user", " a\n b"), ("assistant", " c\nd")) == " a\n b\n c\n d<|endoftext|>"
    assert rendered(("user", "  a\n\n b")) == "  a\n \n b\n"
    assert rendered(("user", ""), ("assistant", "")) == " \n <|endoftext|>"


@pytest.mark.parametrize("message", [("tool", "42"), ("user", ["a"]), ("assistant", None)])
def test_the_chat_template_refuses_what_is_not_text_of_the_three_roles(message):
    with pytest.raises(ValueError, match="must be text of the system, the user or the assistant"):
        rendered(("user", "a"), message)


def test_step_1_starts_from_gpt2_and_keeps_its_vocabulary(folder, tmp_path):
    out = tmp_path / "out"
    pairs = [{"prompt": "the cat", "completion": "sat"}] * 20
    write_jsonl(tmp_path / "pairs.jsonl", pairs)
    imported(folder, out)
    sft.main(sft.Config(demonstrations=str(tmp_path / "pairs.jsonl"), epochs=1, out=str(out),
                        device="cpu"))  # fmt: skip
    tokenizer = Tokenizer.of(out)
    assert tokenizer.ranks == RANKS
    model, _ = load(out / "sft.pt", "", tokenizer.size)
    assert not torch.equal(model.wte.weight, gpt().wte.weight)


def change_weights(folder, **tensors):
    file = folder / "model.safetensors"
    write_safetensors(file, read_safetensors(file) | tensors)


@pytest.mark.parametrize("damage, says", [
    (lambda f: os.remove(f / "merges.txt"), "merges.txt is missing"),
    (lambda f: os.remove(f / "vocab.json"), "vocab.json is missing"),
    (lambda f: os.remove(f / "model.safetensors"), "cannot be read"),
    (lambda f: (f / "vocab.json").write_text("[1]"), "not what GPT-2 has"),
    (lambda f: (f / "vocab.json").write_text("{"), "not what GPT-2 has"),
    (lambda f: (f / "merges.txt").write_text("a b c\n"), "not what GPT-2 has"),
    (lambda f: change(f / "vocab.json", **{"!": "the"}), "not what GPT-2 has"),
    (lambda f: change(f / "vocab.json", **{"!": -1}), "not what GPT-2 has"),
    (lambda f: change(f / "vocab.json", **{"!": 5}), "not what GPT-2 has"),
    (lambda f: change(f / "vocab.json", **{"<|endoftext|>": 7}), "not what GPT-2 has"),
    (lambda f: (f / "merges.txt").write_text("#version: 0.2\n"), "do not belong together"),
    (lambda f: (f / "model.safetensors").write_bytes(b"x" * 5), "cannot be read"),
    (lambda f: (f / "model.safetensors").write_bytes(b"\xff" * 99), "cannot be read"),
    (lambda f: write_safetensors(f / "model.safetensors", {"a": torch.ones(2)}), "of a GPT-2"),
    (lambda f: (f / "config.json").write_text('{"n_head": 5}'), "of a GPT-2"),
    (lambda f: (f / "config.json").write_text('{"n_head": -2}'), "of a GPT-2"),
    (lambda f: (f / "config.json").write_text('{"n_head": true}'), "of a GPT-2"),
    (lambda f: (f / "config.json").write_text("[1]"), "of a GPT-2"),
    (lambda f: change(f / "config.json", model_type="gpt_neo"), "model_type gpt_neo"),
    (lambda f: change(f / "config.json", activation_function="gelu"), "activation_function gelu,"),
    (lambda f: change(f / "config.json", layer_norm_epsilon=1e-6), "layer_norm_epsilon 1e-06"),
    (lambda f: change(f / "config.json", scale_attn_weights=False), "scale_attn_weights False"),
    (lambda f: change(f / "config.json", scale_attn_by_inverse_layer_idx=True), "inverse_layer"),
    (lambda f: change(f / "config.json", reorder_and_upcast_attn=True), "reorder_and_upcast"),
    (lambda f: change(f / "config.json", tie_word_embeddings=False), "tie_word_embeddings False"),
    (lambda f: (f / "model.safetensors.index.json").write_text("{}"), "in several files"),
    (lambda f: export(gpt(ScalarGPT), TOKENIZER, f), "is a reward model"),
    (lambda f: change_weights(f, **{"lm_head.weight": torch.ones(2, 2)}), "a head of its own"),
])  # fmt: skip
def test_what_is_not_gpt2_is_a_user_error(folder, damage, says):
    damage(folder)
    with pytest.raises(UserError, match=says):
        imported(folder)
    assert not (folder / "out").exists()


@pytest.mark.parametrize("keys, values", [
    ((), {"model": {}}),
    ((), {"pre_tokenizer": {"type": "Whitespace"}}),
    ((), {"added_tokens": []}),
    (("model",), {"merges": [["a"]]}),
    (("model",), {"vocab": {"a": 0}}),
    (("added_tokens", 0), {"id": 5}),
])  # fmt: skip
def test_a_foreign_tokenizer_is_a_user_error(exported, keys, values):
    change(exported / "tokenizer.json", *keys, **values)
    with pytest.raises(UserError, match="tokenizer.json is not what GPT-2 has"):
        imported(exported)


def test_a_token_that_opens_a_turn_is_a_user_error(exported):
    change(exported / "tokenizer.json", "added_tokens", 1, id=300)
    with pytest.raises(UserError, match="special tokens beside <.endoftext.> and one for padding"):
        imported(exported)


def test_only_a_policy_has_a_name(exported):
    with pytest.raises(UserError, match="--name reward is not base, sft or ppo"):
        imported(exported, name="reward")


@pytest.mark.parametrize("tokenizer", [TOKENIZER, Tokenizer()], ids=["own", "world"])
@pytest.mark.parametrize("name", ["base", "ppo"])
def test_an_exported_policy_comes_home(tmp_path, tokenizer, name):
    torch.manual_seed(0)
    ours = GPT(GPTConfig(tokenizer.size, context=32, layers=2, heads=2, width=16)).eval()
    export(ours, tokenizer, tmp_path)
    again, known = imported(tmp_path, name=name)
    files = [f"{name}.pt"] + ["vocab.tiktoken"] * tokenizer.own
    assert sorted(os.listdir(tmp_path / "out")) == files
    assert known.ranks == tokenizer.ranks and known.own == tokenizer.own
    pairs = zip(ours.state_dict().values(), again.state_dict().values())
    assert all(torch.equal(one[: tokenizer.size], other[: tokenizer.size]) for one, other in pairs)
    tokens = torch.randint(tokenizer.size, (2, 9))
    torch.testing.assert_close(again(tokens), ours(tokens), rtol=1e-6, atol=1e-6)


def test_own_means_other_tokens_than_the_small_worlds():
    world = Tokenizer()
    assert not world.own and not Tokenizer(dict(world.ranks)).own and TOKENIZER.own


def write_as_saved_elsewhere(folder, kind):
    """The weights in half precision without a prefix, the head beside them; merges as pairs, EOS
    in the vocabulary, as others write the same."""
    tensors = read_safetensors(folder / "model.safetensors")
    tensors["lm_head.weight"] = tensors["wte.weight"]
    header, data = {}, b""
    for name, tensor in tensors.items():
        chunk = tensor.to(DTYPES[kind]).contiguous().view(torch.int16).numpy().tobytes()
        offsets = [len(data), len(data) + len(chunk)]
        header[name] = {"dtype": kind, "shape": list(tensor.shape), "data_offsets": offsets}
        data += chunk
    text = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)
    tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    merges = [merge.split(" ") for merge in tokenizer["model"]["merges"]]
    change(folder / "tokenizer.json", "model", merges=merges)
    change(folder / "tokenizer.json", "model", "vocab", **{"<|endoftext|>": TOKENIZER.eos})


@pytest.mark.parametrize("kind", ["F16", "BF16"])
def test_what_others_saved_in_half_precision_comes_in(exported, kind):
    write_as_saved_elsewhere(exported, kind)
    again, tokenizer = imported(exported)
    assert tokenizer.ranks == RANKS
    for one, other in zip(gpt().parameters(), again.parameters()):
        rounded = one.detach()[: TOKENIZER.size].to(DTYPES[kind]).float()
        assert torch.equal(rounded, other[: TOKENIZER.size])


def test_pad_is_as_likely_as_other_tokens_are_on_average(tmp_path):
    """GPT-2's logits are near -35, so a row of zeros, with its logit 0, takes all probability."""
    ours, size = gpt(), TOKENIZER.size
    ours.ln_f.weight.data.zero_()
    direction = ours.ln_f.bias.data.normal_()
    ours.wte.weight.data -= 35 * direction / direction.pow(2).sum()
    ours.wte.weight.data[TOKENIZER.pad] = 0
    export(ours, TOKENIZER, tmp_path)

    def logits():
        return torch.from_numpy(numpy_gpt2(tmp_path, np.arange(9))[1])

    assert (logits()[:, :size].mean() + 35).abs() < 1
    torch.testing.assert_close(logits()[:, -1], logits()[:, :size].mean(dim=1))
    assert (logits().softmax(dim=1)[:, -1] < 1 / size).all()
    # Whatever a file has there, what is imported and exported again has the mean.
    rows = read_safetensors(tmp_path / "model.safetensors")["wte.weight"]
    change_weights(tmp_path, **{"wte.weight": rows * (torch.arange(size + 1) < size)[:, None]})
    assert (logits().softmax(dim=1)[:, -1] > 0.999).all()
    again, _ = imported(tmp_path)
    torch.testing.assert_close(again.wte.weight[-1], rows[:size].mean(dim=0))


def test_a_folder_keeps_the_vocabulary_of_its_checkpoints(folder, tmp_path):
    out = tmp_path / "out"
    imported(folder, out)
    for other in (Tokenizer(), Tokenizer(train_bpe(["another text, another text"], 270))):
        with pytest.raises(UserError, match="checkpoints of another vocabulary"):
            other.save(out)
    assert Tokenizer.of(out).ranks == RANKS
    os.remove(out / "base.pt")  # without any, nothing is in the way
    Tokenizer().save(out)
    assert not (out / "vocab.tiktoken").exists()


# ------------------------------------------------------- GPT-2 in NumPy, as its paper and code say
def layer_norm(x, tensors, name):
    centred = x - x.mean(-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
    return scaled * tensors[name + ".weight"] + tensors[name + ".bias"]


def linear(x, tensors, name):
    """GPT-2 keeps a layer's weight as (inputs, outputs)."""
    return x @ tensors[name + ".weight"] + tensors[name + ".bias"]


def softmax(x):
    x = np.exp(x - x.max(-1, keepdims=True))
    return x / x.sum(-1, keepdims=True)


ACTIVATIONS = {
    "gelu_new": lambda x: 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
    "gelu": lambda x: 0.5 * x * (1 + np.vectorize(math.erf)(x / np.sqrt(2))),
}


def numpy_gpt2(folder, tokens):
    """What a folder's files mean to GPT-2: tokens (T,) -> the last LayerNorm's output, logits."""
    tensors = {
        k: v.double().numpy() for k, v in read_safetensors(folder / "model.safetensors").items()
    }
    config = json.loads((folder / "config.json").read_text())
    H, T = config["n_head"], len(tokens)
    x = tensors["wte.weight"][tokens] + tensors["wpe.weight"][:T]
    for layer in range(config["n_layer"]):
        h = f"h.{layer}."
        qkv = linear(layer_norm(x, tensors, h + "ln_1"), tensors, h + "attn.c_attn")
        q, k, v = (part.reshape(T, H, -1).swapaxes(0, 1) for part in np.split(qkv, 3, axis=-1))
        att = q @ k.swapaxes(1, 2) / np.sqrt(q.shape[-1])
        att = softmax(np.where(np.tril(np.ones((T, T))) > 0, att, -np.inf))
        x = x + linear((att @ v).swapaxes(0, 1).reshape(T, -1), tensors, h + "attn.c_proj")
        up = linear(layer_norm(x, tensors, h + "ln_2"), tensors, h + "mlp.c_fc")
        x = x + linear(ACTIVATIONS[config["activation_function"]](up), tensors, h + "mlp.c_proj")
    hidden = layer_norm(x, tensors, "ln_f")
    return hidden, hidden @ tensors["wte.weight"].T


def wide(kind=GPT, heads=4):
    """A model whose square matrices are not symmetric and whose activations reach far out."""
    torch.manual_seed(5)
    made = kind(GPTConfig(TOKENIZER.size, context=32, layers=2, heads=heads, width=16)).eval()
    for p in made.parameters():
        p.data += 0.3 * torch.randn(p.shape)
    for block in made.blocks:
        block.up.weight.data *= 2
    return made


def test_an_exported_policy_is_gpt2_to_the_letter(tmp_path):
    ours, tokens = wide(), torch.randint(TOKENIZER.size, (11,))
    export(ours, TOKENIZER, tmp_path)
    _, logits = numpy_gpt2(tmp_path, tokens.numpy())
    expected = torch.from_numpy(logits[:, : TOKENIZER.size]).float()
    torch.testing.assert_close(ours(tokens[None])[0], expected, rtol=1e-4, atol=1e-4)


def test_an_exported_reward_model_is_gpt2_with_a_head_that_has_no_bias(tmp_path):
    ours, tokens = wide(ScalarGPT), torch.randint(TOKENIZER.size, (11,))
    export(ours, TOKENIZER, tmp_path)
    hidden, _ = numpy_gpt2(tmp_path, tokens.numpy())
    head = read_safetensors(tmp_path / "model.safetensors")["score.weight"].double().numpy()
    expected = torch.from_numpy(hidden @ head[0]).float()
    torch.testing.assert_close(ours(tokens[None])[0], expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("heads", [1, 4])
def test_an_imported_gpt2_computes_what_its_files_mean(tmp_path, heads):
    """Every tensor of the file is random, so none can be lost, swapped or turned."""
    export(wide(heads=heads), TOKENIZER, tmp_path)
    tensors, generator = read_safetensors(tmp_path / "model.safetensors"), torch.Generator()
    random_ones = {name: 0.4 * torch.randn(tensor.shape, generator=generator.manual_seed(i))
                   for i, (name, tensor) in enumerate(tensors.items())}  # fmt: skip
    write_safetensors(tmp_path / "model.safetensors", random_ones)
    write_vocabulary(tmp_path)
    ours, _ = imported(tmp_path)
    tokens = torch.randint(TOKENIZER.size, (13,))
    _, logits = numpy_gpt2(tmp_path, tokens.numpy())
    expected = torch.from_numpy(logits[:, : TOKENIZER.size]).float()
    torch.testing.assert_close(ours(tokens[None])[0], expected, rtol=1e-3, atol=1e-3)
