"""The compass on numbers one can follow by hand; Arrow is one corner of it."""

from dataclasses import replace

import pytest
import torch

from lorary.adapters.contract import Site, Weights
from lorary.errors import OptionError, RoutingError
from lorary.folder import ROUTERS
from lorary.routing.contract import Context
from lorary.routing.directions import without_common
from lorary.routing.routers.arrow import Arrow
from lorary.routing.routers.compass import Compass
from lorary.routing.routers.spectr import SpectR
from lorary.testing.fakes import SITES, FakeProbe, dense, fake_context, fake_experts, route_with

NAMES = ("ant", "bee", "cat", "dog", "eel")
PLAIN = "compass:normalise=False,n_common=0,calibrate=False,now=1,up=0,strength=0"
SITE = Site("q", 2, 1)


def hidden(t=6, seed=3):
    return torch.randn(2, t, 12, generator=torch.Generator().manual_seed(seed))


def random_product(site, generator):
    a, b = (torch.randn(*shape, generator=generator) for shape in ((4, site.d_in), (site.d_out, 4)))
    return Weights(a, b, scale=0.5)


def gate_by_hand(router, vectors, written):
    state = {"q.vectors": torch.tensor(vectors), "q.members": torch.arange(len(vectors))}
    inputs = torch.tensor(written)[None]
    if router.calibrate:
        state["q.products"] = (inputs[0, 1:] @ state["q.vectors"].T).T
    return replace(router, strength=0.0).gate(SITE, state, [f"e{i}" for i in range(len(vectors))])


def test_arrow_is_a_corner_of_it():
    router = ROUTERS.parse(PLAIN)
    assert router.deciding_options() == {"name": "compass", "n_sketch": 0}
    seeds = {name: i for i, name in enumerate(NAMES)}
    found = [route_with(r, seeds, hidden(), fake_context(2, [0, 1])) for r in (router, Arrow())]
    assert torch.equal(*found)


def test_a_deviation_is_counted_in_spreads_of_the_base_s_own_texts():
    """Products 1 and 3 have mean 2 and deviation 1, so that 5 deviates by 3; the first token is left out."""
    plain = Compass(normalise=False, n_common=0, recent=0.0, up=1.0, top_k=None, skip_first=False)
    gate = gate_by_hand(plain, [[1.0, 0.0], [0.0, 1.0]], [[99.0, 99.0], [1.0, 0.0], [3.0, 4.0]])
    context = Context()
    weights = gate(torch.tensor([[[5.0, 2.0], [2.0, 6.0]]]), context).weights[0, :, 0]
    first = [3.0**2 - 1, 0.0**2 - 1]  # (5 - 2) / 1 and (2 - 2) / 2
    second = [(9 + 0) / 2 - 1, (0 + 4) / 2 - 1]  # the mean of two tokens
    torch.testing.assert_close(weights, torch.softmax(torch.tensor([first, second]), -1))
    torch.testing.assert_close(context.evidence.sums["q"], torch.tensor([[[7.0, 2.0]]]))


def test_the_first_token_of_a_text_is_no_evidence_and_the_nearest_share_it():
    """Deviations 1, 3 and 0: the second and the first expert are kept; then 9 - 1 and 0 - 1 are evidence."""
    gate = gate_by_hand(
        Compass(normalise=False, n_common=0, top_k=2), [[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]],
        [[0.0, 0.0], [1.0, 0.0], [3.0, 4.0]],
    )  # fmt: skip
    routing = gate(torch.tensor([[[3.0, 8.0], [5.0, 2.0]]]), Context())
    assert sorted(routing.experts[0, 0].tolist()) == [1, 2]  # (8 - 2) / 2 and (11 - 4) / 3 against (3 - 2) / 1
    torch.testing.assert_close(routing.weights[0, 0, 0], torch.tensor([0.5, 0.5]), atol=1e-5, rtol=0)
    assert routing.experts[0, 1].tolist() == [0, 2]
    torch.testing.assert_close(routing.weights[0, 1, 0], torch.softmax(2 * torch.tensor([8.0, 0.0]), -1))


