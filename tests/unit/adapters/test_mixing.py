"""All paths of mixing give what the formulas say, for random shapes, ranks, absent experts and dtypes."""

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lorary.adapters.contract import Site, Weights
from lorary.adapters.low_rank import LowRankBank
from lorary.adapters.mixing.mix import mix_low_rank
from lorary.adapters.mixing.tuning import STRATEGIES
from lorary.errors import AdapterError
from lorary.routing.contract import Routing
from lorary.testing.fakes import dense

SETTINGS = settings(max_examples=60, deadline=None, derandomize=True)


@dataclass
class Case:
    site: Site
    experts: list[Weights | None]
    x: torch.Tensor
    y: torch.Tensor
    routing: Routing

    @property
    def bank(self):
        return LowRankBank(self.experts, self.site)


@st.composite
def cases(draw, *, equal_ranks=False, n_splits=1):
    size = st.integers(1, 4)
    d_in, d_out = n_splits * draw(st.integers(1, 5)), n_splits * draw(st.integers(1, 5))
    n_batch, n_time, n_experts = draw(size), draw(size), draw(st.integers(1, 5))
    common = draw(st.integers(1, 3))
    ranks = [draw(st.sampled_from([0, common] if equal_ranks else [0, 1, 2, 3])) for _ in range(n_experts)]
    ranks[draw(st.integers(0, n_experts - 1))] = common  # a site exists because somebody is there
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))

    def random(*shape):
        return torch.randn(*shape, generator=generator)

    experts = [Weights(random(r, d_in), random(d_out, r), 0.5 + i) if r else None for i, r in enumerate(ranks)]
    kept = draw(st.none() | st.integers(1, n_experts))
    shared = [draw(st.booleans()) for _ in range(2)]
    shape = (1 if shared[0] else n_batch, 1 if shared[1] else n_time, n_splits, kept or n_experts)
    index = None
    if kept is not None:
        index = torch.rand(n_batch, n_time, n_experts, generator=generator).argsort(-1)[..., :kept]
    x, y = random(n_batch, n_time, d_in), random(n_batch, n_time, d_out)
    return Case(Site("layer", d_in, d_out), experts, x, y, Routing(torch.softmax(random(*shape), -1), index))


def naive(case, mix):
    """Loop over rows, tokens and experts, with every matrix written out."""
    w = dense(case.routing, len(case.experts)).expand(*case.x.shape[:2], -1, -1)
    found = case.y.clone()
    for b, t in torch.cartesian_prod(*map(torch.arange, case.x.shape[:2])).view(-1, 2).tolist():
        present = [(i, e) for i, e in enumerate(case.experts) if e is not None]
        if mix == "outputs":
            found[b, t] += sum(w[b, t, 0, i] * e.delta() @ case.x[b, t] for i, e in present)
            continue
        n_splits = w.shape[2]
        a = torch.cat([sum(w[b, t, s, i] * e.a.chunk(n_splits, 1)[s] for i, e in present) for s in range(n_splits)], 1)
        out = [sum(w[b, t, s, i] * e.scale * e.b.chunk(n_splits, 0)[s] for i, e in present) for s in range(n_splits)]
        found[b, t] += torch.cat(out) @ (a @ case.x[b, t])
    return found


def every_strategy(bank, x, y, routing, mix):
    for strategy in STRATEGIES:
        yield mix_low_rank(bank, x, y, routing.weights, routing.experts, mix, strategy)


def check(case, mix):
    expected = naive(case, mix)
    for found in every_strategy(case.bank, case.x, case.y, case.routing, mix):
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@SETTINGS
@given(cases())
def test_outputs(case):
    check(case, "outputs")


@SETTINGS
@given(cases(equal_ranks=True))
def test_factors(case):
    check(case, "factors")


@pytest.mark.slow
@SETTINGS
@given(st.integers(2, 3).flatmap(lambda n: cases(equal_ranks=True, n_splits=n)))
def test_factors_with_weights_per_block(case):
    check(case, "factors")


