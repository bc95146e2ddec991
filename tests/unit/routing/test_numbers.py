"""Numbers that break routers elsewhere: nothing, nearly nothing, equal, opposite, half, too large, too many."""

import dataclasses
import math

import pytest
import torch

from lorary.adapters.contract import Weights
from lorary.errors import OptionError
from lorary.folder import ROUTERS
from lorary.model.routed.route import route
from lorary.routing.contract import Context
from lorary.routing.directions import prototypes, right_singular
from lorary.routing.routers.arrow import Arrow
from lorary.testing.fakes import SITES, FakeProbe, dense, fake_context, fake_experts, route_with
from lorary.testing.memory import peak_mib
from lorary.testing.pico import pico_base, random_library

SITE = next(iter(SITES.values()))
SEEDS = {"ant": 0, "bee": 1, "cat": 2, "dog": 3, "eel": 4}
WITH_TOP_K = [name for name in ROUTERS.names() if "top_k" in {f.name for f in dataclasses.fields(ROUTERS.load(name))}]
WITH_TEMPERATURE = [
    name for name in ROUTERS.names() if "temperature" in {f.name for f in dataclasses.fields(ROUTERS.load(name))}
]


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def hidden(n=4, t=9):
    return draw(n, t, SITE.d_in, seed=1)


# ---- experts that change nothing, or nearly -------------------------------------------------------


def cancelling():
    """B A = 0, and neither factor is."""
    row = draw(1, SITE.d_in)
    return Weights(torch.cat([row, row]), torch.tensor([[1.0, -1.0]] * SITE.d_out), 1.0)


SILENT = {
    "b is zero": Weights(draw(3, SITE.d_in), torch.zeros(SITE.d_out, 3), 1.0),
    "a is zero": Weights(torch.zeros(3, SITE.d_in), draw(SITE.d_out, 3), 1.0),
    "both are": Weights(torch.zeros(3, SITE.d_in), torch.zeros(SITE.d_out, 3), 1.0),
    "their product is": cancelling(),
    "and in many": Weights(
        torch.cat([draw(2, SITE.d_in)] * 2), torch.cat([draw(SITE.d_out, 2), -draw(SITE.d_out, 2)], 1), 0.7
    ),
}


@pytest.mark.parametrize("name", SILENT)
@pytest.mark.parametrize("router", ["arrow", "spectr", "compass:calibrate=False,normalise=False,n_common=0"])
def test_who_changes_nothing_is_never_chosen(name, router):
    router = ROUTERS.parse(router)
    experts = {**fake_experts(SEEDS), "cat": dict.fromkeys(SITES, SILENT[name])}
    assert SILENT[name].delta().abs().max() < 1e-6
    state = router.fit(experts, SITES, FakeProbe(SEEDS))
    weights = dense(router.gate(SITE, state, sorted(experts))(hidden(), Context()), len(SEEDS))
    assert not weights[..., sorted(experts).index("cat")].any()
    torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]))


@pytest.mark.parametrize("size", [1e-30, 1e-18, 1e-6, 1e6, 1e15])
def test_the_size_of_an_expert_changes_no_direction(size):
    a, b = draw(3, SITE.d_in), draw(SITE.d_out, 3, seed=1)
    plain = prototypes({"one": {"q": Weights(a, b, 1.0)}}, ["q"])["q"]
    sized = prototypes({"one": {"q": Weights(a * size, b, 1.0)}}, ["q"])["q"]
    torch.testing.assert_close(sized[0], plain[0], atol=1e-5, rtol=0)


