"""What is exported for others: merged bases, GGUF files, adapters of one rank. Compared with the mixture attached."""

import json

import numpy as np
import pytest
import torch
from golden_peft import assert_same, ids, peft_answer, routed_answer
from safetensors.torch import load_file

import lorary as lo
from lorary.adapters.lora import LoRA
from lorary.errors import LoraryError
from lorary.formats.peft import read_weights
from lorary.library.adapter.expert import read_expert
from lorary.library.library import Library
from lorary.model.base.base_model import load_base
from lorary.model.saved.export import VLLM_RANKS
from lorary.testing.pico import add_expert, pico_base, random_library, random_weights

gguf = pytest.importorskip("gguf")
from golden_gguf import turned  # noqa: E402 - it imports gguf


def answer(base):
    with torch.inference_mode():
        return base.hf(input_ids=ids()).logits


# ---- merged --------------------------------------------------------------------------------------


@pytest.mark.parametrize("mix", ["factors", "outputs"])
@pytest.mark.parametrize("architecture", ["llama_gqa", "gpt2"])
def test_a_merged_base_says_what_the_mixture_says(architecture, mix, tmp_path):
    base = pico_base(architecture)
    before = answer(base)
    library = random_library(tmp_path / "lib", base, 3)
    lo.export_merged(base, library, into=tmp_path / "merged", mix=mix)
    merged = load_base(str(tmp_path / "merged"), device="cpu", dtype="float32")
    assert_same(answer(merged), routed_answer(base, library, "uniform", mix=mix), atol=1e-4)
    assert torch.equal(answer(base), before)  # as it was
    facts = json.loads((tmp_path / "merged" / "merged.json").read_text())
    assert facts["experts"] == {name: expert.hash for name, expert in library.items()} and facts["mix"] == mix
    assert merged.tokenizer.get_vocab() == base.tokenizer.get_vocab()


def refused(*args, **options):
    with pytest.raises(LoraryError) as caught:
        lo.export_merged(*args, **options)
    assert not options["into"].exists()
    return str(caught.value)


@pytest.mark.slow
def test_what_can_t_be_merged_is_refused(base, tmp_path):
    library, into = random_library(tmp_path / "lib", base, 2), tmp_path / "out"
    assert "E-BASE" in refused(pico_base(seed=1), library, into=into)
    with lo.route(base, library):
        assert "E-ATTACHED" in refused(base, library, into=into)
    stored = pico_base()
    layer = stored.hf.model.layers[0].self_attn.q_proj
    stored.fingerprint  # noqa: B018 - as it was before its layer was changed
    weight = layer.weight.data
    del layer.weight
    layer.weight = torch.nn.Parameter((weight * 100).to(torch.int8), requires_grad=False)
    assert "it is quantised" in refused(stored, library, into=into)
    tied = pico_base()
    tied.fingerprint  # noqa: B018
    tied.hf.model.layers[0].self_attn.q_proj.weight = tied.hf.model.layers[0].self_attn.k_proj.weight
    assert "is shared with another layer" in refused(tied, library, into=into)
    spread = pico_base()
    spread.fingerprint  # noqa: B018
    spread.hf.model.layers[1].mlp.to("meta")
    assert "is offloaded" in refused(spread, library, into=into)


# ---- GGUF ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("architecture", "family", "heads"), [("llama_gqa", "llama", (4, 2)), ("qwen2", "qwen2", None)]
)
def test_a_gguf_file_holds_what_llama_cpp_adds(architecture, family, heads, tmp_path):
    base = pico_base(architecture)
    library = random_library(tmp_path / "lib", base, 2, ranks=[2, 3], targets=["attention", "down_proj"])
    lo.export_gguf(base, library, {"e0": 0.5, "e1": 2}, into=tmp_path / "lora.gguf", mix="outputs")
    lo.export(library, {"e0": 0.5, "e1": 2}, into=tmp_path / "peft", mix="outputs")
    expected = read_weights(read_expert(tmp_path / "peft", "peft"))
    file = gguf.GGUFReader(tmp_path / "lora.gguf")
    facts = {key: field.contents() for key, field in file.fields.items()}
    assert facts["general.architecture"] == family
    assert (facts["general.type"], facts["adapter.type"], facts["adapter.lora.alpha"]) == ("adapter", "lora", 5.0)
    tensors = {tensor.name: np.array(tensor.data) for tensor in file.tensors}
    short = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v"}
    short |= {"self_attn.o_proj": "attn_output", "mlp.down_proj": "ffn_down"}
    assert len(tensors) == 2 * len(expected) == 20
    for site, weights in expected.items():
        _, _, block, layer = site.split(".", 3)
        name = f"blk.{block}.{short[layer]}.weight"
        a, b = tensors[f"{name}.lora_a"], tensors[f"{name}.lora_b"]
        found = facts["adapter.lora.alpha"] / a.shape[0] * (b @ a)
        dense = weights.delta().numpy()
        if heads and short[layer] in ("attn_q", "attn_k"):
            dense = turned(dense, heads[short[layer] == "attn_k"])
        np.testing.assert_allclose(found, dense, atol=1e-5)