def test_a_mixture_is_made_as_strong_as_its_experts():
    """Two of two equal experts are as strong as one; at right angles their half sums are weaker by sqrt(2)."""
    site, generator = Site("q", 256, 256), torch.Generator().manual_seed(0)
    ant, bee = (random_product(site, generator) for _ in range(2))
    twins, others = {"ant": ant, "bee": ant}, {"ant": ant, "bee": bee}
    for experts, power, expected in ((twins, 1.0, 1.0), (others, 1.0, 2**0.5), (others, 0.5, 2**0.25)):
        router = Compass(calibrate=False, top_k=None, n_sketch=1024, strength=power)
        state = router.fit({name: {"q": weights} for name, weights in experts.items()}, {"q": site}, None)
        routing = router.gate(site, state, list(experts))(torch.randn(1, 1, 256, generator=generator), Context())
        torch.testing.assert_close(routing.weights, torch.full((1, 1, 1, 2), 0.5), atol=1e-3, rtol=0)
        torch.testing.assert_close(routing.strength, torch.full((1, 1, 1, 1), expected), atol=0.1, rtol=0)


def test_experts_that_cancel_one_another_are_not_blown_up():
    site, generator = Site("q", 16, 16), torch.Generator().manual_seed(0)
    ant = random_product(site, generator)
    experts = {"ant": {"q": ant}, "bee": {"q": replace(ant, b=-ant.b)}}
    router = Compass(calibrate=False, top_k=None, strength=1.0)
    gate = router.gate(site, router.fit(experts, {"q": site}, None), list(experts))
    assert float(gate(torch.randn(1, 1, 16, generator=generator), Context()).strength) == pytest.approx(2**0.5)


def test_what_the_kept_do_not_get_goes_to_all():
    seeds = {name: i for i, name in enumerate(NAMES)}
    every, some = (
        route_with(Compass(top_k=k, rest=rest, strength=0.0), seeds, hidden(), fake_context(2, [0, 1]))
        for k, rest in ((None, "kept"), (2, "all"))
    )  # (B, T, 1, E)
    kept, index = every.topk(2, -1)
    expected = torch.zeros_like(every).scatter(-1, index, kept) + (1 - kept.sum(-1, keepdim=True)) / len(NAMES)
    torch.testing.assert_close(some, expected)
    assert (some[:, 1:].sum(-1) - 1).abs().max() < 1e-6


def test_the_tokens_read_last_count_once_more():
    """Half of the evidence is a mean in which the token before counts half, at a half-life of one token."""
    options = {"n_common": 0, "top_k": None, "skip_first": False, "normalise": False, "up": 1.0}
    gate = gate_by_hand(
        Compass(recent=0.5, half_life=1.0, **options), [[1.0, 0.0], [0.0, 1.0]], [[0.0, 0.0], [1.0, 0.0], [3.0, 4.0]]
    )
    found = gate(torch.tensor([[[5.0, 2.0], [2.0, 6.0]]]), Context()).weights[0, 1, 0]
    plain = [(9 + 0) / 2 - 1, (0 + 4) / 2 - 1]
    fading = [(9 / 2 + 0) / 1.5 - 1, (0 + 4) / 1.5 - 1]
    torch.testing.assert_close(found, torch.softmax(torch.tensor([plain, fading]).mean(0), -1))


def test_what_a_token_says_now_is_standardised_too():
    gate = gate_by_hand(
        Compass(normalise=False, n_common=0, now=1.0, up=0.0, top_k=None), [[1.0, 0.0], [0.0, 1.0]],
        [[0.0, 0.0], [-2.0, 0.0], [2.0, 1.0], [-1.0, 3.0], [1.0, 0.0]],
    )  # fmt: skip
    products = torch.tensor([[-2.0, 2, -1, 1], [0, 1, 3, 0]])
    standard = (products - products.mean(1, keepdim=True)) / products.std(1, correction=0, keepdim=True)
    now = (torch.tensor([3.0, 1.0]) - products.mean(1)) / products.std(1, correction=0)
    score = (now.abs() - standard.abs().mean(1)) / standard.abs().std(1, correction=0)
    found = gate(torch.tensor([[[3.0, 1.0]]]), Context()).weights[0, 0, 0]
    torch.testing.assert_close(found, torch.softmax(score, -1))


