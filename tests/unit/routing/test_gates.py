"""Routers on numbers one can follow by hand, and the options they refuse."""

import math
from unittest.mock import patch

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lorary.adapters.contract import Site, Weights
from lorary.errors import OptionError, RoutingError, TaskError
from lorary.folder import ROUTERS
from lorary.options import to_spec
from lorary.routing.contract import Context
from lorary.routing.directions import right_singular
from lorary.routing.routers.arrow import Arrow
from lorary.routing.routers.centroid import Centroid
from lorary.routing.routers.compass import Compass
from lorary.routing.routers.oracle import Oracle
from lorary.routing.routers.spectr import SpectR
from lorary.routing.routers.task_predictor import TaskPredictor
from lorary.routing.routers.uniform import Uniform
from lorary.routing.scored import keep_best
from lorary.testing.fakes import N_FEATURES, SITES, FakeProbe, dense, fake_experts, one_row

SITE = Site("q", 2, 1)
H = torch.tensor([[[3.0, 4.0], [0.0, 0.0], [-2.0, 0.0]]])  # (1, 3, 2)


def pointing(x, y):
    """Make an expert that listens to one direction."""
    return {"q": Weights(torch.tensor([[x, y]]), torch.ones(1, 1), 1.0)}


def weights_of(router, experts, h=H, context=None, probe=None):
    state = router.fit(experts, {"q": SITE}, probe)
    return dense(router.gate(SITE, state, sorted(experts))(h, context or Context()), len(experts))


def softmax(*scores):
    total = sum(math.exp(s) for s in scores)
    return [math.exp(s) / total for s in scores]


def test_arrow_by_hand():
    experts = {"a": pointing(2.0, 0.0), "b": pointing(0.0, -5.0), "c": pointing(0.6, 0.8)}
    found = weights_of(Arrow(top_k=2, temperature=2.0), experts)[0, :, 0]
    b, c = softmax(4 / 2, 5 / 2)
    first, second = softmax(2 / 2, 1.2 / 2)
    torch.testing.assert_close(found, torch.tensor([[0, b, c], [0.5, 0.5, 0], [first, 0, second]]))


def test_the_size_of_an_expert_is_no_reason_to_hear_it():
    small, large = ({"a": pointing(1.0, 0.0), "b": pointing(0.0, size)} for size in (1.0, 100.0))
    assert torch.equal(weights_of(Arrow(), small), weights_of(Arrow(), large))


def test_a_site_without_experts_is_silent():
    router = Arrow()
    routing = router.gate(SITE, {}, ["a", "b", "c"])(H, Context())
    assert routing.experts is None
    assert torch.equal(routing.weights, torch.zeros(1, 1, 1, 3))


def test_experts_absent_from_a_site_are_not_chosen_there():
    experts = {"a": {}, "b": pointing(1.0, 0.0), "c": {}, "d": pointing(0.0, 1.0)}
    found = weights_of(Arrow(top_k=3), experts)[0, :, 0]
    assert not found[:, [0, 2]].any()
    torch.testing.assert_close(found[0, [1, 3]], torch.tensor(softmax(3, 4)))


def test_uniform_counts_every_expert():
    found = weights_of(Uniform(), {"a": {}, "b": pointing(1.0, 0.0), "c": pointing(0.0, 1.0), "d": {}})
    assert torch.equal(found, torch.full((1, 1, 1, 4), 0.25))


def test_the_oracle_reads_the_row_s_expert():
    found = weights_of(Oracle(), {key: {} for key in "abc"}, context=Context(experts=torch.tensor([2, 0])))
    assert found[:, 0, 0].tolist() == [[0, 0, 1], [1, 0, 0]]
    with pytest.raises(TaskError) as caught:
        weights_of(Oracle(), {"a": {}})
    assert str(caught.value) == ("error[E-TASK] the oracle needs the task of every row. Pass tasks=[...], or examples.")


class Means:
    def __init__(self, **means):
        self.means = means

    def mean_inputs(self, expert, *, n_examples, per_task, after_answer):
        return {"q": torch.tensor(self.means[expert])}


