"""Products of whole experts, compared with the full matrices that they stand for."""

import pytest
import torch

from lorary.adapters.contract import Weights
from lorary.adapters.products import inner_products, padded, runs, sketch, svd_of, svd_of_sum
from lorary.errors import AdapterError
from lorary.testing.fakes import fake_experts


def mixed_experts():
    """Make experts of ranks 1 to 4 and different scales; one lacks a site."""
    found = []
    for i in range(7):
        expert = dict(fake_experts({"x": i}, rank=i % 4 + 1)["x"])
        found.append({site: Weights(w.a, w.b, 0.5 + i) for site, w in expert.items()})
    del found[3]["layers.0.q"]
    return found


def flat_deltas(experts):
    sites = sorted(experts[0])
    empty = torch.zeros(10, 12)
    rows = [torch.cat([(e[s].delta() if s in e else empty).flatten() for s in sites]) for e in experts]
    return torch.stack(rows).double()


@pytest.mark.parametrize("block_bytes", [1, 300, 1 << 20])
def test_inner_products_are_those_of_the_full_matrices(block_bytes):
    experts = mixed_experts()
    rows = flat_deltas(experts)
    found = inner_products(experts, block_bytes=block_bytes)
    torch.testing.assert_close(found, rows @ rows.T, rtol=1e-5, atol=1e-5)
    assert torch.equal(found, found.T)


def test_it_does_not_matter_how_the_factors_are_written():
    experts = mixed_experts()
    turn = torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(0))).Q * 3
    written = {
        site: Weights(turn @ w.a, w.b @ torch.linalg.inv(turn) * w.scale / 2, 2.0) for site, w in experts[-4].items()
    }
    before = inner_products(experts)
    after = inner_products([*experts[:-4], written, *experts[-3:]])
    torch.testing.assert_close(before, after, rtol=1e-4, atol=1e-4)


def test_sketches_are_as_long_and_as_far_apart_as_the_products():
    """With 100,000 numbers a hundredth is right; equal products written differently have equal sketches."""
    ant, bee = (fake_experts(["ant", "bee"])[name]["layers.0.q"] for name in ("ant", "bee"))
    one, other = (sketch(weights, 100_000).double() for weights in (ant, bee))
    exact = [(x.delta().double() * y.delta()).sum() for x, y in ((ant, ant), (bee, bee), (ant, bee))]
    found = [(x * y).sum() for x, y in ((one, one), (other, other), (one, other))]
    torch.testing.assert_close(torch.stack(found), torch.stack(exact), rtol=0, atol=0.02 * float(max(exact)))
    turn = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(0)))[0]
    again = Weights(turn @ ant.a, ant.b @ turn.T, ant.scale)
    torch.testing.assert_close(sketch(again, 64), sketch(ant, 64))


def test_experts_of_different_bases_are_refused():
    narrow = {"layers.0.q": Weights(torch.ones(2, 5), torch.ones(10, 2), 1.0)}
    with pytest.raises(AdapterError) as caught:
        inner_products([*mixed_experts()[:1], narrow])
    assert str(caught.value) == (
        "error[E-SHAPE] site 'layers.0.q': experts are 5 -> 10 and 12 -> 10. Were they trained on different bases?"
    )


def test_runs_never_cut_what_belongs_together():
    assert list(runs([3, 3, 3, 9, 1], 6)) == [(0, 2), (2, 3), (3, 4), (4, 5)]
    assert list(runs([], 6)) == []


def test_the_svd_of_a_sum_is_that_of_the_full_matrix():
    parts = [e["layers.1.q"] for e in mixed_experts()[:3]]
    shares = [0.5, -2.0, 1.0]
    full = sum(share * w.delta().double() for share, w in zip(shares, parts, strict=True))
    found = svd_of_sum(parts, shares)
    torch.testing.assert_close(found.u @ torch.diag(found.s) @ found.v.T, full, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(found.s, torch.linalg.svdvals(full)[: len(found.s)], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(svd_of(full.float()).s[:6], found.s[:6], rtol=1e-5, atol=1e-5)
    assert found.rank == 6 == sum(w.rank for w in parts)


def test_truncation_says_what_it_leaves_out():
    parts = [e["layers.1.q"] for e in mixed_experts()[:3]]
    found = svd_of_sum(parts, [1.0, 1.0, 1.0])
    full = sum(w.delta() for w in parts)
    kept, lost = found.keep(2)
    assert (kept.rank, kept.scale) == (2, 1.0)
    assert lost == pytest.approx(float((full - kept.delta()).pow(2).sum()), rel=1e-4)
    whole, nothing = found.keep(found.rank)
    assert (whole.rank, nothing) == (6, pytest.approx(0, abs=1e-9))
    torch.testing.assert_close(whole.delta(), full)
    assert padded(kept, 5).rank == 5
    torch.testing.assert_close(padded(kept, 5).delta(), kept.delta())


@pytest.mark.parametrize("decay", [0.0, 0.5, 1.0])
def test_a_sketch_is_nearly_the_nearest(decay):
    generator = torch.Generator().manual_seed(0)
    values = torch.arange(1, 201).float() ** -decay
    u, v = (torch.linalg.qr(torch.randn(200, 200, generator=generator)).Q for _ in range(2))
    full = u * values @ v.T
    found = svd_of(full, 10)
    kept, lost = found.keep(10)
    best = float(values[10:].pow(2).sum())
    assert float((full - kept.delta()).pow(2).sum()) == pytest.approx(lost, rel=1e-3)
    assert best * 0.999 < lost < best * 1.05
    assert (svd_of(full, 26).keep(26)[1] - float(values[26:].pow(2).sum())) / best < 1e-5
    again = svd_of(full, 10).keep(10)[0]
    assert torch.equal(again.a, kept.a)
