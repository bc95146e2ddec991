"""A cap on each expert's share and a share for the base, whatever router chose."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lorary.errors import OptionError
from lorary.folder import ROUTERS
from lorary.options import to_spec
from lorary.routing.contract import Context, Gate, Routing
from lorary.routing.routers.arrow import Arrow
from lorary.routing.routers.bounded import Bounded, _BoundedGate, _capped
from lorary.routing.routers.compass import Compass
from lorary.testing.fakes import SITES, FakeProbe, dense, fake_context, fake_experts

SEEDS = {name: i for i, name in enumerate("abcde")}
SITE = SITES["layers.0.q"]


class Fixed(Gate):
    """A gate that always answers the same."""

    def __init__(self, *weights, strength=None):
        super().__init__()
        self.routing = Routing(torch.tensor(weights)[None, None, None], None, strength)

    def forward(self, h, context):
        return self.routing


def bounded(*weights, strength=None, **options):
    routing = _BoundedGate(Fixed(*weights, strength=strength), Bounded(**options))(torch.zeros(1, 1, 2), Context())
    return routing.weights[0, 0, 0].tolist(), None if routing.strength is None else routing.strength.item()


@pytest.mark.parametrize(
    ("weights", "bound", "expected", "share"),
    [
        ((0.7, 0.2, 0.1), 0.5, (0.5, 0.2 / 0.6, 0.1 / 0.6), 1.0),  # in proportion
        ((0.9, 0.09, 0.01), 0.4, (0.4, 0.4, 0.2), 1.0),  # who gets some is capped as well
        ((0.3, 0.4, 0.3), 0.5, (0.3, 0.4, 0.3), 1.0),
        ((1.0, 0.0, 0.0), 0.25, (1.0, 0.0, 0.0), 0.25),  # nobody else was chosen: the rest is the base's
        ((0.6, 0.4, 0.0), 0.25, (0.5, 0.5, 0.0), 0.5),
        ((0.0, 0.0, 0.0), 0.25, (0.0, 0.0, 0.0), 1.0),
        ((0.25, 0.25, 0.25, 0.25), 0.25, (0.25, 0.25, 0.25, 0.25), 1.0),
    ],
)
def test_the_cap_by_hand(weights, bound, expected, share):
    found, strength = bounded(*weights, max_share=bound)
    assert found == pytest.approx(expected, abs=1e-6)
    assert strength == pytest.approx(share, abs=1e-6)


@pytest.mark.parametrize("weights", [(0.9, 0.09, 0.01), (1.0, 0.0, 0.0)])
def test_what_is_cut_off_may_be_left_to_the_base(weights):
    found, strength = bounded(*weights, max_share=0.4, rest="base")
    assert [w * strength for w in found] == pytest.approx([0.4, *weights[1:]])


def test_the_base_s_share_comes_on_top_of_all_strengths():
    loud = torch.full((1, 1, 1, 1), 1.5)
    found, strength = bounded(1.0, 0.0, strength=loud, max_share=0.5, base=0.2)
    assert found == [1, 0] and strength == pytest.approx(1.5 * 0.8 * 0.5)
    assert bounded(0.5, 0.5, base=0.2) == ([0.5, 0.5], pytest.approx(0.8))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.just(0.0) | st.floats(1e-5, 1), min_size=1, max_size=9), st.floats(0.01, 0.999))
def test_no_expert_gets_more_and_as_much_as_can_be_is_given(numbers, bound):
    weights = torch.tensor(numbers)[None, None, None]
    if weights.sum() < 1e-3:
        return
    weights = weights / weights.sum()
    left, taken = _capped(weights, bound, shared_out=True)
    shares = left * taken
    assert bool((shares <= bound * (1 + 1e-4)).all()) and bool((shares >= 0).all())
    n = int((weights > 0).sum())
    assert taken.item() == pytest.approx(min(1.0, n * bound), rel=1e-3, abs=1e-4)
    order = weights.flatten().argsort()
    assert bool((shares.flatten()[order].diff() >= -1e-6).all()), "who had more has no less"


@pytest.mark.parametrize("name", [name for name in ROUTERS.names() if name not in ("poly", "mhr", "bounded")])
def test_it_bounds_every_router(name):
    """One option for all; without bounds it is the router itself, to the bit."""
    router, experts, probe = ROUTERS.load(name)(), fake_experts(SEEDS), FakeProbe(SEEDS)
    h = torch.randn(3, 7, 12, generator=torch.Generator().manual_seed(0))

    def routed(one):
        gate = one.gate(SITE, one.fit(experts, SITES, probe), sorted(SEEDS))
        return gate(h, fake_context(3, [0, 1, 2]))

    plain, same, capped = map(routed, (router, Bounded(router), Bounded(router, max_share=0.3, base=0.1)))
    assert torch.equal(plain.weights, same.weights)
    assert (plain.strength is None) == (same.strength is None)
    strength = 1 if plain.strength is None else plain.strength
    shares = dense(capped, 5) * (capped.strength / strength)
    assert shares.max() <= 0.9 * 0.3 * (1 + 1e-5) * (1.0 if name != "switch" else 1.001)
    assert not torch.equal(dense(capped, 5), dense(plain, 5)) or dense(plain, 5).max() <= 0.3 or shares.max() < 0.3


def test_bounds_share_the_state_of_the_router_within():
    assert Bounded(Arrow(), base=0.1).deciding_options() == Bounded(Arrow(), max_share=0.5).deciding_options()
    assert Bounded(Arrow()).deciding_options() != Bounded(Compass()).deciding_options()
    assert Bounded(Compass()).needs == {"base"}


def test_it_is_written_in_a_line():
    spec = "bounded:of=(shortlist:of=arrow,then=(compass:now=1.0,up=3.0),n=8),max_share=0.5,base=0.2"
    assert ROUTERS.parse(spec.replace("of=arrow,", "")) == ROUTERS.parse(spec)
    assert to_spec(ROUTERS.parse(spec)) == spec.replace("of=arrow,", "")


@pytest.mark.parametrize("option", ["max_share=0", "max_share=1.5", "base=1", "base=-0.1"])
def test_shares_that_are_none_are_refused(option):
    with pytest.raises(OptionError, match=r"error\[E-OPTION\] bounded: .*, expected a number"):
        ROUTERS.parse(f"bounded:{option}")
