"""A base as users have it: loaded already, spread over devices, with attention of their choice; or no base at all."""

import json
import shutil

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import T5Config, T5ForConditionalGeneration, T5Model

import lorary as lo
from lorary.errors import LoraryError
from lorary.library.base_names import shared_name
from lorary.model.base.base_model import load_base
from lorary.testing.families import pico_family_hf
from lorary.testing.pico import pico_base, pico_tokenizer, random_library

IDS = torch.arange(2, 22).view(2, 10)


@pytest.fixture
def directory(base, tmp_path):
    base.write(tmp_path / "pico")
    return tmp_path / "pico"


def logits(base):
    with torch.inference_mode():
        return base.hf(input_ids=IDS).logits


# ---- loaded already -----------------------------------------------------------------------------


def test_a_model_that_is_loaded_is_taken_as_it_is(base, tmp_path):
    hf = pico_base().hf.train()
    taken = load_base(hf, tokenizer=pico_tokenizer(), max_tokens=64)
    assert taken.hf is hf and not hf.training and (taken.name, taken.max_tokens) == ("LlamaForCausalLM", 64)
    assert taken.fingerprint == base.fingerprint and taken.sites == base.sites
    library = random_library(tmp_path / "lib", base, 2)
    with lo.route(taken, library, "arrow") as model:
        assert not torch.equal(model(IDS).logits, logits(base))


def test_one_that_came_from_a_directory_has_its_tokenizer_there(directory):
    hf = load_base(str(directory), device="cpu", dtype="float32").hf
    taken = load_base(hf)
    assert (taken.name, taken.directory) == (shared_name(str(directory)), directory)
    assert taken.tokenizer("ab").input_ids == pico_tokenizer()("ab").input_ids


REFUSED = {
    "no model": (lambda: 3, {}, "E-OPTION] name is 3, expected a name, a directory, or a model of transformers."),
    "a module": (lambda: torch.nn.Linear(2, 2), {}, "E-OPTION] the base is a Linear, no model of transformers."),
    "PEFT's": (
        lambda: get_peft_model(pico_base().hf, LoraConfig(target_modules=["q_proj"])), {},
        "E-BASE] the model given, a PeftModel, carries an adapter of PEFT. Give the model alone: peft_model.unload().",
    ),
    "not causal": (
        lambda: T5ForConditionalGeneration(T5Config(d_model=32, d_kv=8, d_ff=64, num_layers=1, num_heads=4)), {},
        "E-BASE] base 'T5ForConditionalGeneration': T5ForConditionalGeneration is no causal language model",
    ),
    "no head": (lambda: pico_base().hf.model, {}, "E-BASE] base 'LlamaModel': LlamaModel is no causal language model"),
    "no tokenizer": (lambda: pico_base().hf, {}, "E-OPTION] a model without its tokenizer. Write load_base(model, tok"),
    "a device": (
        lambda: pico_base().hf, {"device": "cpu", "tokenizer": pico_tokenizer()},
        "E-OPTION] device=... beside a model that is loaded. Load it so yourself.",
    ),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated")
@pytest.mark.parametrize("what", REFUSED)
def test_what_can_be_no_base_is_refused(what):
    make, options, message = REFUSED[what]
    with pytest.raises(LoraryError) as caught:
        load_base(make(), **options)
    assert str(caught.value).startswith(f"error[{message}")


# ---- where and how it computes ------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("device_map", ["auto", {"": "cpu"}])
def test_a_base_may_be_placed_by_a_map(device_map, base, directory, tmp_path):
    placed = load_base(str(directory), dtype="float32", device_map=device_map)
    assert torch.equal(logits(placed), logits(base))
    library = random_library(tmp_path / "lib", base, 2)
    with lo.route(base, library) as model:
        expected = model(IDS).logits
    with lo.route(placed, library) as model:
        assert torch.equal(model(IDS).logits, expected)


def test_experts_are_where_their_layer_is_and_train_on_one_device_only(base, toy, toy_library, tmp_path):
    from lorary.model.ensemble.ensemble import make_part

    spread = pico_base()
    library = random_library(tmp_path / "lib", spread, 2)
    ensemble = lo.route(spread, library, "arrow")
    parts, facts = ensemble._attachment.parts, ensemble._ensemble
    ensemble.detach()
    assert spread.calls.hides_padding
    spread.hf.model.layers[1].to("meta")  # stands for another device: nothing is computed there
    for site in parts:
        bank, gate = make_part(spread, facts, spread.sites[site])
        device = torch.device("meta" if ".layers.1." in site else "cpu")
        assert spread.device_of(site) == bank.a.device == gate.vectors.device == device
    with pytest.raises(
        LoraryError, match=r"E-DEVICE\] the base is spread over cpu, meta, where experts are routed, but"
    ):
        lo.Private().check_base(spread)


def test_attention_is_computed_as_the_user_says(directory):
    for name in ("eager", "sdpa"):
        assert load_base(str(directory), device="cpu", attention=name).hf.config._attn_implementation == name
    with pytest.raises(LoraryError, match=r"^error\[E-OPTION\] attention='eger' is unknown. Did you mean 'eager'\?"):
        load_base(str(directory), attention="eger")
    with pytest.raises(LoraryError, match="E-CODE"):
        load_base(str(directory), attention="someone/kernels")
    with pytest.raises(LoraryError, match="E-OPTION"):
        load_base(str(directory), device="cpu", device_map="auto")


def test_a_tokenizer_may_come_from_elsewhere(directory, tmp_path):
    (tmp_path / "tokenizer").mkdir()
    for path in directory.glob("*token*"):
        shutil.move(path, tmp_path / "tokenizer")
    with pytest.raises(LoraryError) as caught:
        load_base(str(directory), device="cpu")
    assert str(caught.value).endswith(
        "Save its tokenizer beside it, tokenizer.save_pretrained(directory), or give one: load_base(..., tokenizer=...)"
        "."
    )
    assert load_base(str(directory), device="cpu", tokenizer=tmp_path / "tokenizer").tokenizer.eos_token_id == 1


# ---- no base ------------------------------------------------------------------------------------


def without_weights(directory):
    (directory / "model.safetensors").unlink()


def an_adapter(directory):
    shutil.rmtree(directory)
    directory.mkdir()
    (directory / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "org/base"}))


