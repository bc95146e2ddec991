import numpy as np
import pytest

from lorary.errors import EvaluationError, OptionError
from lorary.evaluation.compare import compare
from lorary.evaluation.contract import Outcome
from lorary.evaluation.scores import Scores


def make_scores(name, metric="exact_match", higher_is_better=True, data="0", **values):
    header = {
        "format": 1,
        "name": name,
        "metric": metric,
        "options": {"name": metric},
        "unit": "0-100",
        "higher_is_better": higher_is_better,
        "model": {},
        "tasks": {task: {"n_examples": len(values[task]), "hash": data} for task in values},
    }
    return Scores(header, tuple(Outcome(t, i, float(v)) for t in values for i, v in enumerate(values[t])))


def test_the_difference_is_a_minus_b_over_tasks():
    found = compare(make_scores("a", x=[100, 100, 0, 0], y=[50, 50]), make_scores("b", x=[0, 100, 0, 100], y=[20, 20]))
    assert found.difference == 15.0
    assert (found.wins, found.losses, found.ties) == (3, 1, 2)
    assert found.low < 15 < found.high
    assert str(found).startswith("a - b: +15 [")
    assert str(found).endswith("better on 3, worse on 1, equal on 2 of 6 examples")


def test_swapping_the_runs_swaps_the_sign():
    rng = np.random.default_rng(0)
    a, b = (make_scores(n, x=rng.normal(size=50), y=rng.normal(size=20)) for n in "ab")
    one, two = compare(a, b), compare(b, a)
    assert (one.difference, one.low, one.high) == pytest.approx((-two.difference, -two.high, -two.low))
    assert one.p_value == two.p_value
    assert compare(a, b) == one


def test_wins_follow_the_direction_of_the_metric():
    a, b = (make_scores(n, "perplexity", higher_is_better=False, x=[v, 1]) for n, v in (("a", 2), ("b", 3)))
    found = compare(a, b)
    assert (found.difference, found.wins, found.losses, found.ties) == (-0.5, 1, 0, 1)


def test_pairing_sees_what_two_intervals_do_not():
    hard = np.random.default_rng(0).normal(50, 30, size=100)
    a, b = make_scores("a", x=hard + 1), make_scores("b", x=hard)
    assert a.interval()[0] < b.interval()[1]
    assert compare(a, b).p_value == pytest.approx(2 / 10_001)


def test_a_run_equals_itself():
    a = make_scores("a", x=range(6))
    assert compare(a, a).p_value == 1.0
    assert (compare(a, a).low, compare(a, a).high) == (0.0, 0.0)


def test_noise_is_rarely_significant():
    rng = np.random.default_rng(3)
    p_values = [
        compare(make_scores("a", x=rng.normal(size=60)), make_scores("b", x=rng.normal(size=60)), draws=500).p_value
        for _ in range(100)
    ]
    assert 0 < np.mean(np.array(p_values) < 0.1) < 0.22


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (
            make_scores("b", "rouge_l", x=[1, 2]),
            "error[E-PAIR] 'a' and 'b' can't be paired: metric 'exact_match' and 'rouge_l'. "
            "Evaluate both with the same metric.",
        ),
        (
            make_scores("b", x=[1, 2], y=[1]),
            "error[E-PAIR] 'a' and 'b' can't be paired: only 'b' has task 'y'. Evaluate both on the same tasks.",
        ),
        (
            make_scores("b", x=[1]),
            "error[E-PAIR] 'a' and 'b' can't be paired: task 'x' has different test examples (2 and 1 examples). "
            "Use the same data and the same limit.",
        ),
        (
            make_scores("b", x=[1, 2], data="1"),
            "error[E-PAIR] 'a' and 'b' can't be paired: task 'x' has different test examples (2 and 2 examples). "
            "Use the same data and the same limit.",
        ),
    ],
)
def test_runs_on_other_examples_are_refused(other, message):
    with pytest.raises(EvaluationError) as caught:
        compare(make_scores("a", x=[1, 2]), other)
    assert str(caught.value) == message


@pytest.mark.parametrize(("n", "p_value"), [(1, 1.0), (2, 0.5), (5, 0.0625), (10, 2 / 1024), (20, 2 / 10_001)])
def test_few_examples_show_little(n, p_value):
    """However far apart: that n signs are alike has a chance of 2 in 2**n."""
    assert compare(make_scores("a", x=[100] * n), make_scores("b", x=[0] * n)).p_value == p_value


def test_ties_show_nothing():
    assert compare(make_scores("a", x=[1] * 9 + [5]), make_scores("b", x=[1] * 10)).p_value == 1.0


def test_too_few_examples_have_no_interval():
    few = compare(make_scores("a", x=[2] * 3, y=[2] * 2), make_scores("b", x=[1] * 3, y=[1] * 2))
    assert np.isnan([few.low, few.high]).all()
    assert str(few) == (
        "a - b: +1 [too few examples for an interval] exact_match (0-100), p = 0.062; "
        "better on 5, worse on 0, equal on 0 of 5 examples"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"draws": 0}, "draws=0, expected 1 or more."),
        ({"draws": -1}, "draws=-1, expected 1 or more."),
        ({"draws": 2.5}, "draws=2.5, expected a whole number."),
        ({"seed": -1}, "seed=-1, expected 0 or more."),
    ],
)
def test_draws_and_seeds_that_are_none(options, message):
    a = make_scores("a", x=[1, 2])
    with pytest.raises(OptionError) as caught:
        compare(a, a, **options)
    assert str(caught.value) == f"error[E-OPTION] {message}"


def test_runs_without_names_are_the_first_and_the_second():
    assert str(compare(make_scores("", x=[1]), make_scores("", x=[0]))).startswith("the first - the second: +1 [")


def test_what_is_no_run_is_refused():
    with pytest.raises(OptionError, match=r"run is 1, expected scores\."):
        compare(1, 2)
