"""The study of builders, on a pico base and toy tasks."""

import pytest

from lorary.building.builders.lorahub import LoraHub
from lorary.building.builders.per_cluster import PerCluster
from lorary.building.builders.pi_tuning import PiTuning
from lorary.building.clustering.clusters import Clusters
from lorary.errors import OptionError
from lorary.studies.contract import TRAINED, UNSEEN, Subject
from lorary.studies.questions.builders import BuilderStudy
from lorary.studies.run_study import repeated, run_study
from lorary.testing.pico import random_library

OWN, NEW = ["copy", "swap", "upper"], ["first", "last"]


def examples_seen(builder, tasks, source=None):
    return builder.batch_size * sum(job.n_steps for job in builder.plan(tasks, source))


def test_all_libraries_see_as_many_examples(toy):
    tasks, budget = toy.only(OWN), BuilderStudy(steps=10, batch_size=4)
    seen = {name: examples_seen(builder, tasks) for name, builder in budget.joint(len(tasks)).items()}
    seen["private"] = examples_seen(budget.private(), tasks)
    groups = Clusters({"c0": ("copy", "swap"), "c1": ("upper",)})
    second: PerCluster = budget.per_cluster(groups, len(tasks))
    seen["mbc"] = examples_seen(budget.first(), tasks) + examples_seen(second, tasks)
    assert seen == dict.fromkeys(("shared", "poly", "mhr", "private", "mbc"), 3 * 10 * 4)


def test_all_adaptations_cost_the_same(base, toy, tmp_path):
    own = random_library(tmp_path / "own", base, OWN, ranks=2)
    lone = random_library(tmp_path / "lone", base, ["shared"], ranks=2)
    budget, costs = BuilderStudy(new_steps=10, batch_size=4), {}
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
        repeated(BuilderStudy(), seeds)
    assert str(caught.value) == f"error[E-OPTION] {message}"


LIBRARIES = {
    "private": ("uniform", "arrow", "oracle"),
    "gated": ("phatgoose",),
    "mbc": ("uniform", "arrow", "oracle"),
    "shared": ("uniform",),
    "poly": ("uniform", "arrow", "poly"),
    "mhr": ("uniform", "mhr"),
    "merge_uniform": ("uniform",),
    "merge_ties": ("uniform",),
    "merge_weighted": ("uniform",),
}
KNOW_THE_TASK = ("oracle", "poly", "mhr")


@pytest.mark.slow
def test_the_whole_study_and_once_more(base, toy, tmp_path):
    study = BuilderStudy(steps=2, batch_size=2, n_clusters=2, n_few=4, new_steps=2, n_score=2, n_score_new=2)
    told, subject = [], Subject(toy.only(OWN), toy.only(NEW))
    done = run_study(study, subject, base, into=tmp_path / "out", tell=told.append)
    (table,) = done.tables
    rows = {column.group: [r.name for r in table.rows if r.cells[i]] for i, column in enumerate(table.columns)}
    spoken = [f"{name}, {router}" for name, routers in LIBRARIES.items() for router in routers]
    assert rows[TRAINED] == ["base", *spoken]
    assert rows[UNSEEN] == ["base", *(name for name in spoken if name.partition(", ")[2] not in KNOW_THE_TASK)]
    assert rows["adapted"] == [name for name, _, _ in study.adapted(tuple(NEW))]
    assert len(done.verdicts) == 3
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.safetensors")}
    assert "made last" in told
    told.clear()
    again = run_study(study, subject, base, into=tmp_path / "out", tell=told.append)
    assert not any(what.startswith("made") for what in told)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.safetensors")} == before
    assert again.tables == done.tables


def test_only_what_is_asked_for_is_built_and_what_it_starts_from(toy):
    study = BuilderStudy(libraries=("mbc", "merge_ties"), adaptations=("from_expert", "lib_mu"))
    plan = study.plan(Subject(toy.only(OWN), toy.only(NEW)))
    assert [build.path for build in plan.builds] == [
        "libs/private", "libs/first", "libs/mbc", "libs/shared", "libs/merge_ties",
        "adapted/from_expert--shared-", "adapted/lib_mu--private-", "adapted/lib_mu--mbc-",
    ]  # fmt: skip
    assert {cell.library for cell in plan.cells} == {
        None, "libs/mbc", "libs/merge_ties",
        "adapted/from_expert--shared-", "adapted/lib_mu--private-", "adapted/lib_mu--mbc-",
    }  # fmt: skip


def test_without_tasks_held_out_nothing_is_adapted(toy):
    plan = BuilderStudy().plan(Subject(toy.only(OWN), toy.only([])))
    assert not [build.path for build in plan.builds if build.path.startswith("adapted")]
    assert {cell.group for cell in plan.cells} == {TRAINED}


@pytest.mark.slow
def test_seeds_repeat_the_study_and_claims_are_judged_on_their_mean(base, toy, tmp_path):
    study = BuilderStudy(steps=1, batch_size=2, n_score=2, libraries=("private", "shared"), adaptations=())
    done = run_study(study, Subject(toy.only(OWN), toy.only([])), base, into=tmp_path, seeds=(1, 2))
    first, second, mean = ({row.name: row.cells[0].mean for row in table.rows} for table in done.tables)
    assert [table.title for table in done.tables] == ["seed 1", "seed 2", "mean of 2 seeds"]
    assert mean == pytest.approx({name: (first[name] + second[name]) / 2 for name in first})
    assert first["private, oracle"] != second["private, oracle"]
    (verdict,) = done.verdicts
    assert f"{mean['private, oracle'] - mean['shared, uniform']:+.3g} [" in verdict.numbers
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cpu_seconds.tsv", "report.html", "seed1", "seed2"]