def an_encoder(directory):
    T5Model(T5Config(d_model=32, d_kv=8, d_ff=64, num_layers=1, num_heads=4, vocab_size=258)).save_pretrained(directory)


def of_tomorrow(directory):
    path = directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model_type": "tomorrow"}))


WAYS_OUT = {
    "no weights": (without_weights, "whole: weights, config.json and tokenizer by the same program"),
    "an adapter": (an_adapter, "(`lorary add`). Give the model it was trained on, 'org/base'"),
    "an encoder": (an_encoder, "a causal language model; docs/reference/families.md names families that were tried"),
    "a family to come": (of_tomorrow, "Update transformers, or give a base whose architecture it has"),
}


@pytest.mark.slow
@pytest.mark.parametrize("what", WAYS_OUT)
def test_the_way_out_is_that_of_the_fault(what, directory):
    spoil, hint = WAYS_OUT[what]
    spoil(directory)
    with pytest.raises(LoraryError) as caught:
        load_base(str(directory), device="cpu")
    assert str(caught.value).endswith(f"{hint}.")


def test_a_base_of_the_hub_that_can_t_be_fetched(monkeypatch):
    from lorary.library import sync

    monkeypatch.setattr(sync, "reach_hub", lambda name: None)
    with pytest.raises(LoraryError) as caught:
        load_base("some-org/some-base")
    assert str(caught.value).endswith("Fetch it while the Hub can be reached, or give a directory that holds it.")


def test_a_multimodal_base_is_opened_by_its_directory(tmp_path):
    pico_family_hf("gemma3").save_pretrained(tmp_path)
    pico_tokenizer().save_pretrained(tmp_path)
    assert load_base(str(tmp_path), device="cpu", dtype="float32").max_tokens == 256