def test_a_rank_that_is_not_used_changes_no_direction():
    """Of rank 4 on paper and of rank 1 in truth."""
    a, b = draw(1, SITE.d_in), draw(SITE.d_out, 1, seed=1)
    lone, value = right_singular(Weights(a, b, 1.0))
    vectors, values = right_singular(Weights(a.expand(4, -1), b.expand(-1, 4) / 4, 1.0))
    torch.testing.assert_close(vectors[0], lone[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(values[0], value[0])
    assert not values[1:].any()


def test_equal_singular_values_still_give_a_unit_vector_in_their_span():
    """Which one isn't said: any of them is as good."""
    a = torch.eye(SITE.d_in)[:3]
    vectors, values = right_singular(Weights(a, torch.eye(SITE.d_out)[:, :3], 1.0))
    torch.testing.assert_close(values, torch.ones(3))
    torch.testing.assert_close(vectors @ vectors.T, torch.eye(3), atol=1e-6, rtol=0)
    torch.testing.assert_close(vectors @ a.T @ a, vectors, atol=1e-6, rtol=0)


# ---- signs, twins and ties -------------------------------------------------------------------------


@pytest.mark.parametrize("router", ["arrow", "arrow:top_k=2,temperature=0.3", "spectr"])
def test_the_sign_of_a_direction_means_nothing(router):
    router = ROUTERS.parse(router)
    state = router.fit(fake_experts(SEEDS), SITES, None)
    flipped = {name: -t if t.is_floating_point() else t for name, t in state.items()}
    assert any(t.is_floating_point() for t in state.values())
    gates = [router.gate(SITE, s, sorted(SEEDS)) for s in (state, flipped)]
    found, other = (gate(hidden(), Context()) for gate in gates)
    assert torch.equal(found.experts, other.experts) and torch.equal(found.weights, other.weights)
    mirrored = gates[0](-hidden(), Context())
    assert torch.equal(found.experts, mirrored.experts) and torch.equal(found.weights, mirrored.weights)


@pytest.mark.parametrize("router", ["arrow:top_k=2", "spectr:top_k=2", "arrow:top_k=none"])
def test_twins_are_heard_alike_and_ties_go_to_the_first_name(router):
    name, router, twin = router, ROUTERS.parse(router), fake_experts({"one": 3})["one"]
    opposite = {site: Weights(-w.a, -w.b, w.scale) for site, w in twin.items()}  # the same product
    experts = {"a": twin, "b": opposite, "c": twin}
    routing = router.gate(SITE, router.fit(experts, SITES, None), sorted(experts))(hidden(), Context())
    kept = router.top_k or 3
    torch.testing.assert_close(routing.weights, torch.full_like(routing.weights, 1 / kept), atol=1e-6, rtol=0)
    if name == "arrow:top_k=2":  # the others' scores are sums, equal but for rounding, or all are kept
        assert (routing.experts == torch.arange(kept)).all()


# ---- options ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", WITH_TOP_K)
def test_more_than_there_are_is_all(name):
    many, all_of_them = (ROUTERS.load(name)(top_k=k) for k in (99, len(SEEDS)))
    found, expected = (route_with(r, SEEDS, hidden(), fake_context(4, [0, 1, 2, 3])) for r in (many, all_of_them))
    assert torch.equal(found, expected)


@pytest.mark.parametrize("name", WITH_TOP_K)
@pytest.mark.parametrize("top_k", [0, -1])
def test_none_of_them_is_refused(name, top_k):
    with pytest.raises(OptionError, match=rf"E-OPTION.* {name}: top_k={top_k}, expected 1 or more"):
        ROUTERS.load(name)(top_k=top_k)


@pytest.mark.parametrize("name", WITH_TEMPERATURE)
@pytest.mark.parametrize("temperature", [0.0, -1.0, 1e-300, 1e-45, 1e-7, math.inf, -math.inf, math.nan])
def test_temperatures_that_are_none_are_refused(name, temperature):
    with pytest.raises(OptionError, match=rf"E-OPTION.* {name}: temperature="):
        ROUTERS.load(name)(temperature=temperature)


@pytest.mark.parametrize("temperature", [1e-6, 1e-3, 1e30, 1e300])
def test_extreme_temperatures_give_shares_all_the_same(temperature):
    """The coldest give all to the best, the hottest the same to each."""
    weights = route_with(Arrow(top_k=None, temperature=temperature), SEEDS, hidden(), fake_context(4, [0, 1, 2, 3]))
    assert weights.isfinite().all()
    torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]))
    expected = 1.0 if temperature < 1 else 1 / len(SEEDS)
    assert ((weights.amax(-1) - expected).abs() < 1e-3).float().mean() > 0.9  # two may be as good


@pytest.mark.parametrize("name", sorted({*WITH_TOP_K} & {*WITH_TEMPERATURE} - {"compass"}))
def test_all_at_a_huge_temperature_are_uniform(name):
    router = ROUTERS.load(name)(top_k=len(SEEDS), temperature=1e9)
    weights = route_with(router, SEEDS, hidden(), fake_context(4, [0, 1, 2, 3]))
    torch.testing.assert_close(weights, torch.full_like(weights, 1 / len(SEEDS)), atol=1e-6, rtol=0)