@pytest.mark.parametrize(
    ("score", "expected"),
    [
        ("cosine", [softmax(0.6, 0.8), [0.5, 0.5], softmax(-1, 0)]),
        ("dot", [softmax(3 / 2**0.5, 4 / 2**0.5), [0.5, 0.5], softmax(-2 / 2**0.5, 0)]),
    ],
)
def test_centroids_by_hand(score, expected):
    experts = {"a": pointing(1.0, 1.0), "b": pointing(1.0, 1.0)}
    found = weights_of(Centroid(score=score), experts, probe=Means(a=[9.0, 0.0], b=[0.0, 0.1]))
    torch.testing.assert_close(found[0, :, 0], torch.tensor(expected))


def test_centroids_need_a_probe():
    with pytest.raises(RoutingError) as caught:
        weights_of(Centroid(), {"a": pointing(1.0, 0.0)})
    assert str(caught.value) == "error[E-PROBE] centroid needs each expert's training prompts. Pass tasks=..."


SEEDS = {"ant": 0, "bee": 1, "cat": 2}


def predictor(router, probe, names=tuple(SEEDS)):
    state = router.fit(fake_experts(SEEDS), SITES, probe)
    gate = router.gate(next(iter(SITES.values())), state, sorted(names))
    return lambda features: gate(torch.zeros(len(features), 5, 12), Context(features=features)).weights[:, 0, 0]


def test_the_task_predictor_knows_what_it_was_trained_on():
    probe = FakeProbe(SEEDS)
    features, labels = probe.prompt_features("base", n_examples=8)
    found = predictor(TaskPredictor(), probe)(features).argmax(1).tolist()
    assert [f"t{i}" for i in found] == labels
    alone = predictor(TaskPredictor(top_k=1), probe)(features)
    assert alone.amax(1).tolist() == [1.0] * len(labels)


def test_an_expert_of_two_tasks_gets_both_and_a_shared_task_is_halved():
    class Shared(FakeProbe):
        def tasks_of(self, expert):
            return {"ant": ("t0", "t1"), "bee": ("t1",), "cat": ("t2",)}[expert]

    features, _ = FakeProbe(SEEDS).prompt_features("base", n_examples=8)
    alone, shared = (predictor(TaskPredictor(), probe(SEEDS))(features) for probe in (FakeProbe, Shared))
    mixing = torch.tensor([[1, 0, 0], [0.5, 0.5, 0], [0, 0, 1]])
    torch.testing.assert_close(shared, alone @ mixing)


def test_one_task_and_two_tasks_are_classified_too():
    features, labels = FakeProbe({"ant": 0, "bee": 1}).prompt_features("base", n_examples=8)
    router = TaskPredictor()
    for names in ({"ant": 0, "bee": 1}, {"ant": 0}):
        state = router.fit(fake_experts(names), SITES, FakeProbe(names))
        gate = router.gate(next(iter(SITES.values())), state, sorted(names))
        found = gate(torch.zeros(16, 1, 12), Context(features=features)).weights[:, 0, 0]
        if len(names) == 1:
            assert torch.equal(found, torch.ones(16, 1))
        else:
            assert [f"t{i}" for i in found.argmax(1).tolist()] == labels


def test_the_task_predictor_needs_a_probe_and_features():
    with pytest.raises(RoutingError) as caught:
        TaskPredictor().fit({}, {}, None)
    assert str(caught.value) == ("error[E-PROBE] task_predictor needs the tasks' training prompts. Pass tasks=...")
    gate = TaskPredictor().gate(SITE, {"weight": torch.zeros(1, N_FEATURES), "bias": torch.zeros(1),
                                       "owns": torch.ones(1, 1)}, ["a"])  # fmt: skip
    with pytest.raises(RoutingError) as caught:
        gate(H, Context())
    assert str(caught.value) == (
        "error[E-TEXT] task_predictor needs the features of every prompt. Call the routed model."
    )


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("arrow:top_k=0", "arrow: top_k=0, expected 1 or more."),
        ("arrow:temperature=0", "arrow: temperature=0.0, expected a positive number."),
        ("arrow:temperature=inf", "arrow: temperature=inf, expected a finite number."),
        ("arrow:temperature=nan", "arrow: temperature=nan, expected a finite number."),
        ("centroid:top_k=0", "centroid: top_k=0, expected 1 or more."),
        ("centroid:temperature=0", "centroid: temperature=0.0, expected a positive number."),
        ("centroid:n_examples=0", "centroid: n_examples=0, expected 1 or more."),
        ("task_predictor:top_k=-1", "task_predictor: top_k=-1, expected 1 or more."),
        ("task_predictor:n_examples=0", "task_predictor: n_examples=0, expected 1 or more."),
    ],
)
def test_options_without_meaning_are_refused(spec, message):
    with pytest.raises(OptionError) as caught:
        ROUTERS.parse(spec)
    assert str(caught.value) == f"error[E-OPTION] {message}"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Arrow(top_k=1.5), "arrow: top_k=1.5, expected a whole number or none."),
        (lambda: Arrow(top_k=True), "arrow: top_k=True, expected a whole number or none."),
        (lambda: Arrow(temperature="1"), "arrow: temperature='1', expected a number."),
        (lambda: Centroid(score="cosin"), "centroid: score='cosin', expected cosine or dot."),
        (lambda: TaskPredictor(n_examples=None), "task_predictor: n_examples=None, expected a whole number."),
        (lambda: Compass(recent="half"), "compass: recent='half', expected a number."),
    ],
)
def test_options_of_other_types_are_refused(make, message):
    with pytest.raises(OptionError) as caught:
        make()
    assert str(caught.value).startswith(f"error[E-OPTION] {message}")


