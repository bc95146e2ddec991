"""What is exported opens in PEFT and says what the routed model says in the same fixed shares."""

import json
import math

import numpy as np
import pytest
import torch
from golden_peft import answer, assert_same, ids, library_of, make_adapter, peft_answer, routed_answer

import lorary
from lorary.adapters.lora import LoRA
from lorary.adapters.low_rank import LowRankBank
from lorary.errors import LoraryError
from lorary.formats.peft import read_experts
from lorary.library.adapter.expert import read_expert
from lorary.library.library import Library
from lorary.model.attached.attachment import Attachment
from lorary.model.attached.slot import Slot
from lorary.routing.contract import Gate, Routing
from lorary.testing.pico import ARCHITECTURES, add_expert, pico_base, random_library, random_weights

SITE = "model.layers.1.self_attn.v_proj"


class Fixed(Gate):
    """The same weights at every token."""

    def __init__(self, weights):
        super().__init__()
        self.weights = torch.tensor([[[weights]]])

    def forward(self, h, context):
        return Routing(self.weights)


def static_answer(base, library, by_site, mix):
    """Run the base with a bank of all experts in fixed shares."""
    experts = read_experts(library)
    parts = {}
    for name, site in base.sites.items():
        if any(name in expert for expert in experts.values()):
            weights = [by_site(name).get(expert, 0.0) for expert in sorted(library)]
            parts[name] = (LowRankBank([experts[e].get(name) for e in sorted(library)], site), Fixed(weights))
    attachment = Attachment(base.hf, parts, Slot(mix))
    try:
        return answer(base.hf)
    finally:
        attachment.detach()


@pytest.fixture
def library(base, tmp_path):
    """Four experts; they differ in rank, alpha and sites."""
    library, targets = Library.create(tmp_path / "lib", base=base.fingerprint), ["attention", "down_proj"]
    for i, name in enumerate(("ant", "bee", "cat")):
        kind = LoRA(rank=2 + i, alpha=3.0 + i, rslora=i == 1)
        add_expert(library, name, base, kind, random_weights(kind, base.target_sites(targets[: 1 + i % 2]), seed=i))
    kind = LoRA(rank=3)
    add_expert(library, "dog", base, kind, random_weights(kind, base.target_sites(["v_proj"]), seed=7))
    return library


@pytest.fixture
def equals(base, tmp_path):
    return random_library(tmp_path / "equals", base, ["ant", "bee", "cat"], seed=3)


# ---- exact --------------------------------------------------------------------------------------


MIXTURES = {
    "one": {"bee": 1},
    "two": {"ant": 0.7, "dog": 0.3},
    "all": {"ant": 0.5, "bee": -0.25, "cat": 2.0, "dog": 1.0},
}


@pytest.mark.parametrize("name", MIXTURES)
def test_a_fixed_mixture_of_outputs_is_exact(name, base, library, tmp_path):
    shares = MIXTURES[name]
    told = lorary.export(library, shares, into=tmp_path / "out", mix="outputs")
    assert told.error == told.worst[1] == 0
    assert_same(peft_answer("llama", tmp_path / "out"), static_answer(base, library, lambda site: shares, "outputs"))
    assert told.ranks[SITE] == sum(library[e].ranks[SITE] for e in shares)
    again = library_of(tmp_path / "again", base, {"mixture": tmp_path / "out"})
    assert_same(routed_answer(base, again), peft_answer("llama", tmp_path / "out"))


@pytest.mark.parametrize("mix", ["factors", "outputs"])
@pytest.mark.parametrize("architecture", ["llama", "gpt2", "phi"])
def test_uniform_is_exact_under_both_mixes(architecture, mix, tmp_path):
    base = pico_base(architecture)
    library = random_library(tmp_path / "lib", base, 3)
    told = lorary.export(library, into=tmp_path / "out", mix=mix)
    assert set(told.ranks.values()) == ({4} if mix == "factors" else {12})
    assert "rank_pattern" not in json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert_same(peft_answer(architecture, tmp_path / "out"), routed_answer(base, library, "uniform", mix=mix))
    assert architecture in ARCHITECTURES


def test_factors_and_outputs_are_other_functions(equals, tmp_path):
    shares = {"ant": 0.5, "bee": 0.5}
    found = {}
    for mix in ("factors", "outputs"):
        lorary.export(equals, shares, into=tmp_path / mix, mix=mix)
        found[mix] = peft_answer("llama", tmp_path / mix)
    assert (found["factors"] - found["outputs"]).abs().max() > 0.1


