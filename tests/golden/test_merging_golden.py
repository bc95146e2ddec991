"""Merges against PEFT: its own loading of one expert, and its mathematics on full products."""

import pytest
import torch
from golden_peft import answer, assert_same, library_of, make_adapter, peft_answer, peft_open, routed_answer
from peft.utils.merge_utils import ties

from lorary.building.build import build
from lorary.building.builders.ties import Ties
from lorary.formats.peft import read_weights
from lorary.tasks.task import Tasks
from lorary.testing.pico import pico_base

ADAPTERS = {
    "plain": {},
    "rslora": {"use_rslora": True, "r": 6},
    "alpha": {"lora_alpha": 3, "alpha_pattern": {"layers.1.self_attn.q_proj": 40}},
    "patterns": {"rank_pattern": {"layers.0.self_attn.v_proj": 2, "k_proj": 7}, "use_rslora": True},
    "partial": {"layers_to_transform": [1], "r": 3},
}
NOTHING = Tasks([])


@pytest.mark.parametrize(
    "method", ["uniform", "weighted:weights=[1]", "ties:density=1", "dare:density=1", "svd:rank=8"]
)
@pytest.mark.parametrize("name", ADAPTERS)
def test_one_expert_merges_to_itself(method, name, tmp_path):
    base = pico_base()
    expected = make_adapter(tmp_path / name, **ADAPTERS[name])
    merged = build(method, NOTHING, base, source=library_of(tmp_path / "lib", base, {name: tmp_path / name}),
                   into=tmp_path / "merged")  # fmt: skip
    (expert,) = merged.values()
    assert_same(peft_answer("llama", expert.directory), expected)
    assert_same(routed_answer(base, merged), expected)
    assert expert.provenance.metrics["relative_error"] < 1e-6
    assert expert.provenance.parents[0].startswith(f"{name}@")


@pytest.mark.slow
def test_adapters_of_all_sorts_add_up(tmp_path):
    """Weights of the base, changed by hand with what PEFT itself merges for each adapter."""
    base = pico_base()
    directories = {name: tmp_path / name for name in ADAPTERS}
    weights = dict(zip(ADAPTERS, (1.0, -0.5, 0.25, 2.0, 0.7), strict=True))
    for seed, (name, options) in enumerate(ADAPTERS.items()):
        make_adapter(directories[name], seed=seed, **options)
    bare = dict(pico_base().hf.named_parameters())
    expected = pico_base()
    for name, directory in directories.items():
        alone = dict(peft_open("llama", directory).merge_and_unload().named_parameters())
        for key, p in expected.hf.named_parameters():
            p.data += weights[name] * (alone[key] - bare[key])
    library = library_of(tmp_path / "lib", base, directories)
    spec = f"weighted:experts=[{','.join(weights)}],weights=[{','.join(map(str, weights.values()))}]"
    merged = build(spec, NOTHING, base, source=library, into=tmp_path / "merged")["merged"]
    torch.testing.assert_close(peft_answer("llama", merged.directory), answer(expected.hf), atol=2e-4, rtol=1e-4)
    assert merged.rank == sum(library[name].ranks["model.layers.1.self_attn.k_proj"] for name in library)


@pytest.mark.parametrize("density", [0.2, 0.7, 0.99])
def test_ties_is_that_of_peft_on_full_products(density, tmp_path):
    base = pico_base()
    directories = {name: tmp_path / name for name in ("plain", "rslora", "alpha")}
    for seed, name in enumerate(directories):
        make_adapter(directories[name], seed=seed, **ADAPTERS[name])
    library = library_of(tmp_path / "lib", base, directories)
    merged = build(Ties(density=density), NOTHING, base, source=library, into=tmp_path / "merged")["merged"]
    for site, weights in read_weights(merged).items():
        deltas = [read_weights(library[name])[site].delta() for name in sorted(library)]
        expected = ties(deltas, torch.ones(3), density)
        torch.testing.assert_close(weights.delta(), expected, atol=1e-5, rtol=1e-4)
        assert expected.count_nonzero() > 0
