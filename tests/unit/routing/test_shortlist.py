"""One router lists experts, another chooses among them."""

import pytest
import torch

from lorary.adapters.contract import Site, Weights
from lorary.errors import OptionError
from lorary.folder import ROUTERS
from lorary.options import as_dict, make, to_spec
from lorary.routing.contract import Context
from lorary.routing.routers.arrow import Arrow
from lorary.routing.routers.compass import Compass
from lorary.routing.routers.oracle import Oracle
from lorary.routing.routers.shortlist import Shortlist
from lorary.routing.routers.spectr import SpectR
from lorary.routing.routers.uniform import Uniform
from lorary.testing.fakes import SITES, FakeProbe, dense, fake_context, fake_experts

SITE = Site("q", 2, 1)
H = torch.tensor([[[3.0, 4.0], [-2.0, 0.5]]])  # (1, 2, 2)
SEEDS = {name: i for i, name in enumerate("abcdef")}
ALL = ("arrow:top_k=2", "spectr", "uniform", "centroid:top_k=2", "task_predictor", "compass", "switch", "phatgoose")


def pointing(x, y):
    return {"q": Weights(torch.tensor([[x, y]]), torch.ones(1, 1), 1.0)}


def weights_of(router, experts, h=H, context=None):
    state = router.fit(experts, {"q": SITE}, None)
    return dense(router.gate(SITE, state, sorted(experts))(h, context or Context()), len(experts))[0, :, 0]


def test_only_the_listed_count_in_the_second_s_softmax():
    experts = {"a": pointing(1.0, 0.0), "b": pointing(0.0, 9.0), "c": pointing(0.6, 0.8)}
    found = weights_of(Shortlist(Arrow(), SpectR(top_k=None), n=2), experts)
    one = torch.softmax(torch.tensor([36.0, 5.0]), 0)  # |B A h| of b and c; the first token lists them
    other = torch.softmax(torch.tensor([2.0, 0.8]), 0)  # of a and c; the second lists these
    expected = torch.tensor([[0, one[0], one[1]], [other[0], 0, other[1]]])
    torch.testing.assert_close(found, expected)


def test_whom_the_first_gives_nothing_is_not_listed():
    experts = {"a": pointing(1.0, 0.0), "b": pointing(0.0, 1.0), "c": pointing(0.6, 0.8)}
    found = weights_of(Shortlist(Oracle(), Arrow(), n=2), experts, context=Context(experts=torch.tensor([1])))
    assert found.tolist() == [[0, 1, 0], [0, 1, 0]]


def test_a_token_whose_listed_experts_are_absent_is_left_to_the_base():
    experts = {"a": pointing(1.0, 0.0), "b": {}, "c": pointing(0.6, 0.8)}
    found = weights_of(Shortlist(Oracle(), Arrow(), n=1), experts, context=Context(experts=torch.tensor([1])))
    assert not found.any()


@pytest.mark.parametrize("of", ALL)
@pytest.mark.parametrize("then", ALL)
def test_a_list_of_the_whole_library_is_the_second_router(of, then):
    """To the bit; so the first isn't even asked."""
    if "compass" in (of, then) and of == then:
        pytest.skip("both keep evidence")
    site, names = SITES["layers.0.q"], sorted(SEEDS)
    h = torch.randn(3, 7, site.d_in, generator=torch.Generator().manual_seed(0))
    alone, both = ROUTERS.parse(then), ROUTERS.parse(f"shortlist:of={of},then={then},n={len(names)}")
    experts, probe = fake_experts(SEEDS), FakeProbe(SEEDS)
    one, other = (
        router.gate(site, router.fit(experts, SITES, probe), names)(h, fake_context(3, [0, 1, 2]))
        for router in (alone, both)
    )
    assert torch.equal(dense(one, 6), dense(other, 6))
    assert (one.strength is None) == (other.strength is None)
    assert one.strength is None or torch.equal(one.strength, other.strength)


