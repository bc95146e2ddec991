"""The study of clusters: what it builds, and how it judges, on scores and cosines made by hand."""

import numpy as np
import pytest

from lorary.errors import OptionError, TaskError
from lorary.evaluation.contract import Outcome
from lorary.evaluation.scores import Scores
from lorary.studies.contract import TRAINED, UNSEEN, Results, Subject
from lorary.studies.measuring.orders import difference, rank_correlation
from lorary.studies.measuring.pairs import Likeness
from lorary.studies.questions.clusters import ClusterStudy

WAYS = ClusterStudy().ways


def examples_seen(plan):
    """How many examples pass through training for each library, by what the plan knows."""
    seen = {}
    for one in plan.builds:
        builder, tasks = (one.builder, one.tasks) if one.like is None else one.like
        seen[one.path] = builder.batch_size * sum(job.n_steps for job in builder.plan(tasks, None))
    return seen


def test_all_libraries_see_as_many_examples(toy):
    study = ClusterStudy(epochs=5, batch_size=2, k=2, first_share=0.4)
    seen = examples_seen(study.plan(Subject(toy.only(["copy", "swap", "upper", "first"]), toy.only([]))))
    first = seen.pop("libs/first")
    assert first == 0.4 * 5 * 48
    own = ("libs/k-1", "libs/k-4")
    expected = {path: 5 * 48 if path in own else 5 * 48 - first for path in seen}
    assert seen == pytest.approx(expected, abs=2 * 2)  # each cluster's last step is a whole one


def test_numbers_of_clusters_double_up_to_one_for_each_task(toy):
    tasks = toy.only(["copy", "swap", "upper", "first", "last"])
    plan = ClusterStudy(k=3, ways=()).plan(Subject(tasks, toy.only([])))
    assert [build.path for build in plan.builds] == ["libs/first", *(f"libs/k-{k}" for k in (1, 2, 3, 4, 5))]
    plan = ClusterStudy(k=3, ks=(2, 5), ways=WAYS).plan(Subject(tasks, tasks))
    assert [build.path.partition("/")[2] for build in plan.builds] == [
        "first", "k-2", "k-3", "k-5", "random_examples", "random_tasks", "embeddings", "mbc-space-products",
    ]  # fmt: skip
    assert {cell.group for cell in plan.cells} == {TRAINED, UNSEEN}
    assert {cell.library for cell in plan.cells if cell.name == "base"} == {None}


def test_random_clusters_are_known_before_anything_is_built(toy):
    tasks = toy.only(["copy", "swap", "upper"])
    plan = ClusterStudy(k=2, ways=("random_tasks", "random_examples", "embeddings")).plan(Subject(tasks, toy.only([])))
    after = {build.path.partition("/")[2]: list(build.after) for build in plan.builds}
    assert (after["random_tasks"], after["random_examples"]) == ([], [])
    assert after["embeddings"] == ["measures/groups.embeddings.json"]


@pytest.mark.parametrize("study", [ClusterStudy(k=4), ClusterStudy(k=2, ks=(9,))])
def test_more_clusters_than_tasks_are_refused(study, toy):
    with pytest.raises(TaskError) as caught:
        study.plan(Subject(toy.only(["copy", "swap", "upper"]), toy.only([])))
    assert caught.value.code == "E-TASK"


def test_all_training_for_clusters_or_none_is_refused():
    with pytest.raises(OptionError):
        ClusterStudy(first_share=1.0)


def scores(name, mean, spread=0.01):
    values = mean + spread * np.random.default_rng(0).normal(size=40)
    header = {
        "name": name, "metric": "perplexity", "options": {}, "unit": "nats per token", "higher_is_better": False,
        "model": {}, "tasks": {"a": {"n_examples": 40, "hash": ""}},
    }  # fmt: skip
    return Scores(header, tuple(Outcome("a", i, float(value)) for i, value in enumerate(values)))


def alike(cosine, n=5):
    names = tuple(f"c{i}" for i in range(n))
    values = np.full((n, n), cosine) + 0.01 * np.random.default_rng(n).normal(size=(n, n))
    matrix = tuple(map(tuple, values.tolist()))
    return Likeness(names, matrix, matrix, matrix)


LOSSES = {
    "base": 3,
    "k=1": 2.0,
    "k=4": 1.0,
    "k=16": 2.5,
    "random_examples": 1.8,
    "random_tasks": 1.5,
    "embeddings": 1.2,
}
COSINES = {"k=1": 1.0, "k=4": 0.2, "k=16": 0.1, "random_examples": 0.8, "random_tasks": 0.6, "embeddings": 0.4}


@pytest.fixture
def results():
    measured = {f"measures/likeness.{n.replace('=', '-')}.json": alike(c) for n, c in COSINES.items() if n != "k=1"}
    return Results({TRAINED: {name: scores(name, loss) for name, loss in LOSSES.items()}}, [measured])


def test_it_judges_both_ends_the_ways_and_the_cosines(results):
    study = ClusterStudy(ways=("random_examples", "random_tasks", "embeddings", "mbc"))
    found = study.judge(results)
    assert all(one.paper and one.meaning and one.interval for one in found)
    verdicts = {verdict.claim.partition(": on ")[2] or verdict.claim: verdict.outcome for verdict in found}
    assert verdicts == {
        "trained tasks experts of 4 clusters, averaged, beat one for all tasks": "holds in sign",
        "trained tasks experts of 4 clusters, averaged, beat one for each task": "holds in sign",
        "trained tasks clusters by MBC beat those by embeddings": "holds in sign",
        "trained tasks random clusters of tasks beat those of examples": "holds in sign",
        "C7 (cosines): experts by random_examples are more alike than those by random_tasks": "holds",
        "C7 (MBC's cosines): experts by random_tasks are more alike than those by mbc": "holds",
        "trained tasks ways whose experts are less alike lose less": "holds",
    }


@pytest.mark.slow
def test_it_lays_out_numbers_and_ways(results):
    study = ClusterStudy(ways=("random_examples", "mbc"))
    numbers, ways = study.tables(results, "seed 1")
    assert [row.name for row in numbers.rows] == ["base", "k=1", "k=4", "k=16"]
    assert [row.name for row in ways.rows] == ["random_examples", "mbc"]
    assert ways.rows[1].cells[0].mean == numbers.rows[2].cells[0].mean
    assert [cell and round(cell.mean, 1) for cell in ways.rows[0].cells[1:]] == [0.8, 0.8]
    assert numbers.rows[1].cells[1:] == (None, None)
    assert "[" not in ways.to_markdown().splitlines()[3].split("|")[3]
    over_k, beside = study.figures(results)
    assert "best: 4 of 16" in over_k.svg.decode()
    assert "random_examples" in beside.svg.decode()


def test_a_difference_of_few_values_has_no_interval():
    found, low, high = difference([1.0] * 6, [0.5] * 6)
    assert (found, low, high) == (0.5, 0.5, 0.5)
    found, low, high = difference([1.0] * 5, [0.5] * 6)
    assert np.isnan([low, high]).all()


def test_ranks_go_together_or_not():
    runs = [scores(str(i), loss) for i, loss in enumerate((1.0, 2.0, 3.0, 4.0))]
    assert rank_correlation([0.1, 0.2, 0.3, 0.4], runs) == (1, 1, 1)
    assert rank_correlation([4, 3, 2, 1], runs)[0] == -1
    assert np.isnan(rank_correlation([1, 2], runs[:2])[0])
    assert np.isnan(rank_correlation([1, 1, 1, 1], runs)[0])
