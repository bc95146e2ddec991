"""The study of likeness and joint training, on a pico base and toy tasks."""

import numpy as np
import pytest

from lorary.errors import TaskError
from lorary.formats.peft import open_experts
from lorary.library.library import Library
from lorary.studies.contract import Results, Subject
from lorary.studies.measuring.correlation import correlate
from lorary.studies.measuring.pairs import Likeness, draw_pairs, likeness
from lorary.studies.questions.similarity import SimilarityStudy, _Gain
from lorary.studies.run_study import run_study
from lorary.testing.pico import random_library


def test_r_and_the_line_are_those_of_least_squares():
    random = np.random.default_rng(1)
    x = random.uniform(0.1, 0.9, 40)
    y = 2 * (x - 0.4) + random.normal(0, 0.3, 40)
    found = correlate(x, y)
    slope, height = np.polyfit(x, y, 1)
    assert found.r == pytest.approx(np.corrcoef(x, y)[0, 1])
    assert found.fit == pytest.approx(slope * found.x + height)
    assert found.zero == pytest.approx(-height / slope)
    assert found.low < found.r < found.high
    assert found.holds is True
    assert (found.fit_low <= found.fit).all()
    assert (found.fit <= found.fit_high).all()


def test_what_goes_the_other_way_or_nowhere_is_told():
    random = np.random.default_rng(2)
    x = random.uniform(0, 1, 40)
    assert correlate(x, -x + random.normal(0, 0.1, 40)).holds is False
    assert correlate(x, random.normal(0, 1, 40)).holds is None
    assert correlate([1, 1, 1], [1, 2, 3]) is None
    few = correlate([1, 2, 3, 4, 5], [1, 2, 3, 4, 5])
    assert (few.r, few.holds) == (pytest.approx(1), None)
    assert str(few) == "r = 1.00 [too few for an interval] over 5 pairs"


def test_pairs_cover_all_degrees_of_likeness():
    """Most pairs are alike to 0.5; drawn blindly, few of the others would be among 20."""
    random = np.random.default_rng(0)
    size = 30
    likeness = np.full((size, size), 0.5) + random.normal(0, 0.01, (size, size))
    for place in range(9):
        likeness[place, place + 10] = 0.1 * place
    drawn = draw_pairs(likeness.tolist(), 20, n_bins=50, seed=0)
    assert len(set(drawn)) == 20
    assert all(i < j for i, j in drawn)
    assert sum((i, j) == (i, i + 10) and i < 9 for i, j in drawn) >= 8
    assert drawn == draw_pairs(likeness.tolist(), 20, n_bins=50, seed=0)
    assert drawn != draw_pairs(likeness.tolist(), 20, n_bins=50, seed=1)


def test_all_pairs_are_drawn_where_more_are_asked_for():
    assert sorted(draw_pairs([[1.0] * 4] * 4, 99, n_bins=5, seed=0)) == [
        (0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3),
    ]  # fmt: skip


def test_likeness_is_that_of_the_dense_numbers(base, tmp_path):
    experts = open_experts(random_library(tmp_path / "lib", base, ["a", "b", "c"], ranks=2))
    found = likeness(experts)
    whole = {name: {site: experts[name][site] for site in experts[name]} for name in experts}
    flat = [np.concatenate([np.r_[w.a.flatten(), w.b.flatten()] for w in whole[n].values()]) for n in found.names]
    dense = [np.concatenate([w.delta().flatten() for w in whole[n].values()]) for n in found.names]
    for vectors, matrix in ((flat, found.factors), (dense, found.products)):
        unit = np.array([v / np.linalg.norm(v) for v in vectors])
        assert np.array(matrix) == pytest.approx(unit @ unit.T, abs=1e-5)
    assert np.diag(found.embedding) == pytest.approx([1, 1, 1])
    assert found.pairs("products") == [found.products[i][j] for i, j in ((0, 1), (0, 2), (1, 2))]


def gains(slope, n=12):
    """Pairs whose gain goes with the cosine of the embedding, and with no other."""
    random = np.random.default_rng(3)
    for place, cosine in enumerate(np.linspace(0, 1, n)):
        own = tuple(random.uniform(1, 2, 4).tolist())
        joint = tuple(value - slope * cosine + 0.05 * (-1) ** place for value in own)
        cosines = {"embedding": float(cosine), "factors": 0.5, "products": float(random.uniform())}
        yield f"measures/pair{place:03}.json", _Gain(("x", f"t{place}"), cosines, (own, own), (joint, joint))


@pytest.mark.parametrize(("slope", "holds"), [(1, True), (-1, False)])
def test_it_judges_by_the_interval_of_r(slope, holds):
    results, study = Results({}, [dict(gains(slope))]), SimilarityStudy()
    first, second, _ = study.judge(results)
    assert (first.holds, second.holds) == (holds, None)
    assert second.numbers == "The points don't vary."
    assert first.claim.startswith("C1: ") and first.claim.endswith("(MBC's embedding)")
    assert (first.paper, second.paper) == ("r = 0.51 (Phi-2), 0.75 (GPT-Neo)", "not measured")
    assert (first.interval[0] > 0.9) == holds and second.interval is None
    of_spaces, of_pairs = study.tables(results, "seed 1")
    assert [row.cells[0] is None for row in of_spaces.rows] == [True, False, False]
    assert len(of_pairs.rows) == 12
    assert [row.cells[3].mean for row in of_pairs.rows][-1] == pytest.approx(slope + 0.05)


@pytest.mark.slow
def test_its_experts_see_their_tasks_equally_often(base, toy, tmp_path):
    study = SimilarityStudy(n_pairs=2, steps=2, batch_size=2, limit=2)
    own = toy.only(["copy", "swap", "upper"])
    run_study(study, Subject(own, toy.only([])), base, into=tmp_path)
    private, pairs = (Library.open(tmp_path / "seed42" / "libs" / name) for name in ("private", "pairs"))
    assert {expert.provenance.steps for expert in private.values()} == {2}
    assert {expert.provenance.steps for expert in pairs.values()} == {4}
    assert [len(expert.provenance.tasks) for expert in pairs.values()] == [2, 2]


def test_two_tasks_are_too_few(toy):
    with pytest.raises(TaskError) as caught:
        SimilarityStudy().plan(Subject(toy.only(["copy", "swap"]), toy.only([])))
    assert caught.value.code == "E-TASK"


def test_a_map_of_another_size_is_refused():
    with pytest.raises(ValueError, match="factors is no map of 2 experts"):
        Likeness(("a", "b"), ((1.0,),), ((1.0,),), ((1.0,),))