def test_a_mixture_of_factors_is_exact(base, equals, tmp_path):
    shares = {"ant": 0.2, "cat": 0.8}
    lorary.export(equals, shares, into=tmp_path / "out", mix="factors")
    assert_same(peft_answer("llama", tmp_path / "out"), static_answer(base, equals, lambda site: shares, "factors"))


def test_a_lone_expert_of_peft_is_itself(base, tmp_path):
    options = {"rank_pattern": {"v_proj": 2}, "alpha_pattern": {"v_proj": 5}, "use_rslora": True}
    expected = make_adapter(tmp_path / "adapter", **options)
    library = library_of(tmp_path / "lib", base, {"poems": tmp_path / "adapter"})
    for mix in ("factors", "outputs"):
        lorary.export(library, {"poems": 1}, into=tmp_path / mix, mix=mix)
        assert_same(peft_answer("llama", tmp_path / mix), expected)


def test_the_average_of_arrow_s_choices(base, library, tmp_path):
    prompts = ["copy: a b", "swap: red fox"]
    with lorary.route(base, library, "arrow:top_k=2", mix="outputs") as model:
        shares = model.choices(prompts)
        traces = [model._trace(prompt, 0) for prompt in prompts]
        told = lorary.export(model.experts, shares, into=tmp_path / "out", mix=model.mix)
    at = traces[0].sites.index(SITE)
    dense = torch.cat([trace.weights[at] for trace in traces]).mean(0)
    torch.testing.assert_close(torch.tensor(list(shares[SITE].values())), dense)
    assert list(shares[SITE]) == sorted(library) and sum(shares[SITE].values()) == pytest.approx(1)
    assert told.error == 0
    assert_same(peft_answer("llama", tmp_path / "out"), static_answer(base, library, shares.get, "outputs"))


# ---- truncated ----------------------------------------------------------------------------------


@pytest.mark.parametrize("rank", [1, 3, 5])
def test_a_truncated_mixture_has_the_error_it_tells(rank, library, tmp_path):
    shares = MIXTURES["all"]
    told = lorary.export(library, shares, into=tmp_path / "out", mix="outputs", rank=rank)
    kept, experts = read_experts({"out": read_expert(tmp_path / "out", "out")})["out"], read_experts(library)
    missing, norm, by_site = 0.0, 0.0, {}
    for site in kept:
        exact = sum(share * experts[e][site].delta().double() for e, share in shares.items() if site in experts[e])
        values = torch.linalg.svdvals(exact)
        error = torch.linalg.norm(kept[site].delta().double() - exact)
        torch.testing.assert_close(error, values[rank:].norm(), atol=1e-5, rtol=1e-5)
        missing, norm = missing + float(error**2), norm + float(exact.norm() ** 2)
        by_site[site] = float(error / exact.norm())
    assert told.error == pytest.approx(math.sqrt(missing / norm), abs=1e-6)
    assert told.worst[1] == pytest.approx(max(by_site.values()), abs=1e-6)
    assert by_site[told.worst[0]] == pytest.approx(told.worst[1], abs=1e-6)
    assert max(told.ranks.values()) == rank
    assert 0 < told.error < 1


def test_logits_near_as_the_rank_grows(base, library, tmp_path):
    shares = MIXTURES["two"]
    exact = static_answer(base, library, lambda site: shares, "outputs")
    gaps = []
    for rank in (1, 3, 5):
        told = lorary.export(library, shares, into=tmp_path / str(rank), mix="outputs", rank=rank)
        gaps.append(((peft_answer("llama", tmp_path / str(rank)) - exact).norm() / exact.norm()).item())
    assert gaps[0] > gaps[1] > gaps[2]
    assert gaps[2] < 1e-5
    assert told.error == 0


def test_more_rank_than_the_layer_has_is_taken_away_exactly(base, tmp_path):
    library = random_library(tmp_path / "lib", base, 12)
    told = lorary.export(library, into=tmp_path / "out", mix="outputs")
    assert set(told.ranks.values()) == {32}  # not 48
    assert told.error < 1e-6
    assert_same(peft_answer("llama", tmp_path / "out"), routed_answer(base, library, "uniform", mix="outputs"))


