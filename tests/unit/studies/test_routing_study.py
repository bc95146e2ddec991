"""The study of routers, on a pico base and random experts."""

import html

import numpy as np
import pytest

from lorary.errors import BuildError
from lorary.evaluation.contract import Outcome
from lorary.evaluation.scores import Scores
from lorary.studies.contract import TRAINED, UNSEEN, Subject, judge
from lorary.studies.gap import closed
from lorary.studies.questions.routing import RoutingStudy
from lorary.studies.run_study import run_study
from lorary.studies.subject import choose_subject
from lorary.testing.pico import random_library


def scores(name, values, *, higher=False):
    header = {
        "metric": "perplexity", "options": {}, "name": name, "unit": "nats per token", "higher_is_better": higher,
        "model": {}, "tasks": {t: {"n_examples": len(v), "hash": ""} for t, v in values.items()},
    }  # fmt: skip
    return Scores(header, tuple(Outcome(t, i, x, {}) for t, v in values.items() for i, x in enumerate(v)))


def test_the_share_of_the_gap_that_is_closed():
    floor, ceiling = scores("u", {"a": [4.0, 6.0], "b": [3.0]}), scores("o", {"a": [2.0, 4.0], "b": [1.0]})
    assert closed(scores("r", {"a": [2.5, 4.5], "b": [1.5]}), floor, ceiling) == pytest.approx((75, 75, 75))
    assert closed(floor, floor, ceiling) == pytest.approx((0, 0, 0))
    assert closed(ceiling, floor, ceiling) == pytest.approx((100, 100, 100))
    assert closed(floor, floor, floor) is None


def test_the_interval_of_a_gap_draws_the_same_examples_for_all():
    """Were they drawn apart, a run that is always half-way would have an interval of some width."""
    random = np.random.default_rng(0)
    low, high = random.normal(5, 2, 40), random.normal(2, 2, 40)
    runs = [scores(name, {"a": list(v)}) for name, v in (("r", (low + high) / 2), ("u", low), ("o", high))]
    assert closed(*runs) == pytest.approx((50, 50, 50))


@pytest.mark.parametrize(
    ("shift", "higher", "holds"), [(-1, False, True), (1, False, False), (1, True, True), (0, False, None)]
)
def test_a_claim_is_judged_by_paired_examples(shift, higher, holds):
    values = [float(i) for i in range(12)]
    one = scores("one", {"a": [v + shift + 0.01 * (-1) ** i for i, v in enumerate(values)]}, higher=higher)
    verdict = judge("One beats two", one, scores("two", {"a": values}, higher=higher))
    assert verdict.holds is holds
    words = {True: "true here", False: "not true here", None: "can't be told here"}
    assert str(verdict).startswith(f"One beats two: {words[holds]}. one - two: ")


def test_too_few_examples_tell_nothing():
    assert judge("x", scores("one", {"a": [1.0] * 5}), scores("two", {"a": [9.0] * 5})).holds is None


@pytest.mark.slow
def test_it_compares_routers_and_says_what_each_closes(base, toy, tmp_path):
    own = ["copy", "swap", "upper"]
    library = random_library(tmp_path / "lib", base, own)
    study = RoutingStudy(limit=4, routers=("arrow", "centroid:n_examples=2"), champion="compass:n_texts=2,n_tokens=4")
    subject = Subject(toy.only(own), toy.only(["first"]), library)
    done = run_study(study, subject, base, into=tmp_path / "run")
    (table,) = done.tables
    assert [(column.group, column.label) for column in table.columns] == [
        (TRAINED, "loss"), (TRAINED, "gap closed"), (UNSEEN, "loss"),
    ]  # fmt: skip
    rows = {row.name: row.cells for row in table.rows}
    assert list(rows) == ["base", "uniform", "arrow", "centroid:n_examples=2", study.champion, "oracle"]
    low, high = rows["uniform"][0].mean, rows["oracle"][0].mean
    assert rows["arrow"][1].mean == pytest.approx(100 * (low - rows["arrow"][0].mean) / (low - high))
    assert (rows["uniform"][1].mean, rows["oracle"][1].mean, rows["oracle"][2]) == (0, 100, None)
    assert [verdict.claim.partition(f" {study.champion} ")[0] for verdict in done.verdicts] == [
        f"On {TRAINED}", f"On {UNSEEN}",
    ]  # fmt: skip
    assert str(done.verdicts[0]) in html.unescape(done.report.read_text(encoding="utf-8"))


def test_a_library_whose_tasks_are_others_has_no_oracle(base, toy, tmp_path):
    library = random_library(tmp_path / "lib", base, ["copy", "swap"])
    cells = RoutingStudy().plan(Subject(toy.only([]), toy.only(["first"]), library)).cells
    assert [cell.name for cell in cells] == ["base", "uniform", "arrow", "compass"]


def test_it_needs_a_library(toy):
    with pytest.raises(BuildError) as caught:
        RoutingStudy().plan(Subject(toy, toy.only([])))
    assert caught.value.code == "E-SOURCE"


def test_tasks_of_the_library_are_trained_and_others_unseen(base, data_of_three_tasks, tmp_path):
    library = random_library(tmp_path / "lib", base, ["copy", "swap"])
    found = choose_subject(str(data_of_three_tasks), library=library)
    assert (list(found.tasks), list(found.heldout)) == (["copy", "swap"], ["upper"])
    found = choose_subject(str(data_of_three_tasks), heldout=["swap"], only=["copy"], library=library)
    assert (list(found.tasks), list(found.heldout)) == (["copy"], ["swap"])