def test_the_size_of_an_input_says_nothing():
    router, seeds = Compass(), {name: i for i, name in enumerate(NAMES)}
    found = [route_with(router, seeds, size * hidden(), fake_context(2, [0, 1])) for size in (1.0, 50.0)]
    torch.testing.assert_close(*found)


def test_evidence_settles_on_the_expert_that_the_tokens_follow():
    """An expert whose direction every token follows a little gets more weight from token to token."""
    experts = fake_experts(NAMES)
    state = Compass().fit(experts, SITES, FakeProbe({name: i for i, name in enumerate(NAMES)}))
    site = SITES["layers.0.q"]
    h = 0.5 + hidden(40) + 1.5 * torch.nn.functional.normalize(state[f"{site.name}.vectors"][2], dim=0) * 12**0.5
    shares = dense(Compass(recent=0.0).gate(site, state, NAMES)(h, Context()), 5)[:, :, 0, 2]
    assert bool((shares[:, -1] > 0.8).all())
    assert float(shares[:, 20:].std(1).max()) < 0.1
    alone = dense(Compass(now=1.0, up=0.0).gate(site, state, NAMES)(h, Context()), 5)[:, :, 0, 2]
    assert float(alone[:, 20:].std(1).min()) > 0.1


def test_evidence_is_the_mean_over_the_sites_so_far():
    router, seeds = Compass(up=1.0, top_k=None), {name: i for i, name in enumerate(NAMES)}
    state = router.fit(fake_experts(NAMES), SITES, FakeProbe(seeds))
    gates = [router.gate(site, state, NAMES) for site in SITES.values()]
    together = Context()
    _, both = (gate(hidden(), together).weights[:, 1:].log() for gate in gates)
    each = [gate(hidden(), Context()).weights[:, 1:].log() for gate in gates]
    torch.testing.assert_close((both - (each[0] + each[1]) / 2).std(-1), torch.zeros(2, 5, 1), atol=1e-5, rtol=0)


def test_who_is_absent_from_a_site_shows_nothing_there():
    experts = {name: dict(sites) for name, sites in fake_experts(NAMES).items()}
    del experts["cat"]["layers.0.q"]
    router = Compass(top_k=None)
    state = router.fit(experts, SITES, FakeProbe({name: i for i, name in enumerate(NAMES)}))
    here, there = torch.zeros(2, 6, 5), [0, 1, 3, 4]
    context, first = Context(), router.gate(SITES["layers.0.q"], state, NAMES)
    assert not dense(first(hidden(), context), 5)[..., 2].any()
    risen = context.evidence.up_sites(here) * 2
    assert not risen[..., 2].any()
    assert bool(risen[:, 1:, there].any(-1).all())


def test_the_state_of_an_expert_is_its_own():
    """Without one expert the others' rows are the same bits: adding one costs one."""
    seeds = {name: i for i, name in enumerate(NAMES)}
    whole = Compass().fit(fake_experts(NAMES), SITES, FakeProbe(seeds))
    fewer = Compass().fit({n: w for n, w in fake_experts(NAMES).items() if n != "eel"}, SITES, FakeProbe(seeds))
    for site in SITES:
        for part in ("vectors", "products"):
            torch.testing.assert_close(fewer[f"{site}.{part}"], whole[f"{site}.{part}"][:4])


def test_ablations_share_a_state_and_other_texts_do_not():
    assert Compass(up=9, n_common=3, top_k=2).deciding_options() == Compass().deciding_options()
    for other in (Compass(seed=1), Compass(n_texts=3), Compass(opening="none"), Compass(normalise=False)):
        assert other.deciding_options() != Compass().deciding_options()


def test_a_gate_without_evidence_keeps_none():
    state = Compass().fit(fake_experts(NAMES), SITES, FakeProbe({}))
    for router, keeps in ((Compass(), True), (Compass(now=1.0, up=0.0), False), (Compass(up=0.0, along=1.0), True)):
        context = Context()
        gate = router.gate(SITES["layers.0.q"], state, NAMES)
        gate(hidden(), context)
        assert gate.keeps_evidence == keeps != context.evidence.is_empty