def test_sites_of_several_ranks_are_patterns_that_peft_reads(base, library, tmp_path):
    lorary.export(library, MIXTURES["all"], into=tmp_path / "out", mix="outputs", rank=9)
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert config["r"] == config["lora_alpha"] == 9
    assert len(set(config["rank_pattern"].values())) >= 1
    assert config["alpha_pattern"] == config["rank_pattern"]
    assert ids().shape == (2, 9)


# ---- facts and refusals -------------------------------------------------------------------------


def test_it_tells_where_it_comes_from(base, library, tmp_path):
    lorary.export(library, {"bee": 0.5, "dog": 0.5}, into=tmp_path / "out", mix="outputs", rank=3)
    made = read_expert(tmp_path / "out", "out").provenance
    assert (made.parents, made.tasks, made.base_fingerprint) == (("bee", "dog"), ("bee", "dog"), base.fingerprint)
    assert made.builder == {"name": "export", "mix": "outputs", "rank": 3, "shares": {"bee": 0.5, "dog": 0.5}}


def test_shares_may_be_numbers_of_numpy(library, tmp_path):
    told = lorary.export(library, {"bee": np.float32(0.5)}, into=tmp_path / "out", rank=np.int64(2), mix="outputs")
    assert read_expert(told.directory, "out").provenance.builder["shares"] == {"bee": 0.5}


REFUSALS = {
    "error[E-NAME] unknown expert 'bea'. Did you mean 'bee'? Known: ant, bee, cat, dog.": ({"bea": 1}, {}),
    "error[E-OPTION] the share of 'bee' is nan, expected a number.": ({"bee": float("nan")}, {}),
    "error[E-OPTION] the share of 'bee' is '0.5', expected a number.": ({"bee": "0.5"}, {}),
    "error[E-OPTION] the share of 'ant' is None, expected a number.": ({SITE: {"ant": None}}, {}),
    "error[E-OPTION] shares is None, expected \"uniform\", {name: share} or {site: {name: share}}.": (None, {}),
    "error[E-OPTION] rank=1.5, expected a whole number.": ({"bee": 1}, {"rank": 1.5}),
    "error[E-OPTION] unknown shares 'unifrom'. Did you mean 'uniform'? Known: uniform.": ("unifrom", {}),
    "error[E-OPTION] rank=0, expected 1 or more.": ({"bee": 1}, {"rank": 0}),
    "error[E-OPTION] unknown mix 'both'. Known: factors, outputs.": ({"bee": 1}, {"mix": "both"}),
    "error[E-EMPTY] the shares leave nothing to export. Give at least one expert a share.": ({"bee": 0}, {}),
    "error[E-OPTION] shares mix experts and sites. Give {name: share} or {site: {name: share}}.": (
        {"bee": 1, SITE: {"bee": 1}}, {},
    ),
    "error[E-RANK] expert 'cat': rank 4 at 'model.layers.0.self_attn.k_proj'": (
        {"bee": 1, "cat": 1}, {"mix": "factors"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("message", REFUSALS)
def test_what_can_t_be_exported_is_said(message, library, tmp_path):
    shares, options = REFUSALS[message]
    with pytest.raises(LoraryError) as caught:
        lorary.export(library, shares, into=tmp_path / "out", **options)
    assert str(caught.value).startswith(message)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("share", [1e300, -1e38, 1e7, 1e-50])
@pytest.mark.parametrize(("mix", "rank"), [("factors", None), ("outputs", None), ("outputs", 1)])
def test_shares_whose_numbers_don_t_fit_are_refused(share, mix, rank, equals, tmp_path):
    with pytest.raises(LoraryError) as caught:
        lorary.export(equals, {"ant": share, "bee": share}, into=tmp_path / "out", mix=mix, rank=rank)
    assert str(caught.value).startswith(
        "error[E-NONFINITE] site 'model.layers.0.self_attn.k_proj': the mixture's largest number is "
    )
    assert str(caught.value).endswith(", an adapter's may be 1e-38 to 10000. Give other shares.")
    assert not (tmp_path / "out").exists()


def test_nothing_is_written_over(library, tmp_path):
    lorary.export(library, {"bee": 1}, into=tmp_path / "out")
    with pytest.raises(LoraryError, match="E-EXISTS"):
        lorary.export(library, {"ant": 1}, into=tmp_path / "out")
