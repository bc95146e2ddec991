"""Tensors by whatever name: read by one rule, copied under PEFT's names, or refused with the reason that is true."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from library_pico import BASE, SITES, D, tensors, write_adapter
from safetensors.numpy import load_file, save_file

from lorary.errors import LibraryError
from lorary.hashing import hash_file
from lorary.library.adapter.check import check
from lorary.library.adapter.header import open_tensors, read_header
from lorary.library.adapter.provenance import Provenance
from lorary.library.adapter.site_keys import PREFIX, parse_key, peft_key, site_tensors
from lorary.library.library import Library

PATH = "model.layers.0.self_attn.q_proj"
SPELLINGS = {
    "without prefix": lambda key: key.removeprefix(PREFIX),
    "compiled": lambda key: "_orig_mod." + key,
    "compiled inside": lambda key: key.replace(PREFIX, PREFIX + "_orig_mod."),
    "data parallel": lambda key: "module." + key,
    "data parallel inside": lambda key: key.replace(PREFIX, PREFIX + "module."),
    "compiled, data parallel": lambda key: "module._orig_mod." + key,
    "without prefix, data parallel": lambda key: "module." + key.removeprefix(PREFIX),
    "fsdp": lambda key: "_fsdp_wrapped_module." + key.replace("layers.0.", "layers.0._fsdp_wrapped_module."),
    "fsdp inside": lambda key: key.replace(PREFIX, PREFIX + "_fsdp_wrapped_module."),
    "checkpointed": lambda key: key.replace("self_attn.", "_checkpoint_wrapped_module.self_attn."),
    "inside of a program": lambda key: "model." + key,
    "default": lambda key: key.replace(".weight", ".default.weight"),
    "named": lambda key: key.replace(".weight", ".my-poems.weight"),
    "all at once": lambda key: "module._orig_mod." + key.replace(".weight", ".default.weight"),
}


def respelt(name, directory, **config):
    return write_adapter(directory, {SPELLINGS[name](key): value for key, value in tensors().items()}, **config)


@pytest.mark.parametrize("name", SPELLINGS)
def test_every_spelling_is_read_as_what_it_stands_for(name, tmp_path):
    odd = respelt(name, tmp_path / "odd")
    (finding,) = check(odd, base=BASE)
    assert (finding.code, finding.level) == ("W-KEYS", "warning")
    assert finding.message.startswith("8 of 8 tensors have names by which PEFT would not find them")
    assert tuple(site_tensors(read_header(odd / "adapter_model.safetensors"))) == SITES


@pytest.mark.parametrize("name", SPELLINGS)
def test_copies_have_the_names_of_peft(name, tmp_path):
    odd = respelt(name, tmp_path / "pile" / "odd")
    expert = Library.create(tmp_path / "lib").add(odd, "poems")
    assert expert.hash == expert.copied_hash == Library.open(tmp_path / "pile")["odd"].copied_hash
    assert expert.hash != Library.open(tmp_path / "pile")["odd"].hash
    for copy in (expert.directory, Library.open(tmp_path / "pile")["odd"].copy_to(tmp_path / "copy")):
        found = load_file(copy / "adapter_model.safetensors")
        assert found.keys() == tensors().keys()
        assert all(np.array_equal(found[key], value) for key, value in tensors().items())
        assert check(copy, base=BASE) == []
    assert Library.open(tmp_path / "lib")["poems"].hash == expert.hash
    assert expert.provenance.weights_sha256 == hash_file(expert.weights_path)


def test_a_copy_is_what_was_promised_of_its_source(tmp_path):
    odd = respelt("default", tmp_path / "odd")
    promised = Provenance(tasks=("rhyme",), weights_sha256=hash_file(odd / "adapter_model.safetensors"))
    (odd / "expert.json").write_bytes(promised.to_json())
    library = Library.create(tmp_path / "lib")
    for expert in (library.add(odd, "kept"), library.add(odd, "given", provenance=promised)):
        assert expert.provenance.weights_sha256 == hash_file(expert.weights_path) != promised.weights_sha256
        assert expert.provenance.tasks == ("rhyme",)
    save_file({key: -value for key, value in load_file(odd / "adapter_model.safetensors").items()},
              odd / "adapter_model.safetensors")  # fmt: skip
    with pytest.raises(LibraryError, match=r"^error\[E-FILE\] expert 'odd': adapter_model.safetensors has changed"):
        library.add(odd, "later")


def test_of_other_files_no_byte_changes(tmp_path):
    source = write_adapter(tmp_path / "poems")
    expert = Library.create(tmp_path / "lib").add(source, "poems")
    assert expert.weights_path.read_bytes() == (source / "adapter_model.safetensors").read_bytes()


def test_renaming_keeps_bytes_dtypes_and_metadata(tmp_path):
    path = tmp_path / "x.safetensors"
    arrays = {"b": np.arange(3, dtype=np.float16), "a": np.arange(4, dtype=np.float32).reshape(2, 2)}
    save_file(arrays, path, metadata={"format": "pt"})
    with open_tensors(path) as tensors:
        path.write_bytes(b"".join(list(tensors.blocks({"b": "a longer name"}))))
    assert json.loads(path.read_bytes()[8:].split(b"}}")[0] + b"}}")["__metadata__"] == {"format": "pt"}
    found = load_file(path)
    assert found.keys() == {"a", "a longer name"} and found["a longer name"].dtype == np.float16
    assert np.array_equal(found["a"], arrays["a"]) and np.array_equal(found["a longer name"], arrays["b"])


def test_several_adapters_in_one_file_are_told_as_that(tmp_path):
    arrays = {
        key.replace(".weight", f".{name}.weight"): value for key, value in tensors().items() for name in ("one", "two")
    }
    (finding,) = check(write_adapter(tmp_path / "poems", arrays), base=BASE)
    assert (finding.code, finding.message) == ("E-KEYS", "factors of 2 adapters in one file: 'one', 'two'.")


def test_two_names_for_one_factor_are_refused(tmp_path):
    arrays = {**tensors(), **{"module." + key: value for key, value in tensors().items()}}
    (finding,) = check(write_adapter(tmp_path / "poems", arrays), base=BASE)
    assert finding.code == "E-KEYS" and finding.message.startswith("two tensors for one factor: ")


@pytest.mark.parametrize(
    "key",
    [
        ".lora_A.weight", "_orig_mod.lora_A.weight", "module.lora_A.weight", "base_model.model..lora_A.weight",
        f"{PREFIX}a b.lora_A.weight", f"{PREFIX}../x.lora_A.weight", f"{PREFIX}{PATH}.lora_A.a.b.weight",
        f"{PREFIX}{PATH}.lora_A..weight", f"{PREFIX}{PATH}.lora_A.weight\n", f"{PREFIX}{'x.' * 600}y.lora_A.weight",
        f"{PREFIX}{PATH}.lora_C.weight",
    ],
)  # fmt: skip
def test_what_no_path_could_be_is_refused(key, tmp_path):
    assert parse_key(key).part in ("unknown", "a")
    arrays = {**tensors(), key: np.zeros((2, D), np.float32)}
    findings = check(write_adapter(tmp_path / "poems", arrays), base=BASE)
    assert findings[0].level == "error" and findings[0].code in ("E-KEYS", "E-TARGET")


PARTS = st.sampled_from(
    [
        "_orig_mod.", "module.", "_fsdp_wrapped_module.", "base_model.model.", "model.", "layers.0.", "q_proj",
        ".lora_A", ".lora_B", ".default", ".weight", ".", "\ud800", "", "experts.3.", "lm_head", "base_layer",
    ]
)  # fmt: skip


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(st.lists(PARTS, max_size=9))
def test_any_key_is_understood_and_peft_s_name_for_it_is_read_alike(parts):
    key = "".join(parts)
    part, site, _ = parse_key(key)
    if part in ("a", "b"):
        assert parse_key(peft_key(key))[:2] == (part, site) or PREFIX in site or site.startswith("module.")
    else:
        assert peft_key(key) == key


def test_a_hint_that_is_right_when_it_is_followed(tmp_path):
    """PEFT on a base without its head, as AutoModel has it, leaves the first part of all paths out."""
    arrays = {key.replace(PREFIX + "model.", PREFIX): value for key, value in tensors().items()}
    (finding,) = check(write_adapter(tmp_path / "poems", arrays), base=BASE)
    assert (finding.code, finding.message) == ("E-KEYS", "0 of 8 tensors match the base.")
    assert finding.hint == f"Every path lacks 'model.': put it before the path, after {PREFIX!r}, in all keys."
    mended = {key.replace(PREFIX, PREFIX + "model."): value for key, value in arrays.items()}
    assert check(write_adapter(tmp_path / "mended", mended), base=BASE) == []
    deeper = {site.replace("model.", "model.text."): (D, D) for site in SITES}
    (finding,) = check(tmp_path / "poems", base=deeper)
    assert finding.hint.startswith("Every path lacks 'model.text.': ")
    (finding,) = check(tmp_path / "poems", base={**BASE, **dict.fromkeys(map("vision.{}".format, SITES), (D, D))})
    assert finding.hint.startswith("Every path lacks 'model.': ")


# ---- where no factor can be routed --------------------------------------------------------------


def with_pair(directory, path, a=".lora_A.weight", b=".lora_B.weight", extra=(), **config):
    arrays = {**tensors(), PREFIX + path + a: np.ones((2, D)), PREFIX + path + b: np.ones((D, 2))}
    arrays |= {PREFIX + key: np.ones((D, D)) for key in extra}
    return write_adapter(directory, {key: np.asarray(value, np.float32) for key, value in arrays.items()}, **config)


@pytest.mark.parametrize("base", [None, BASE], ids=["without base", "with base"])
@pytest.mark.parametrize(
    ("path", "ends", "what"),
    [
        ("lm_head", (), "LoRA on the head of the base can't be routed: "),
        ("embed_out", (), "LoRA on the head of the base can't be routed: "),
        ("language_model.lm_head", (), "LoRA on the head of the base can't be routed: "),
        ("model.embed_tokens", (".lora_embedding_A", ".lora_embedding_B"), "LoRA on an embedding can't be routed: "),
    ],
)
def test_head_and_embeddings_are_refused_as_such(path, ends, what, base, tmp_path):
    """PEFT saves the layer's own weights along; that they overwrite the base isn't the reason either."""
    odd = with_pair(
        tmp_path / "odd",
        path,
        *ends,
        extra=[f"{path}.base_layer.weight"],
        target_modules=["q_proj", "v_proj", "lm_head"],
    )
    (finding,) = check(odd, base=base)
    assert finding.code == "E-FEATURE" and finding.message.startswith(what)
    assert finding.hint == "Train it without: name the layers in target_modules, and no others."


@pytest.mark.parametrize("base", [None, BASE], ids=["without base", "with base"])
@pytest.mark.parametrize("named", [["mlp.gate.weight"], "x" * 500, [1, None, {"a": 1}], {"a": []}, 3])
def test_factors_on_parameters_are_refused_for_that_alone(named, base, tmp_path):
    odd = with_pair(
        tmp_path / "odd", "model.layers.0.mlp.experts.base_layer", target_parameters=named, target_modules=["q_proj"],
        rank_pattern={r".*\.experts\.(a|b)": 8, "(a+)+$": 3},
    )  # fmt: skip
    (finding,) = check(odd, base=base)
    assert finding.code == "E-FEATURE" and finding.message.startswith("target_parameters (")
    assert finding.message.endswith("of parameters, only those of a mixture's experts can be routed.")


def test_experts_of_a_mixture_are_told_of_where_the_base_keeps_them_fused(tmp_path):
    site = "model.layers.0.block_sparse_moe.experts.0.w1"
    odd = with_pair(tmp_path / "odd", site, target_modules=["q_proj", "v_proj", "w1"])
    (finding,) = check(odd, base=BASE)
    assert finding.code == "E-FEATURE"
    assert finding.message.startswith(
        "LoRA on the experts of a mixture of experts, which this base keeps in one parameter"
    )
    assert check(odd) == []
    assert check(odd, base={**BASE, site: (D, D)}) == []