# ---- half precision --------------------------------------------------------------------------------


def test_factors_in_half_precision_are_decomposed_in_full():
    a, b = draw(3, SITE.d_in).bfloat16(), draw(SITE.d_out, 3, seed=1).bfloat16()
    for half, full in zip(
        right_singular(Weights(a, b, 1.0)),
        right_singular(Weights(a.float(), b.float(), 1.0)),
        strict=True,
    ):
        assert half.dtype == torch.float32 and torch.equal(half, full)


def test_bfloat16_chooses_as_float32_does_where_there_is_a_choice():
    """At least 99 of 100 tokens whose best two are further apart than the rounding of their hidden states."""
    router = Arrow(top_k=1)
    gate = router.gate(SITE, router.fit(fake_experts(SEEDS), SITES, None), sorted(SEEDS))
    h = draw(20, 200, SITE.d_in, seed=2)
    full, half = gate(h, Context()).experts, gate(h.bfloat16(), Context()).experts
    scores = (h @ gate.vectors.T).abs().sort(-1, descending=True)[0]
    apart = scores[..., 0] - scores[..., 1] > 2**-8 * h.norm(dim=-1)
    assert apart.float().mean() > 0.8
    assert (full == half)[apart].float().mean() >= 0.99
    assert (full == half).float().mean() >= 0.95


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_largest_hidden_states_do_not_overflow(dtype):
    router = Arrow(top_k=2)
    gate = router.gate(SITE, router.fit(fake_experts(SEEDS), SITES, None), sorted(SEEDS))
    h = torch.full((1, 3, SITE.d_in), 0.9 * min(torch.finfo(dtype).max, 1e30), dtype=dtype)
    weights = gate(h, Context()).weights
    assert weights.isfinite().all()
    torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]))


# ---- in a model ------------------------------------------------------------------------------------


@pytest.mark.parametrize("router", ["arrow:top_k=2", "compass:n_texts=4,n_tokens=16"])
def test_a_prompt_is_routed_alone_as_it_is_in_a_batch_of_eight(router, tmp_path):
    """Padded on the left by up to thirty tokens: the same experts at every token and site, but for as good ones."""
    base = pico_base(seed=3)
    ids = torch.randint(2, 250, (8, 40), generator=torch.Generator().manual_seed(4))
    lengths = [40, 33, 27, 21, 17, 13, 10, 10]
    mask = torch.stack([(torch.arange(40) >= 40 - n).long() for n in lengths])
    seen = {}
    with route(base, random_library(tmp_path / "lib", base, 6), router) as model, torch.inference_mode():
        for site, layer in model._attachment.layers.items():
            layer.gate.register_forward_hook(lambda _gate, _args, found, site=site: seen.update({site: found}))
        together = model(input_ids=ids * mask, attention_mask=mask).logits
        batched = dict(seen)
        for row, n in enumerate(lengths):
            seen.clear()
            alone = model(input_ids=ids[row : row + 1, -n:]).logits
            torch.testing.assert_close(together[row, -n:], alone[0], atol=1e-3, rtol=1e-3)
            assert seen.keys() == batched.keys() and seen
            for site, routing in seen.items():
                agree = routing.experts[0].sort(-1)[0] == batched[site].experts[row, -n:].sort(-1)[0]
                assert agree.all(-1).float().mean() > 0.98, site


@pytest.mark.parametrize("mix", ["outputs", "factors"])
def test_a_prefill_needs_no_number_for_each_token_and_expert(mix, tmp_path):
    """Written out, what each of 48 experts adds to each of 480 tokens would be 2.8 MiB at a site of 32 outputs."""
    base = pico_base(seed=3)
    library = random_library(tmp_path / "lib", base, 48, targets=("q_proj", "down_proj"))
    ids = torch.randint(2, 250, (2, 240), generator=torch.Generator().manual_seed(4))

    def ask(model):
        with torch.inference_mode():
            return peak_mib(lambda: model(input_ids=ids))

    alone = ask(base.hf)
    with route(base, library, "arrow:top_k=4", mix=mix) as model:
        model(input_ids=ids[:, :4])  # whatever is made once
        routed = ask(model)
    assert routed - alone < 480 * 48 * 32 * 4 / 2**20 / 4
