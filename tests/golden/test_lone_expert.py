"""A lone expert under lorary is the expert under PEFT, whatever its options and the base."""

import itertools

import pytest
import torch
from golden_peft import (
    ATTENTION,
    answer,
    assert_same,
    ids,
    library_of,
    make_adapter,
    peft_answer,
    peft_open,
    routed_answer,
)
from peft import EvaConfig, LoraGAConfig
from safetensors.torch import load_file, save_file

import lorary as lo
from lorary.errors import AdapterError
from lorary.library.library import Library
from lorary.testing.pico import ARCHITECTURES, pico_base, random_library

OPTIONS = {
    "lora": {},
    "rslora": {"use_rslora": True},
    "one_rank_more": {"rank_pattern": {"v_proj": 2}},
    "rank_of_a_layer": {"rank_pattern": {"layers.1.self_attn.q_proj": 3, "o_proj": 1}},
    "alpha_pattern": {"alpha_pattern": {"q_proj": 32}},
    "rank_and_alpha_pattern_rslora": {
        "rank_pattern": {"v_proj": 2}, "alpha_pattern": {"v_proj": 5, "layers.0.self_attn.k_proj": 3},
        "use_rslora": True,
    },
    "one_layer": {"layers_to_transform": [1]},
    "layers_pattern": {"layers_to_transform": 0, "layers_pattern": "layers"},
    "few_targets": {"target_modules": ["v_proj", "down_proj"]},
    "all_linear": {"target_modules": "all-linear"},
    "pattern_of_targets": {"target_modules": r".*layers\.1.*\.(q|v)_proj"},
    "dropout": {"lora_dropout": 0.5},
    "gaussian": {"init_lora_weights": "gaussian"},
    "orthogonal": {"init_lora_weights": "orthogonal"},
    "eva": {"init_lora_weights": "eva", "eva_config": EvaConfig()},
    "mica": {"init_lora_weights": "mica"},
    "lora_ga": {"init_lora_weights": "lora_ga", "lora_ga_config": LoraGAConfig()},
}  # fmt: skip


@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_of_peft(name, base, tmp_path):
    trained = make_adapter(tmp_path / "adapter", **OPTIONS[name], inference_mode=True)
    library = library_of(tmp_path / "lib", base, {"poems": tmp_path / "adapter"})
    opened = peft_answer("llama", tmp_path / "adapter")
    if name != "dropout":
        assert torch.equal(trained, opened)
    assert (opened - answer(base.hf)).abs().max() > 0.1
    assert_same(routed_answer(base, library), opened)


@pytest.mark.parametrize(
    "respell",
    [
        lambda key: key.removeprefix("base_model.model."),
        lambda key: "module._orig_mod." + key.replace("layers.1.", "layers.1._fsdp_wrapped_module."),
        lambda key: key.replace(".weight", ".poems.weight"),
    ],
    ids=["without prefix", "wrapped", "named"],
)
def test_what_peft_would_not_find_is_read_and_kept_as_peft_has_it(respell, base, tmp_path):
    expected = make_adapter(tmp_path / "odd")
    file = tmp_path / "odd" / "adapter_model.safetensors"
    save_file({respell(key): tensor for key, tensor in load_file(file).items()}, file)
    with pytest.raises(UserWarning, match="missing adapter keys"):
        peft_answer("llama", tmp_path / "odd")
    library = library_of(tmp_path / "lib", base, {"poems": tmp_path / "odd"})
    assert_same(routed_answer(base, library), expected)
    assert_same(peft_answer("llama", library["poems"].directory), expected)
    Library.open(tmp_path)["odd"].copy_to(tmp_path / "copies" / "odd")
    assert_same(peft_answer("llama", tmp_path / "copies" / "odd"), expected)


def test_a_model_of_respelt_experts_is_saved(base, tmp_path):
    make_adapter(tmp_path / "pile" / "odd")
    file = tmp_path / "pile" / "odd" / "adapter_model.safetensors"
    save_file({"_orig_mod." + key: tensor for key, tensor in load_file(file).items()}, file)
    with lo.route(base, Library.open(tmp_path / "pile"), "arrow") as model:
        expected = answer(model)
        model.save(tmp_path / "saved")
    with lo.load(tmp_path / "saved", base=base) as model:
        assert torch.equal(answer(model), expected)
    assert_same(peft_answer("llama", tmp_path / "saved" / "experts" / "odd"), expected)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture(architecture, tmp_path):
    base = pico_base(architecture)
    options = {"fan_in_fan_out": True} if architecture == "gpt2" else {}
    make_adapter(tmp_path / "adapter", architecture, **options)
    library = library_of(tmp_path / "lib", base, {"poems": tmp_path / "adapter"})
    expected = peft_answer(architecture, tmp_path / "adapter")
    for router in ("uniform", "arrow"):
        for mix in ("outputs", "factors"):
            assert_same(routed_answer(base, library, router, mix=mix), expected)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_peft_opens_what_lorary_wrote(architecture, tmp_path):
    base = pico_base(architecture)
    library = random_library(tmp_path / "lib", base, 2, ranks=[4, 3], targets=["attention", base_mlp(base)])
    for name in library:
        lone = Library.create(tmp_path / name, base=base.fingerprint)
        lone.add(library[name].directory, name)
        expected = peft_answer(architecture, library.path, subfolder=f"experts/{name}")
        assert_same(routed_answer(base, lone), expected)
        copied = library[name].copy_to(tmp_path / "copies" / name)
        assert torch.equal(peft_answer(architecture, copied), expected)


