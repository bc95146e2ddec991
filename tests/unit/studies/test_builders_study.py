"""The study of builders, on a pico base and toy tasks."""

import pytest

from lorary.building.builders.lorahub import LoraHub
from lorary.building.builders.per_cluster import PerCluster
from lorary.building.builders.pi_tuning import PiTuning
from lorary.building.clustering.clusters import Clusters
from lorary.errors import OptionError
from lorary.studies.builders import (
    ADAPTED,
    KNOW_THE_TASK,
    RELATIVES,
    ROUTERS,
    Budget,
    budgets,
    merges,
    run_builders,
)
from lorary.studies.road import TRAINED, UNSEEN
from lorary.tasks.builtin import builtin_heldout, builtin_tasks
from lorary.testing.pico import random_library

OWN, NEW = ["copy", "swap", "upper"], ["first", "last"]


def examples_seen(builder, tasks, source=None):
    return builder.batch_size * sum(job.n_steps for job in builder.plan(tasks, source))


def test_all_libraries_see_as_many_examples(toy):
    tasks, budget = toy.only(OWN), Budget(steps=10, batch_size=4)
    seen = {name: examples_seen(builder, tasks) for name, builder in budget.joint(len(tasks))}
    seen["private"] = examples_seen(budget.private(), tasks)
    groups = Clusters({"c0": ("copy", "swap"), "c1": ("upper",)})
    second: PerCluster = budget.per_cluster(groups, len(tasks))
    seen["mbc"] = examples_seen(budget.first(), tasks) + examples_seen(second, tasks)
    assert seen == dict.fromkeys(("shared", "poly", "mhr", "private", "mbc"), 3 * 10 * 4)


def test_all_adaptations_cost_the_same(base, toy, tmp_path):
    own = random_library(tmp_path / "own", base, OWN, ranks=2)
    lone = random_library(tmp_path / "lone", base, ["shared"], ranks=2)
    budget, costs = Budget(new_steps=10, batch_size=4), {}
    for name, origin, builder in budget.adapted(tuple(NEW)):
        tasks, source = toy.only(NEW), lone if origin == "shared" else own
        if isinstance(builder, PiTuning):
            tasks = toy.only([*OWN, *NEW])
        if isinstance(builder, LoraHub):  # its passes go forward only
            costs[name] = builder.n_examples * sum(job.n_steps for job in builder.plan(tasks, source))
        else:
            costs[name] = 3 * examples_seen(builder, tasks, source)
    assert len(costs) == 8
    assert set(costs.values()) == {2 * 10 * 4 * 3}


@pytest.mark.parametrize(
    ("seeds", "message"),
    [
        ((), "study builders: there are no seeds. Give at least one, as 42."),
        ((42, -1), "study builders: seed=-1, expected 0 or more."),
        ((10**23,), f"study builders: seed={10**23}, expected at most 4294967295."),
    ],
)
def test_seeds_that_no_training_takes_are_refused_before_it(seeds, message):
    with pytest.raises(OptionError) as caught:
        budgets(seeds)
    assert str(caught.value) == f"error[E-OPTION] {message}"


def test_every_held_out_task_has_two_relatives():
    families = [name.partition("_")[0] for name in RELATIVES]
    assert {family: families.count(family) for family in families} == {
        name.partition("_")[0]: 2 for name in builtin_heldout()
    }
    assert set(RELATIVES) < set(builtin_tasks())


@pytest.mark.slow
def test_the_whole_study_and_once_more(base, toy, tmp_path):
    budget = Budget(steps=2, batch_size=2, n_clusters=2, n_few=4, new_steps=2, n_score=1, n_score_new=1)
    told = []
    runs = run_builders(base, tmp_path / "out", told.append, budget, toy.only(OWN), toy.only(NEW))
    spoken = [f"{name}, {router}" for name, routers in ROUTERS.items() for router in routers]
    assert [scores.name for scores in runs[TRAINED]] == ["base", *spoken]
    unseen = [name for name in spoken if name.partition(", ")[2] not in KNOW_THE_TASK]
    assert [scores.name for scores in runs[UNSEEN]] == ["base", *unseen]
    assert [scores.name for scores in runs[ADAPTED]] == [name for name, _, _ in budget.adapted(tuple(NEW))]
    assert {name for name, _ in merges(3)} < set(ROUTERS)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.safetensors")}
    assert "made last" in told
    told.clear()
    again = run_builders(base, tmp_path / "out", told.append, budget, toy.only(OWN), toy.only(NEW))
    assert not any(what.startswith("made") for what in told)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.safetensors")} == before
    assert [scores.mean for scores in again[ADAPTED]] == [scores.mean for scores in runs[ADAPTED]]