def test_lists_of_different_lengths_share_a_state():
    one, other = Shortlist(n=3), Shortlist(n=5)
    assert one.deciding_options() == other.deciding_options()
    assert one.deciding_options() != Shortlist(of=Compass()).deciding_options()
    assert one.deciding_options() != Shortlist(of=one.then, then=one.of).deciding_options()


def test_it_needs_what_both_need():
    assert Shortlist().needs == frozenset()
    assert Shortlist(of=Compass(), then=Oracle()).needs == {"base", "task"}


SPECS = [
    "shortlist",
    "shortlist:of=spectr:top_k=2,n=8",
    "shortlist:of=(arrow:temperature=2.0,tie=(q_proj,k_proj)),then=(compass:now=1.0,up=3.0)",
    "shortlist:of=(shortlist:of=uniform,n=3),then=(task_predictor:encoder=minilm,top_k=1),n=2",
]


@pytest.mark.parametrize("spec", SPECS)
def test_routers_within_routers_are_written_and_read(spec):
    router = ROUTERS.parse(spec)
    assert to_spec(router) == spec
    options = as_dict(router)
    assert make(ROUTERS.load(options.pop("name")), options) == router


def test_quotes_will_do_instead_of_brackets():
    assert ROUTERS.parse('shortlist:of="arrow:top_k=2,temperature=2"').of == Arrow(top_k=2, temperature=2.0)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("shortlist:n=0", "error[E-OPTION] shortlist: n=0, expected more than 0."),
        ("shortlist:of=(aro:top_k=2)", "error[E-NAME] unknown router 'aro'. Did you mean 'arrow'?"),
        ("shortlist:of=(arrow:top=2,x=1)", "error[E-OPTION] arrow: unknown option 'top'."),
        (
            "shortlist:then=poly",
            "error[E-OPTION] shortlist: poly can't be asked by another router: its tasks have numbers of their own.",
        ),
        (
            "shortlist:of=task_predictor,then=task_predictor:encoder=minilm",
            "error[E-OPTION] shortlist: task_predictor and task_predictor read whole prompts in different ways. Give "
            "them the same encoder",
        ),
        ("shortlist:of=logo,then=task_predictor", "error[E-OPTION] shortlist: logo and task_predictor read whole"),
        ("shortlist:of=logo,then=logo:top_k=1", "error[E-OPTION] shortlist: logo and logo read whole prompts in"),
        ("shortlist:" + "of=shortlist:" * 2000, "error[E-OPTION] 'shortlist:of=shortlist:of=shortlist:of=s'...: more"),
        ("shortlist:of=" + "(shortlist:of=" * 2000, "error[E-OPTION]"),
    ],
)
def test_what_makes_no_sense_is_refused(spec, message):
    with pytest.raises(OptionError) as caught:
        ROUTERS.parse(spec)
    assert str(caught.value).startswith(message)


def test_a_saved_router_of_no_kind_is_refused():
    with pytest.raises(OptionError, match="expected a router, such as arrow:top_k=2"):
        make(Shortlist, {"of": {"top_k": 2}}, called="shortlist")


def test_two_that_keep_evidence_are_refused():
    router = Shortlist(Compass(), Compass(now=1.0), n=2)
    with pytest.raises(OptionError, match="`of` and `then` both gather evidence"):
        router.gate(SITES["layers.0.q"], router.fit(fake_experts(SEEDS), SITES, FakeProbe(SEEDS)), sorted(SEEDS))


def test_only_a_gate_that_keeps_evidence_makes_it_keep_some():
    experts, probe, site = fake_experts(SEEDS), FakeProbe(SEEDS), SITES["layers.0.q"]
    for router, keeps in (
        (Shortlist(Uniform(), Compass(), n=2), True),
        (Shortlist(Compass(), Arrow(), n=2), True),
        (Shortlist(Compass(), Arrow(), n=6), False),
        (Shortlist(n=2), False),
    ):
        state = router.fit(experts, SITES, probe)
        assert router.gate(site, state, sorted(SEEDS)).keeps_evidence == keeps
        assert not router.instant_gate(site, state, sorted(SEEDS)).keeps_evidence