def base_mlp(base):
    return next(name.rpartition(".")[2] for name in base.sites if "mlp" in name)


def test_a_library_of_strangers_opens_where_it_is(base, tmp_path):
    make_adapter(tmp_path / "hub" / "one")
    assert_same(routed_answer(base, Library.open(tmp_path / "hub")), peft_answer("llama", tmp_path / "hub" / "one"))


@pytest.mark.parametrize("init", ["pissa", "pissa_niter_4", "olora"])
def test_what_changes_the_base_is_refused_until_peft_has_converted_it(init, base, tmp_path):
    """Under PEFT it speaks on a base without what it began with; converted, it is plain LoRA of twice the rank."""
    raw = tmp_path / "hub" / "raw"
    expected = make_adapter(raw, init_lora_weights=init)
    library = Library.create(tmp_path / "lib", base=base.fingerprint)
    for refused in (lambda: library.add(raw, "raw"), lambda: Library.open(tmp_path / "hub")):
        with pytest.raises(
            AdapterError, match=rf"^error\[E-FEATURE\] expert 'raw': init_lora_weights='{init}' \(\w+\) "
        ):
            refused()
    config = raw / "adapter_config.json"
    config.write_text(config.read_text().replace(f'"{init}"', "true"))
    assert (routed_answer(base, Library.open(tmp_path / "hub")) - expected).abs().max() > 1, "what would come of it"

    trained = make_adapter(tmp_path / "adapter", init_lora_weights=init, initial=tmp_path / "initial")
    library.add(tmp_path / "adapter", "poems")
    assert library["poems"].rank == 8
    before = pico_base().hf.state_dict()
    model = peft_open("llama", library.path, subfolder="experts/poems")
    after = {n.replace(".base_layer", ""): t for n, t in model.get_base_model().state_dict().items()}
    assert all(torch.equal(after[name], t) for name, t in before.items())
    assert_same(answer(model), trained, atol=1e-4)  # the base is taken apart and put together again
    assert_same(routed_answer(base, library), answer(model))


REFUSED = {
    "dora": ({"use_dora": True}, "E-FEATURE", "use_dora (DoRA) can't be mixed with other experts."),
    "bias": ({"bias": "all"}, "E-FEATURE", "bias='all' changes the base; expected 'none'."),
    "lora_bias": ({"lora_bias": True}, "E-FEATURE", "lora_bias"),
    "modules_to_save": ({"modules_to_save": ["lm_head"]}, "E-FEATURE", "modules_to_save"),
    "trainable_tokens": ({"trainable_token_indices": [5]}, "E-FEATURE", "trainable_token_indices"),
    "embedding": ({"target_modules": ["q_proj", "embed_tokens"]}, "E-FEATURE", "LoRA on an embedding can't be routed"),
    "head": ({"target_modules": ["q_proj", "lm_head"]}, "E-FEATURE", "LoRA on the head of the base can't be routed"),
    "layer_replication": ({"layer_replication": [[0, 2], [1, 2]]}, "E-FEATURE", "layer_replication"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_features_that_can_t_be_mixed_are_refused_by_name(name, base, tmp_path):
    options, code, words = REFUSED[name]
    make_adapter(tmp_path / "adapter", **options)
    library = Library.create(tmp_path / "lib", base=base.fingerprint)
    with pytest.raises(AdapterError) as caught:
        library.add(tmp_path / "adapter", "poems")
    assert caught.value.code == code
    assert str(caught.value).startswith(f"error[{code}] expert 'poems': {words}")
    reasons = ("can't be mixed with other experts", "can't be routed", "changes the base")
    assert any(reason in str(caught.value) for reason in reasons)
    assert not library


def test_the_bases_differ_so_the_tests_can_fail():
    answers = [answer(pico_base(name).hf) for name in ARCHITECTURES]
    assert all((a - b).abs().max() > 0.1 for a, b in itertools.pairwise(answers))
    assert ids().max() > 200
    assert set(ATTENTION) < set(ARCHITECTURES)
