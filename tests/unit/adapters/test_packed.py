"""A pack's bank: each row through its own expert, as if that one were alone, forward and backward."""

import pytest
import torch

from lorary.adapters.lora import LoRA
from lorary.adapters.low_rank import LowRankBank
from lorary.adapters.packed import Dropped, InputDropout, PackedBank, Rows
from lorary.testing.fakes import SITES
from lorary.testing.pico import random_weights

SITE = next(iter(SITES.values()))
EXPERTS = [random_weights(LoRA(rank=3), [SITE], seed=seed)[SITE.name] for seed in range(3)]


def rows_of(owners, n=3):
    counts = [owners.count(i) for i in range(n)]
    place = torch.cat([torch.arange(count) for count in counts])
    return Rows(torch.tensor(owners), place, is_even=len(set(counts)) == 1 and owners == sorted(owners))


def inputs(n_rows, n_tokens=5):
    generator = torch.Generator().manual_seed(n_rows)
    x = torch.randn(n_rows, n_tokens, SITE.d_in, generator=generator).requires_grad_()
    y = torch.randn(n_rows, n_tokens, SITE.d_out, generator=generator).requires_grad_()
    return x, y


@pytest.mark.parametrize("is_view", [False, True], ids=["y of its own", "y a view"])
@pytest.mark.parametrize("owners", [[0, 1, 2], [0, 0, 1, 1, 2, 2], [0, 0, 1, 2], [1, 1], [2, 0, 1, 0]], ids=str)
def test_a_row_goes_through_its_own_expert(owners, is_view):
    """Against the bank of routed models with one-hot weights: outputs, and gradients of everything.

    A linear layer with a bias gives a view.
    """
    packed, general = PackedBank(EXPERTS, rows_of(owners)), LowRankBank(EXPERTS, SITE).requires_grad_(True)
    one_hot = torch.eye(3)[owners][:, None, None]
    answers = []
    for bank in (packed, general):
        x, y = inputs(len(owners))
        given = (y.flatten(0, 1) * 1).view_as(y) if is_view else y * 1
        assert given._is_view() == is_view
        out = bank(x, given, one_hot, None, "outputs")
        out.pow(2).sum().backward()
        answers.append((out.detach(), x.grad, y.grad, bank.a.grad.flatten(0, -2), bank.b.grad.flatten(0, -2)))
    for found, expected in zip(*answers, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_flattened_rows_are_the_same_rows():
    """Some blocks of some models hand over (1, B * T, d)."""
    bank = PackedBank(EXPERTS, rows_of([0, 0, 1, 2]))
    x, y = inputs(4)
    with torch.no_grad():
        whole = bank(x, y.clone(), torch.ones(1, 1, 1, 1), None, "outputs")
        flat = bank(x.flatten(0, 1)[None], y.flatten(0, 1)[None].clone(), torch.ones(1, 1, 1, 1), None, "outputs")
    torch.testing.assert_close(flat[0], whole.flatten(0, 1))


def test_an_expert_comes_out_as_it_went_in():
    weights = PackedBank(EXPERTS, Rows()).unpack(1)
    assert torch.equal(weights.a, EXPERTS[1].a) and torch.equal(weights.b, EXPERTS[1].b)
    assert weights.scale == EXPERTS[1].scale


def dropped(owners, n_tokens, seed=7):
    dropout = InputDropout(0.5, 2, rows_of(owners))
    dropout.start(seed)
    first, second = (dropout(torch.ones(len(owners), n_tokens, 4)) for _ in range(2))
    dropout.stop()
    assert dropout(first) is first
    return first, second


def test_dropout_doesn_t_depend_on_the_pack_or_on_padding():
    alone = dropped([0, 0], 6)
    for owners, n_tokens, mine in (([0, 0, 1, 1, 2, 2], 6, slice(2, 4)), ([0, 1, 1, 2], 9, slice(1, 3))):
        for found, expected in zip(dropped(owners, n_tokens), alone, strict=True):
            assert torch.equal(found[mine, -6:], expected)
    assert not torch.equal(*alone), "two sites of one pass have masks of their own"
    assert not torch.equal(alone[0], dropped([0, 0], 6, seed=8)[0])


def test_dropout_keeps_the_mean():
    dropout = InputDropout(0.25, 64, rows_of([0] * 64, 1))
    dropout.start(1)
    found = dropout(torch.ones(64, 32, 16))
    assert found.unique().tolist() == pytest.approx([0, 4 / 3])
    assert found.mean() == pytest.approx(1, abs=0.02)


def test_a_dropped_bank_is_the_bank_on_what_is_left():
    rows = rows_of([0, 1, 2])
    dropout = InputDropout(0.5, 1, rows)
    bank = PackedBank(EXPERTS, rows)
    x, y = inputs(3)
    with torch.no_grad():
        dropout.start(3)
        expected = bank(dropout(x), y.clone(), torch.ones(1, 1, 1, 1), None, "outputs")
        dropout.start(3)
        found = Dropped(bank, dropout)(x, y.clone(), torch.ones(1, 1, 1, 1), None, "outputs")
    assert torch.equal(found, expected)