def test_a_site_without_experts_is_silent():
    routing = Compass().gate(SITE, {}, ["a", "b"])(torch.zeros(1, 1, 2), Context())
    assert torch.equal(routing.weights, torch.zeros(1, 1, 1, 2))


def test_a_state_of_other_experts_is_refused():
    state = {"q.vectors": torch.eye(2), "q.members": torch.tensor([0, 2])}
    with pytest.raises(RoutingError) as caught:
        Compass(calibrate=False).gate(SITE, state, ["a", "b"])
    assert str(caught.value) == "error[E-STATE] site 'q': the router's state is not of these experts. Fit anew."
    with pytest.raises(RoutingError) as caught:
        Compass(calibrate=False).gate(SITE, {**state, "q.members": torch.arange(2)}, ["a", "b"])
    assert str(caught.value) == "error[E-STATE] site 'q': the compass's state has no sketches. Fit anew."


def test_calibration_without_a_base_is_refused():
    with pytest.raises(RoutingError) as caught:
        Compass().fit(fake_experts(NAMES), SITES, None)
    assert str(caught.value) == (
        "error[E-PROBE] compass needs the base to write texts. Pass a probe, or calibrate=False."
    )
    with pytest.raises(OptionError) as refused:
        replace(Compass(), n_tokens=2)
    assert str(refused.value) == ("error[E-OPTION] compass: n_tokens=2, expected 3 or more.")
    for wrong in ({"recent": 1.5}, {"strength": -1.0}):
        with pytest.raises(OptionError, match="expected a number from 0 to 1"):
            replace(Compass(), **wrong)
    with pytest.raises(OptionError, match="expected a positive number"):
        replace(Compass(), half_life=0.0)


# ---- directions in common -------------------------------------------------------------------------


def test_without_what_they_share_rows_keep_their_own():
    shared, own = torch.tensor([3.0, 0, 0, 0]), torch.eye(4)[1:]
    rows = torch.nn.functional.normalize(shared + own, dim=1)
    found = without_common(rows, 1) @ rows
    expected = torch.nn.functional.normalize(own - own.mean(0), dim=1)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_signs_and_order_of_rows_do_not_matter():
    rows = torch.nn.functional.normalize(torch.randn(5, 9, generator=torch.Generator().manual_seed(0)) + 0.7, dim=1)
    signs, order = torch.tensor([1.0, -1, 1, -1, -1])[:, None], torch.tensor([3, 0, 4, 2, 1])
    found = without_common(rows, 2) @ rows
    torch.testing.assert_close(without_common(signs * rows, 2) @ (signs * rows), signs * found, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(without_common(rows[order], 2) @ rows[order], found[order], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("n_rows", "n"), [(1, 1), (2, 1), (2, 5), (0, 1)])
def test_few_rows_keep_what_tells_them_apart(n_rows, n):
    rows = torch.nn.functional.normalize(torch.randn(n_rows, 6, generator=torch.Generator().manual_seed(1)), dim=1)
    torch.testing.assert_close(without_common(rows, n) @ rows, rows)


# ---- SpectR ---------------------------------------------------------------------------------------


def test_spectr_measures_the_whole_update():
    """Golden: |B A h| from the dense product, ranks mixed."""
    site = SITES["layers.0.q"]
    experts = {"a": fake_experts(["a"], rank=3)["a"], "b": fake_experts({"b": 5}, rank=1)["b"]}
    router = SpectR(top_k=2, temperature=2.0)
    state = router.fit(experts, SITES, None)
    found = dense(router.gate(site, state, ["a", "b"])(hidden(), Context()), 2)[:, :, 0]
    lengths = torch.stack([(hidden() @ experts[n][site.name].delta().T).norm(dim=-1) for n in "ab"], -1)
    torch.testing.assert_close(found, torch.softmax(lengths / 2, -1), atol=1e-5, rtol=1e-5)
