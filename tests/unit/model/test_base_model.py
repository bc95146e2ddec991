"""A base is frozen, knows its sites and itself."""

import dataclasses

import pytest
import torch

from lorary.errors import AdapterError, LoraryError, ModelError
from lorary.library.base_names import shared_name
from lorary.model.base.base_model import load_base
from lorary.testing.pico import ARCHITECTURES, pico_base

LLAMA = {"q_proj": (32, 32), "k_proj": (32, 32), "v_proj": (32, 32), "o_proj": (32, 32)}
GROUPED = LLAMA | {"k_proj": (32, 16), "v_proj": (32, 16)}
ATTENTION = {
    "llama": LLAMA, "llama_gqa": GROUPED, "mistral": GROUPED, "gemma2": GROUPED,
    "qwen2": GROUPED, "qwen3": GROUPED,
    "phi": {"q_proj": (32, 32), "k_proj": (32, 32), "v_proj": (32, 32), "dense": (32, 32)},
    "gpt2": {"c_attn": (32, 96), "c_proj": (32, 32)},
}  # fmt: skip


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_attention_means_its_linear_layers_and_widths_are_theirs(architecture):
    base = pico_base(architecture)
    found = base.target_sites(["attention"])
    for layer in ("0", "1"):
        here = {s.name.rpartition(".")[2]: (s.d_in, s.d_out) for s in found if f".{layer}." in s.name}
        assert here == ATTENTION[architecture]
    assert len(found) == 2 * len(ATTENTION[architecture])
    assert not any("head" in name or "embed" in name for name in base.sites)


def test_targets_are_last_parts_of_paths():
    base = pico_base()
    assert [s.name for s in base.target_sites(["down_proj", "layers.1.self_attn.v_proj"])] == [
        "model.layers.0.mlp.down_proj", "model.layers.1.self_attn.v_proj", "model.layers.1.mlp.down_proj",
    ]  # fmt: skip
    with pytest.raises(AdapterError) as caught:
        base.target_sites(["q_proj", "proj"])
    assert str(caught.value) == (
        "error[E-TARGET] 'proj' names no linear layer of the base. Did you mean 'v_proj'? Known: attention, "
        "all-linear, down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj."
    )


def test_it_is_frozen_and_greedy():
    base = pico_base()
    assert not any(p.requires_grad for p in base.hf.parameters())
    assert not base.hf.training
    assert (base.hf.generation_config.eos_token_id, base.hf.generation_config.pad_token_id) == (1, 0)
    assert base.max_tokens == 256


def test_the_fingerprint_knows_weights_and_not_their_precision():
    base = pico_base()
    assert dataclasses.replace(base).fingerprint == base.fingerprint
    assert pico_base().fingerprint == base.fingerprint == pico_base(dtype=torch.bfloat16).fingerprint
    assert pico_base(seed=1).fingerprint["weights"] != base.fingerprint["weights"]
    assert pico_base("llama_gqa").fingerprint != base.fingerprint
    exact = {key: base.fingerprint[key] for key in base.fingerprint if key != "embedding_signs"}
    assert base.identity["base"] == exact
    assert base.identity["dtype"] == "float32"


def test_the_identity_knows_how_texts_are_read():
    base, seen = pico_base(), []
    for change in (
        lambda: None,
        lambda: setattr(base.tokenizer, "chat_template", "{% for m in messages %}A{{ m.content }}{% endfor %}"),
        lambda: setattr(base.tokenizer, "chat_template", "{% for m in messages %}B{{ m.content }}{% endfor %}"),
        lambda: setattr(base, "max_tokens", 100),
        lambda: base.tokenizer.add_tokens(["<new>"]),
    ):
        change()
        assert base.identity not in seen
        assert base.identity["dtype"] == "float32"
        seen.append(base.identity)
        base.tokenizer(["a", "bcd"], padding=True, truncation=True, max_length=2)  # leaves its marks in the tokenizer
        assert base.identity == seen[-1]


def test_a_saved_base_loads_as_itself(tmp_path):
    base = pico_base()
    base.hf.save_pretrained(tmp_path)
    base.tokenizer.save_pretrained(tmp_path)
    loaded = load_base(str(tmp_path), device="cpu", dtype="float32")
    assert loaded.fingerprint == base.fingerprint
    assert (loaded.name, loaded.directory) == (shared_name(str(tmp_path)), tmp_path)
    ids = torch.tensor([[5, 6, 7]])
    assert torch.equal(loaded.hf(ids).logits, base.hf(ids).logits)
    assert loaded.tokenizer("héllo")["input_ids"] == base.tokenizer("héllo")["input_ids"]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("./nowhere", {}, "error[E-BASE] there is no directory './nowhere'. Known without network: 'smollm2-135m'."),
        ("a/b/c", {}, "error[E-BASE] there is no directory 'a/b/c'. Known without network: 'smollm2-135m'."),
        ("x", {"dtype": "int8"}, "error[E-OPTION] dtype 'int8' is unknown. Known: auto, float32, bfloat16, float16."),
    ],
)
def test_what_can_t_be_loaded_is_said_at_once(name, options, message):
    with pytest.raises(LoraryError) as caught:
        load_base(name, **options)
    assert str(caught.value) == message


def test_a_directory_without_a_model_is_refused(tmp_path):
    with pytest.raises(ModelError) as caught:
        load_base(str(tmp_path))
    assert str(caught.value) == (
        f"error[E-BASE] base {str(tmp_path)!r} is no model: its directory has no config.json. Save the base again, "
        "whole: weights, config.json and tokenizer by the same program."
    )


def test_an_unknown_device_is_refused():
    with pytest.raises(ModelError, match=r"^error\[E-DEVICE\] device 'cuda:99' can't be used: "):
        load_base("x", device="cuda:99")
