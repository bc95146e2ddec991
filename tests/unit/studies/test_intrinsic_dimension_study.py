"""The study of intrinsic dimension: what it builds, and how it judges, on scores made by hand."""

import numpy as np
import pytest

from lorary.building.builders.private import Private
from lorary.building.builders.subspace import Subspace
from lorary.errors import OptionError, TaskError
from lorary.evaluation.contract import Outcome
from lorary.evaluation.scores import Scores
from lorary.studies.contract import TRAINED, Results, Subject
from lorary.studies.questions.intrinsic_dimension import IntrinsicDimensionStudy, _Size


def scores(name, mean, seed=0):
    values = mean + 0.01 * np.random.default_rng(seed).normal(size=20)
    header = {
        "name": name, "metric": "perplexity", "options": {}, "unit": "nats per token", "higher_is_better": False,
        "model": {}, "tasks": {"a": {"n_examples": 20, "hash": ""}},
    }  # fmt: skip
    return Scores(header, tuple(Outcome("a", i, float(value)) for i, value in enumerate(values)))


def results(losses, n_numbers=10_000):
    """Of 100 dimensions with noise of its own, so that its share has an interval."""
    all_losses = {"base": 5.0, **losses, "all": 1.0}
    rows = {name: scores(name, loss, seed=int(name == "100")) for name, loss in all_losses.items()}
    return Results({TRAINED: rows}, [{"measures/size.json": _Size(n_numbers)}])


STUDY = IntrinsicDimensionStudy(dimensions=(10, 100, 1000))


def test_all_are_trained_alike_but_for_the_subspace(toy):
    plan = STUDY.plan(Subject(toy.only(["copy", "swap"]), toy.only([])))
    full, *others = (build.builder for build in plan.builds)
    assert isinstance(full, Private)
    assert [(type(one), one.dimension) for one in others] == [(Subspace, 10), (Subspace, 100), (Subspace, 1000)]
    assert (full.init, full.tie, full.own_start) == ("peft", (), False), "options that a subspace has not"
    known = {name: value for name, value in vars(full).items() if name not in ("init", "tie", "own_start")}
    assert all(value == vars(one)[name] for one in others for name, value in known.items())
    assert [cell.router for cell in plan.cells] == ["uniform"] + 4 * ["oracle"]


@pytest.mark.parametrize(
    ("loss", "holds", "reached"), [(1.2, True, "D = 100"), (3.0, False, "D = 1,000"), (1.4, None, "D = 100")]
)
def test_it_judges_by_the_largest_of_a_hundredth(loss, holds, reached):
    (verdict,) = STUDY.judge(results({"10": 4.5, "100": loss, "1000": 1.1}))
    assert (verdict.holds, reached in verdict.numbers) == (holds, True)
    assert verdict.numbers.startswith("D = 100 of 10,000 gives ")
    assert verdict.interval[0] == pytest.approx(25 * (5 - loss) - 90, abs=1)


@pytest.mark.slow
def test_it_shows_the_share_of_the_full_way():
    (table,) = STUDY.tables(results({"10": 4.0, "100": 2.0, "1000": 1.1}), "seed 1")
    assert [row.name for row in table.rows] == ["base", "10", "100", "1000", "all"]
    shares = [row.cells[1] and round(row.cells[1].mean) for row in table.rows]
    assert shares == [None, 25, 75, 98, None]
    (picture,) = STUDY.figures(results({"10": 4.0, "100": 2.0, "1000": 1.1}))
    assert "90 % at D = 1,000" in picture.svg.decode()


def test_where_no_dimension_is_small_enough_nothing_is_told():
    (verdict,) = STUDY.judge(results({"10": 4.0, "100": 1.0, "1000": 1.0}, n_numbers=900))
    assert verdict.holds is None


def test_training_that_helps_nowhere_has_no_share():
    rows = {name: scores(name, 5.0) for name in ("base", "10", "100", "1000", "all")}
    found = Results({TRAINED: rows}, [{"measures/size.json": _Size(10_000)}])
    assert [verdict.holds for verdict in STUDY.judge(found)] == [None]
    assert STUDY.figures(found) == []


@pytest.mark.parametrize("dimensions", [(), (0, 5), (5, 5)])
def test_dimensions_that_mean_nothing_are_refused(dimensions, toy):
    with pytest.raises(OptionError):
        IntrinsicDimensionStudy(dimensions=dimensions).plan(Subject(toy.only(["copy"]), toy.only([])))


def test_without_a_task_there_is_nothing_to_learn(toy):
    with pytest.raises(TaskError) as caught:
        STUDY.plan(Subject(toy.only([]), toy.only([])))
    assert caught.value.code == "E-TASK"
