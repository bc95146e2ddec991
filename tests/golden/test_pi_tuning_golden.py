"""Pi-tuning's interpolation against numbers computed by hand from the formula of its code."""

import math

import pytest
import torch

from lorary.adapters.contract import Site, Weights
from lorary.adapters.low_rank import LowRankBank
from lorary.building.builders.pi_tuning import PiTuning, _layer_of, _SharesGate, _sum
from lorary.routing.contract import Context

SITE = Site("q", 2, 2)
ONE = Weights(torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0], [3.0]]), scale=1.0)
TWO = Weights(torch.tensor([[5.0, -2.0]]), torch.tensor([[-1.0], [1.0]]), scale=2.0)
X = torch.tensor([[[1.0, 1.0]]])


def test_the_interpolation_by_hand():
    """z = (0, ln 3): softmax (1/4, 3/4).

    Products: 1/4 ((1, 2), (3, 6)) + 3/4 * 2 ((-5, 2), (5, -2)) = ((-29/4, 7/2), (33/4, -3/2)).
    Of (1, 1): (-15/4, 27/4).
    """
    bank, gate = LowRankBank([ONE, TWO], SITE), _SharesGate(torch.tensor([0.0, math.log(3)]))
    torch.testing.assert_close(gate.shares, torch.tensor([0.25, 0.75]))
    routing = gate(X, Context())
    found = bank(X, torch.zeros(1, 1, 2), routing.weights, routing.experts, "outputs")
    torch.testing.assert_close(found, torch.tensor([[[-3.75, 6.75]]]))
    whole = _sum("t", "q", bank, gate.shares.tolist())
    assert (whole.rank, whole.scale) == (2, 1.0)
    torch.testing.assert_close(whole.delta(), torch.tensor([[-7.25, 3.5], [8.25, -1.5]]))


def test_the_gradient_of_the_shares_by_hand():
    """L = the sum of the answer to (1, 1): expert one gives 3 + 9 = 12, expert two 2 (-3 + 3) = 0.

    L = 1/4 * 12 = 3; dL/dz_i = w_i (L_i - L) = (1/4 * 9, 3/4 * -3) = (9/4, -9/4).
    """
    bank, gate = LowRankBank([ONE, TWO], SITE), _SharesGate(torch.tensor([0.0, math.log(3)]))
    gate.logits.requires_grad_(True)
    routing = gate(X, Context())
    loss = bank(X, torch.zeros(1, 1, 2), routing.weights, routing.experts, "outputs").sum()
    loss.backward()
    assert loss.item() == pytest.approx(3.0)
    torch.testing.assert_close(gate.logits.grad, torch.tensor([2.25, -2.25]))


def test_the_sites_of_one_attention_layer_share_their_weights():
    names = ["m.3.self_attn.q_proj", "m.3.self_attn.o_proj", "m.3.mlp.up_proj", "m.4.self_attn.q_proj"]
    assert [_layer_of(name) for name in names] == ["m.3.self_attn", "m.3.self_attn", "m.3.mlp", "m.4.self_attn"]


def test_the_shares_start_at_the_cosines_or_even():
    """At 0.5 the cosines (1, 0.5) are z = (2, 1), so that e : 1; the authors' code starts at (1, 1)."""
    near, even = (PiTuning(temperature=0.5, even_start=even)._first_logits([0.5]) for even in (False, True))
    torch.testing.assert_close(_SharesGate(near).shares, torch.tensor([math.e, 1.0]) / (math.e + 1))
    assert _SharesGate(even).shares.tolist() == [0.5, 0.5]