@pytest.mark.parametrize("router", [Arrow(top_k=None), SpectR(top_k=None), Compass(top_k=None, calibrate=False)])
def test_no_limit_is_an_option_that_can_be_written(router):
    spec = to_spec(router)
    assert ":top_k=none" in spec
    assert ROUTERS.parse(spec) == router
    assert (weights_of(router, {name: pointing(1.0, 0.0) for name in "abcdef"}) > 0).all()


def test_ties_are_kept_in_order_of_index():
    scores = torch.tensor([1.0, 3.0, 3.0, 2.0, 3.0, 2.0])
    values, index = keep_best(scores, 4)
    assert index.tolist() == [1, 2, 4, 3]
    assert values.tolist() == [3, 3, 3, 2]
    assert keep_best(scores, 6)[1].tolist() == [0, 1, 2, 3, 4, 5]


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    st.lists(
        st.sampled_from([-torch.inf, -2.5, -1e-30, -0.0, 0.0, 1e-45, 1.0, 1.0 + 2**-23, 3e38]), min_size=1, max_size=80
    ),
    st.integers(1, 9),
    st.booleans(),
    st.sampled_from([1, 300]),
)
def test_the_best_are_those_of_a_stable_sort(scores, k, never_negative, n_tokens):
    given_ = torch.tensor(scores).repeat(n_tokens, 1)
    given_ = given_.abs() if never_negative else given_
    k = min(k, len(scores))
    values, index = keep_best(given_, k, never_negative=never_negative)
    if k == len(scores):
        assert index[-1].tolist() == list(range(k)) and torch.equal(values, given_)
        return
    expected = torch.sort(given_, descending=True, stable=True)
    assert torch.equal(index, expected.indices[:, :k])
    assert torch.equal(values, expected.values[:, :k])
    with patch("torch.compiler.is_compiling", lambda: True):
        values, index = keep_best(given_, k, never_negative=never_negative)
    assert torch.equal(index, expected.indices[:, :k])
    assert torch.equal(values, expected.values[:, :k])


def test_equal_experts_have_equal_directions():
    a, b = torch.randn(3, 5), torch.randn(4, 3)
    vectors, values = right_singular(Weights(a, b, 2.0))
    flipped, same = right_singular(Weights(-a, b, 2.0))
    assert torch.equal(vectors, flipped) and torch.equal(values, same)
    assert (vectors.gather(1, vectors.abs().argmax(1, keepdim=True)) > 0).all()
    torch.testing.assert_close(vectors @ vectors.T, torch.eye(3), atol=1e-5, rtol=0)


def test_half_precision_factors_have_directions_too():
    a, b = torch.randn(3, 5), torch.randn(4, 3)
    half, _ = right_singular(Weights(a.bfloat16(), b.bfloat16(), 1.0))
    full, _ = right_singular(Weights(a.bfloat16().float(), b.bfloat16().float(), 1.0))
    assert torch.equal(half, full)


def test_one_row_of_a_context_is_that_row():
    context = Context(experts=torch.tensor([4, 5]), features=torch.eye(2))
    assert one_row(context, 1).experts.tolist() == [5]
    assert one_row(context, 1).features.tolist() == [[0, 1]]
