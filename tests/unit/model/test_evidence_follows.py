"""Evidence lives and dies with the KV cache: with a cache or without, alone or in a batch, the answer is the same."""

import copy
import inspect
from dataclasses import dataclass, replace

import pytest
import torch
from transformers import DynamicCache, LlamaForCausalLM

from lorary.errors import RoutingError
from lorary.model.attached.kv_cache import cache_in
from lorary.model.routed.route import route
from lorary.routing.contract import Gate, Router, Routing
from lorary.routing.routers.arrow import Arrow
from lorary.routing.routers.compass import Compass
from lorary.testing.fakes import dense
from lorary.testing.pico import pico_base, random_library


@dataclass(frozen=True)
class Gathering(Router):
    """Arrow's scores, softened by what the sequence has shown so far."""

    up: bool = False

    def fit(self, experts, sites, probe):
        return Arrow(top_k=99, temperature=0.3).fit(experts, sites, probe)

    def gate(self, site, state, names):
        return _GatheringGate(site.name, Arrow(top_k=99, temperature=0.3).gate(site, state, names), self.up)


class _GatheringGate(Gate):
    keeps_evidence = True

    def __init__(self, site, scores, up):
        super().__init__()
        self.site, self.scores, self.up = site, scores, up

    def forward(self, h, context):
        now = dense(self.scores(h, context), 4)[:, :, 0]  # (B, T, E)
        if self.up:
            mean = context.evidence.up_sites(now)
        else:
            mean = context.evidence.along_tokens(self.site, now, context.mask)
        return Routing(torch.softmax(8 * mean, -1).unsqueeze(2))


CACHE = "cache" if "cache" in inspect.signature(LlamaForCausalLM.forward).parameters else "past_key_values"

PROMPTS = ["swap: red fox", "x", "a longer prompt than these: ant bee", "copy: q"]


# One family by every router, the others by the one that uses all kinds of evidence.
PAIRS = [
    ("llama", "along_tokens"),
    ("llama", "up_sites"),
    *((family, "compass") for family in ("llama", "gemma2", "gpt2")),
]


ROUTERS = {
    "along_tokens": Gathering(),
    "up_sites": Gathering(up=True),
    "compass": Compass(along=2.0, now=1.0, top_k=2, n_texts=4, n_tokens=8),
}


@pytest.fixture(params=PAIRS, ids="-".join, scope="module")
def model(request, tmp_path_factory):
    """One for all tests of a pair: each leaves it without evidence, and as it was."""
    family, router = request.param
    base = pico_base(family)
    with route(base, random_library(tmp_path_factory.mktemp(family) / "lib", base, 4), ROUTERS[router]) as model:
        yield model


def batch_of(model, prompts=PROMPTS):
    return dict(model.base.tokenizer(prompts, return_tensors="pt", padding=True))


def generate(model, batch, **options):
    ids = model.generate(**batch, max_new_tokens=6, do_sample=False, **options)
    return ids[:, batch["input_ids"].shape[1] :]


def without_evidence(gate):
    if isinstance(gate, _GatheringGate):
        return gate.scores
    plain = copy.copy(gate)
    plain.options = replace(gate.options, now=1.0, along=0.0, up=0.0)
    return plain


def test_evidence_changes_what_is_said(model):
    batch = batch_of(model)
    gates = {layer: layer.gate for layer in model._attachment.layers.values()}
    with torch.inference_mode():
        gathered = model(**batch).logits[0, -1]
        try:
            for layer, gate in gates.items():
                layer.gate = without_evidence(gate)
            plain = model(**batch).logits[0, -1]
        finally:
            for layer, gate in gates.items():
                layer.gate = gate
    assert (gathered - plain).abs().max() > 0.01


def test_greedy_with_a_cache_is_greedy_without(model):
    batch = batch_of(model)
    assert torch.equal(generate(model, batch, use_cache=True), generate(model, batch, use_cache=False))


def test_beams_with_a_cache_are_beams_without(model):
    batch = batch_of(model)
    cached, plain = (generate(model, batch, num_beams=3, use_cache=use_cache) for use_cache in (True, False))
    assert torch.equal(cached, plain)
    assert not torch.equal(cached[:, : plain.shape[1]], generate(model, batch)[:, : plain.shape[1]])


@pytest.mark.parametrize("num_beams", [1, 3])
def test_rows_are_independent(model, num_beams):
    together = generate(model, batch_of(model), num_beams=num_beams)
    for prompt, found in zip(PROMPTS, together, strict=True):
        alone = generate(model, batch_of(model, [prompt]), num_beams=num_beams)[0].tolist()
        assert found.tolist()[: len(alone)] == alone