def test_a_family_that_isn_t_known_is_refused_and_nothing_is_left(tmp_path):
    base = pico_base("phi")
    library = random_library(tmp_path / "lib", base, 1)
    with pytest.raises(LoraryError, match=r"E-FEATURE.*how llama.cpp has the layers of 'phi'"):
        lo.export_gguf(base, library, into=tmp_path / "x.gguf")
    assert [path.name for path in tmp_path.iterdir()] == ["lib"]


# ---- one rank ------------------------------------------------------------------------------------


def test_ranks_are_filled_up_to_one_that_vllm_takes(base, tmp_path):
    library = random_library(tmp_path / "lib", base, 2, ranks=[2, 3])
    site = "model.layers.0.self_attn.q_proj"
    shares = {site: {"e0": 1}} | {other: {"e0": 1, "e1": 1} for other in library["e0"].sites if other != site}
    lo.export(library, shares, into=tmp_path / "plain", mix="outputs")
    told = lo.export(library, shares, into=tmp_path / "padded", mix="outputs", pad_rank=True)
    config = json.loads((tmp_path / "padded" / "adapter_config.json").read_text())
    assert set(told.ranks.values()) == {8} and (config["r"], config["lora_alpha"]) == (8, 8.0)
    assert not config.get("rank_pattern") and not config.get("alpha_pattern")
    assert json.loads((tmp_path / "plain" / "adapter_config.json").read_text())["rank_pattern"]
    assert_same(peft_answer("llama", tmp_path / "padded"), peft_answer("llama", tmp_path / "plain"))


def as_vllm_reads(directory):
    """Read an adapter as vLLM's vllm/lora/{peft_helper,lora_model,utils}.py do: one scale, no patterns, names cut."""
    config = json.loads((directory / "adapter_config.json").read_text())
    assert not config.get("use_dora") and not config.get("use_rslora") and not config.get("modules_to_save")
    found = {}
    for key, tensor in load_file(directory / "adapter_model.safetensors").items():
        prefix, model, *site, factor, kind = key.split(".")
        assert (prefix, model, kind) == ("base_model", "model", "weight") and factor in ("lora_A", "lora_B")
        assert tensor.shape[factor == "lora_B"] <= config["r"] and config["r"] <= VLLM_RANKS[-1]
        found.setdefault(".".join(site), {})[factor] = tensor
    return {site: config["lora_alpha"] / config["r"] * f["lora_B"] @ f["lora_A"] for site, f in found.items()}


@pytest.mark.parametrize("pad_rank", [False, True])
@pytest.mark.parametrize("mix", ["factors", "outputs"])
def test_vllm_reads_of_an_export_what_peft_reads(base, mix, pad_rank, tmp_path):
    library = Library.create(tmp_path / "lib", base=base.fingerprint)
    for i, kind in enumerate((LoRA(rank=3, alpha=12), LoRA(rank=3, alpha=1))):
        add_expert(library, f"e{i}", base, kind, random_weights(kind, base.target_sites(["attention"]), seed=i))
    site = "model.layers.0.self_attn.q_proj"
    shares = {site: {"e0": 1}} | {other: {"e0": 0.5, "e1": 2} for other in library["e0"].sites if other != site}
    told = lo.export(library, shares, into=tmp_path / "out", mix=mix, pad_rank=pad_rank)
    assert not pad_rank or set(told.ranks.values()) <= set(VLLM_RANKS)
    expected = read_weights(read_expert(tmp_path / "out", "out"))
    found = as_vllm_reads(tmp_path / "out")
    assert found.keys() == expected.keys()
    for name, delta in found.items():
        torch.testing.assert_close(delta, expected[name].delta(), atol=1e-5, rtol=1e-5)