@settings(SETTINGS, max_examples=20)
@given(
    cases(equal_ranks=True), st.sampled_from([torch.bfloat16, torch.float16]), st.sampled_from(["outputs", "factors"])
)
def test_half_precision_is_near_and_stays_half(case, dtype, mix):
    expected = naive(case, mix)
    size = 1 + sum(e.scale * e.a.abs().sum() * e.b.abs().max() for e in case.experts if e) * case.x.abs().max()
    for found in every_strategy(case.bank.cast(dtype), case.x.to(dtype), case.y.to(dtype), case.routing, mix):
        assert found.dtype == dtype
        assert (found.float() - expected).abs().max() < 0.03 * size


@SETTINGS
@given(cases(equal_ranks=True), st.sampled_from(["outputs", "factors"]), st.randoms(use_true_random=False))
def test_the_order_of_experts_does_not_matter(case, mix, random):
    order = list(range(len(case.experts)))
    random.shuffle(order)
    place = torch.tensor(order).argsort()  # of expert i among the shuffled
    weights, index = case.routing.weights, case.routing.experts
    shuffled = Routing(weights[..., torch.tensor(order)], None) if index is None else Routing(weights, place[index])
    bank = LowRankBank([case.experts[i] for i in order], case.site)
    expected = case.bank(case.x, case.y, weights, index, mix)
    for found in every_strategy(bank, case.x, case.y, shuffled, mix):
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@SETTINGS
@given(cases(equal_ranks=True), st.sampled_from(["outputs", "factors"]), st.data())
def test_what_stands_in_a_padded_row_touches_no_other(case, mix, data):
    padded = data.draw(st.integers(0, case.x.shape[0] - 1))
    others = torch.arange(case.x.shape[0]) != padded
    x, y = case.x.clone(), case.y.clone()
    x[padded], y[padded] = torch.nan, torch.inf
    clean = every_strategy(case.bank, case.x, case.y, case.routing, mix)
    for found, expected in zip(every_strategy(case.bank, x, y, case.routing, mix), clean, strict=True):
        assert torch.equal(found[others], expected[others])


def expert(rank, d_in=4, d_out=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return Weights(torch.randn(rank, d_in, generator=generator), torch.randn(d_out, rank, generator=generator), 1.0)


SITE = Site("layers.0.q", 4, 6)


def test_neither_y_nor_the_bank_is_changed():
    bank = LowRankBank([expert(2), expert(3)], SITE)
    before = bank.a.clone(), bank.b.clone()
    x, y = torch.randn(1, 3, 4), torch.randn(1, 3, 6)
    kept = y.clone()
    bank(x, y, torch.full((1, 1, 1, 2), 0.5), None, "outputs")
    assert torch.equal(y, kept)
    assert torch.equal(bank.a, before[0]) and torch.equal(bank.b, before[1])


def test_unequal_ranks_have_no_mixed_factors():
    bank = LowRankBank([expert(4), None, expert(8)], SITE)
    with pytest.raises(AdapterError) as caught:
        bank(torch.zeros(1, 1, 4), torch.zeros(1, 1, 6), torch.ones(1, 1, 1, 3), None, "factors")
    assert str(caught.value) == (
        'error[E-RANK] mix="factors" needs one rank for all experts of a layer, found [4, 8]. '
        'Use mix="outputs", or rebuild with one rank.'
    )


def test_weights_per_block_need_mixed_factors():
    bank = LowRankBank([expert(4), expert(4)], SITE)
    with pytest.raises(AdapterError) as caught:
        bank(torch.zeros(1, 1, 4), torch.zeros(1, 1, 6), torch.ones(1, 1, 2, 2), None, "outputs")
    assert str(caught.value) == 'error[E-SPLIT] weights per block (S > 1) are defined for mix="factors" only.'


def test_an_expert_of_another_base_is_refused():
    with pytest.raises(AdapterError) as caught:
        LowRankBank([expert(4), expert(4, d_in=5)], SITE)
    assert str(caught.value) == (
        "error[E-SHAPE] site 'layers.0.q': expert is 5 -> 6, the base is 4 -> 6. Was it trained on another base?"
    )


def test_unpacking_gives_back_what_was_packed():
    packed = [expert(2, seed=1), None, expert(3, seed=2)]
    bank = LowRankBank(packed, SITE)
    for i in (0, 2):
        found = bank.unpack(i)
        assert (
            torch.equal(found.a, packed[i].a) and torch.equal(found.b, packed[i].b) and found.scale == packed[i].scale
        )
    assert bank.layout.ranks == (2, 0, 3)
    assert bank.layout.common_rank is None