def test_logits_with_a_cache_are_those_of_the_full_forward(model):
    batch = batch_of(model)
    batch["position_ids"] = (batch["attention_mask"].cumsum(1) - 1).clamp(min=0)
    with torch.inference_mode():
        whole = model(**batch, use_cache=False).logits
        for cache in (DynamicCache(config=model.base.hf.config), None):
            found = []
            for start, end in ((0, 20), (20, 21), (21, 30), (30, whole.shape[1])):
                output = model(
                    batch["input_ids"][:, start:end], attention_mask=batch["attention_mask"][:, :end],
                    position_ids=batch["position_ids"][:, start:end], **{CACHE: cache}, use_cache=True,
                )  # fmt: skip
                cache = cache_in(output)
                found.append(output.logits)
            real = batch["attention_mask"].bool()
            torch.testing.assert_close(torch.cat(found, 1)[real], whole[real], atol=1e-4, rtol=1e-4)


def test_every_generation_starts_afresh(model):
    batch = batch_of(model)
    first = generate(model, batch)
    generate(model, batch_of(model, ["something else entirely"]))
    assert torch.equal(generate(model, batch), first)
    assert model._attachment.slot.context.evidence.is_empty


def filled(model, ids):
    cache = DynamicCache(config=model.base.hf.config)
    with torch.inference_mode():
        model(ids, **{CACHE: cache}, use_cache=True)
    return cache


IDS = torch.tensor([[5, 6, 7], [8, 9, 10]])


@pytest.fixture
def gathering(base, tmp_path):
    with route(base, random_library(tmp_path / "lib", base, 4), Gathering()) as model:
        yield model


def test_a_cache_that_others_filled_is_refused(gathering):
    cache = DynamicCache(config=gathering.base.hf.config)
    with torch.inference_mode():
        pico_base().hf(IDS, **{CACHE: cache}, use_cache=True)
    with pytest.raises(RoutingError) as caught:
        gathering(IDS, **{CACHE: cache})
    assert str(caught.value) == (
        "error[E-CACHE] this KV cache was filled by another model; its evidence is unknown. Start with a new cache."
    )


def test_a_cache_with_evidence_is_not_cropped(gathering):
    with pytest.raises(RoutingError) as caught:
        filled(gathering, IDS).crop(1)
    assert str(caught.value) == (
        "error[E-CACHE] a cache with routing evidence can't be cropped. Start with a new cache."
    )


def test_a_cache_that_is_reset_starts_afresh(gathering):
    cache = filled(gathering, IDS)
    cache.reset()
    with torch.inference_mode():
        again = gathering(IDS, **{CACHE: cache}).logits
        torch.testing.assert_close(again, gathering(IDS).logits)


def test_other_caches_and_other_gates_are_untouched(gathering, toy_library):
    filled(gathering, IDS)
    other = DynamicCache(config=gathering.base.hf.config)
    assert "crop" not in vars(other)
    gathering.detach()
    with route(gathering.base, toy_library, "arrow") as model:
        assert "crop" not in vars(filled(model, IDS))


def test_a_static_cache_counts_no_padding(model):
    batch = batch_of(model)
    options = {"cache_implementation": "static", "disable_compile": True}
    assert torch.equal(generate(model, batch, **options), generate(model, batch))


def test_a_copied_cache_has_evidence_of_its_own(model):
    """Transformers' way to read a common beginning once."""
    ids = torch.arange(5, 13).view(1, -1)
    expected = generate(model, {"input_ids": ids}, num_beams=3)
    beginning = filled(model, ids[:, :5].repeat(3, 1))
    for _ in range(2):
        options = {CACHE: copy.deepcopy(beginning), "num_beams": 3}
        assert torch.equal(generate(model, {"input_ids": ids}, **options), expected)
    again = copy.deepcopy(copy.deepcopy(beginning))
    again.batch_select_indices(torch.tensor([0]))
    assert (len(again.layers[0].keys), len(beginning.layers[0].keys)) == (1, 3)


@pytest.mark.parametrize("change", [
    lambda model, more: model.add(more["new"]),
    lambda model, more: model.remove("e0"),
    lambda model, more: model.set_router("compass:up=1,n_texts=4,n_tokens=8"),
])  # fmt: skip
def test_a_cache_from_before_a_change_is_refused(base, change, tmp_path):
    library = random_library(tmp_path / "lib", base, 4)
    with route(base, library, ROUTERS["compass"]) as model, model.twin() as twin:
        cache, other, empty = filled(model, IDS), filled(model, IDS), filled(model, IDS)
        empty.reset()
        change(model, random_library(tmp_path / "more", base, ["new"], seed=1))
        with pytest.raises(RoutingError) as caught:
            model(IDS, **{CACHE: cache})
        assert str(caught.value) == (
            "error[E-CACHE] this KV cache was filled before the model's experts or router were changed. "
            "Start with a new cache."
        )
        with torch.inference_mode():
            assert torch.equal(model(IDS, **{CACHE: empty}).logits, model(IDS).logits)
            torch.testing.assert_close(
                twin(IDS, **{CACHE: other}).logits, twin(torch.cat([IDS, IDS], 1)).logits[:, 3:], atol=1e-5, rtol=1e-5
            )
