"""A base is whole, causal and has a tokenizer that fits, or it isn't loaded."""

import json
import logging

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertLMHeadModel, LlamaConfig, LlamaForCausalLM, MptConfig, MptForCausalLM

from lorary.errors import ModelError
from lorary.model.base.base_model import load_base
from lorary.tasks.example import Example
from lorary.testing.pico import ARCHITECTURES, pico_base, pico_tokenizer

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 258}


@pytest.fixture(autouse=True)
def quiet(caplog):
    """Transformers reports at length what the refusals say in a line."""
    caplog.set_level(logging.CRITICAL, "transformers")


def change_tensors(directory, change):
    path = directory / "model.safetensors"
    tensors = load_file(path)
    save_file(change(tensors), path, metadata={"format": "pt"})


def change_json(path, **values):
    fields = json.loads(path.read_text(encoding="utf-8")) | values
    path.write_text(json.dumps({k: v for k, v in fields.items() if v is not ...}), encoding="utf-8")


def without(ending):
    return lambda d: change_tensors(d, lambda t: {name: v for name, v in t.items() if not name.endswith(ending)})


def add_token(directory):
    tokenizer = pico_tokenizer()
    tokenizer.add_tokens(["<new>"])
    tokenizer.save_pretrained(directory)


def without_end(directory):
    change_json(directory / "tokenizer_config.json", eos_token=...)
    (directory / "special_tokens_map.json").unlink(missing_ok=True)


def bidirectional(directory):
    BertLMHeadModel(BertConfig(intermediate_size=64, **SIZES)).save_pretrained(directory)


def cut(directory):
    path = directory / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


SPOILT = {
    "a tensor is missing": (without("layers.1.self_attn.q_proj.weight"), "lacks 'model.layers.1.self_attn.q_proj.weig"),
    "the head is missing": (without("lm_head.weight"), "lacks 'lm_head.weight', which would be random"),
    "all names have a prefix": (
        lambda d: change_tensors(d, lambda t: {f"module.{name}": v for name, v in t.items()}),
        "it holds 'module.lm_head.weight', ",
    ),
    "the config has more layers": (lambda d: change_json(d / "config.json", num_hidden_layers=3), "lacks 'model."),
    "the config has fewer layers": (
        lambda d: change_json(d / "config.json", num_hidden_layers=1), "holds 'model.layers.1.input_layernorm.weight'",
    ),
    "the config has other sizes": (
        lambda d: change_json(d / "config.json", intermediate_size=128),
        "has other sizes than its config.json, at 'model.layers.0.mlp.down_proj.weight', ",
    ),
    "the config has nonsense": (
        lambda d: change_json(d / "config.json", hidden_size="x"), "'hidden_size': TypeError: Field 'hidden_size' ",
    ),
    "the file is cut": (cut, "can't be loaded: Error while deserializing header: "),
    "the file is junk": (lambda d: (d / "model.safetensors").write_bytes(b"junk" * 99), "can't be loaded: "),
    "the tokenizer is junk": (
        lambda d: (d / "tokenizer.json").write_text('{"junk": 1}'), r"can't be loaded: KeyError 'added_tokens'.",
    ),
    "there is no end of sequence": (without_end, "its tokenizer has no end of sequence"),
    "a token has no embedding": (add_token, "token '<new>' has number 258, the embedding has 258 rows."),
    "it reads both ways": (bidirectional, "BertLMHeadModel is no causal language model"),
}  # fmt: skip


@pytest.mark.parametrize("what", SPOILT)
def test_a_base_that_is_not_whole_is_refused(what, tmp_path):
    spoil, message = SPOILT[what]
    pico_base().write(tmp_path)
    spoil(tmp_path)
    with pytest.raises(ModelError) as caught:
        load_base(str(tmp_path), device="cpu", dtype="float32")
    assert caught.value.code == "E-BASE"
    assert str(tmp_path) in str(caught.value)
    assert message in str(caught.value)


def test_a_tensor_that_nobody_uses_is_left_out(tmp_path):
    base = pico_base()
    base.write(tmp_path)
    change_tensors(tmp_path, lambda tensors: tensors | {"score.weight": torch.zeros(2, 32)})
    with pytest.warns(RuntimeWarning, match=r"holds 'score\.weight', which LlamaForCausalLM has no use for"):
        assert load_base(str(tmp_path), device="cpu", dtype="float32").fingerprint == base.fingerprint


def test_a_padding_token_without_embedding_is_never_read(tmp_path):
    pico_base().write(tmp_path)
    tokenizer = pico_tokenizer()
    tokenizer.add_special_tokens({"pad_token": "<new>"})
    tokenizer.save_pretrained(tmp_path)
    base = load_base(str(tmp_path), device="cpu", dtype="float32")
    assert base.tokenizer.pad_token_id == 258
    texts = base.generate_text([Example("one", ""), Example("another one", "")], max_new_tokens=40)
    assert len(texts) == 2
    assert base.hf.generation_config.pad_token_id == base.tokenizer.eos_token_id


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_whole_one_of_any_family_is_taken(architecture, tmp_path):
    base = pico_base(architecture)
    base.write(tmp_path)
    assert load_base(str(tmp_path), device="cpu", dtype="float32").fingerprint == base.fingerprint


@pytest.mark.parametrize(
    "make",
    [
        lambda: LlamaForCausalLM(LlamaConfig(intermediate_size=64, tie_word_embeddings=True, **SIZES)),
        lambda: BertLMHeadModel(BertConfig(intermediate_size=64, is_decoder=True, **SIZES)),
        lambda: MptForCausalLM(MptConfig(d_model=32, n_heads=4, n_layers=2, vocab_size=258)),
    ],
    ids=["a head that is the embedding", "BERT as a decoder", "blocks that don't tell whether they are causal"],
)
def test_what_looks_unusual_and_is_whole_is_taken(make, tmp_path):
    hf = make().eval()
    hf.save_pretrained(tmp_path)
    pico_tokenizer().save_pretrained(tmp_path)
    ids = torch.tensor([[5, 6, 7]])
    loaded = load_base(str(tmp_path), device="cpu", dtype="float32")
    with torch.inference_mode():
        assert torch.equal(loaded.hf(input_ids=ids).logits, hf(input_ids=ids).logits)
