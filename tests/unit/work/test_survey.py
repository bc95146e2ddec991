"""What others see of a build: from the disk alone."""

import dataclasses
import json
import os
import shutil
import time
from pathlib import Path

import pytest

from lorary.building.survey_library import survey_library as survey
from lorary.errors import LibraryError
from lorary.testing.pico import random_library
from lorary.work import claims
from lorary.work import survey as module
from lorary.work.claims import Watch, claim, read_lease
from lorary.work.follower import Follower
from lorary.work.jobs import NOBODY, JobStep, Listener, Pack
from lorary.work.survey import JobState
from lorary.work.worklist import Worklist, clear, open_log

JOBS = {name: [f"experts/{name}"] for name in ("ant", "bee", "cat", "dog")}
PACKS = [
    Pack("a1", ("ant", "bee"), (("experts/ant",), ("experts/bee",)), 10),
    Pack("a2", ("cat",), (("experts/cat",),), 20),
    Pack("a3", ("dog",), (("experts/dog",),), 30),
]


@pytest.fixture
def worklist(base, tmp_path):
    """Four jobs in three packs; the expert of one stands."""
    library = random_library(tmp_path / "lib", base, ["ant"])
    worklist = Worklist(library.path, "key")
    worklist.agree(JOBS, lambda: PACKS)
    return worklist


def states(worklist):
    return {job.name: job.state for job in survey(worklist.root).jobs}


def take(worklist, key, step=0, **losses):
    mine = claim(worklist.work / key, Watch(), lease_s=60)
    mine.reached(step, losses)
    mine.beat()
    return mine


def test_jobs_wait_run_and_are_done(worklist):
    assert states(worklist) == {"ant": "done", "bee": "waiting", "cat": "waiting", "dog": "waiting"}
    take(worklist, "a1", step=3, bee=0.25, ant=1.0)
    found = {job.name: job for job in survey(worklist.root).jobs}
    assert found["ant"] == JobState("ant", "done", 10, 10)
    bee = found["bee"]
    assert (bee.state, bee.step, bee.n_steps, bee.loss) == ("running", 3, 10, 0.25)
    assert bee.owner == read_lease(worklist.work / "a1").owner
    assert bee.owner.endswith(f":{os.getpid()}")
    assert abs(bee.since - time.time()) < 60 and 0 <= bee.silent_s < 60


def test_what_was_left_waits_where_it_was(worklist):
    with take(worklist, "a2", step=5).held():
        pass
    (cat,) = [job for job in survey(worklist.root).jobs if job.name == "cat"]
    assert cat == JobState("cat", "waiting", 5, 20)


def test_dead_and_silent_workers_are_stale(worklist, monkeypatch):
    take(worklist, "a2")
    with monkeypatch.context() as patch:
        patch.setattr(claims, "is_running", lambda pid, start: False)
        assert states(worklist)["cat"] == "stale"
    assert states(worklist)["cat"] == "running"
    now = time.time()
    monkeypatch.setattr(module.time, "time", lambda: now + 61)
    assert states(worklist)["cat"] == "stale"


def test_failures_have_their_reason_and_log(worklist):
    worklist.fail(worklist_pack(worklist, "a2"), "error[E-DIVERGED] no.", "Traceback", "run")
    (cat,) = [job for job in survey(worklist.root).jobs if job.name == "cat"]
    assert (cat.state, cat.error, cat.log) == ("failed", "error[E-DIVERGED] no.", ".work/logs/a2.log")
    assert (worklist.root / cat.log).read_text().rstrip().endswith("cat\nTraceback")
    take(worklist, "a2")
    assert states(worklist)["cat"] == "running", "another run tries it again"


def worklist_pack(worklist, key):
    return next(pack for pack in worklist.agree(JOBS, list) if pack.key == key)


def test_the_time_left_is_at_the_speed_of_those_who_run(worklist, monkeypatch):
    assert survey(worklist.root).seconds_left is None
    now = 1_000_000.0
    monkeypatch.setattr(claims.time, "time", lambda: now)
    one, two = take(worklist, "a1"), take(worklist, "a2")
    assert survey(worklist.root).seconds_left is None, "nobody has got anywhere"
    now += 10
    for mine, step in ((one, 5), (two, 2)):
        mine.reached(step)
        mine.beat()
    # missing: bee 5, cat 18, dog 30; speed: a pack of two jobs at 0.5, one job at 0.2 steps a second
    assert survey(worklist.root).seconds_left == pytest.approx((5 + 18 + 30) / (2 * 0.5 + 0.2))


def test_a_library_that_nobody_builds_has_its_experts(base, tmp_path):
    random_library(tmp_path / "lib", base, ["ant", "bee"])
    found = survey(tmp_path / "lib")
    assert [(job.name, job.state) for job in found.jobs] == [("ant", "done"), ("bee", "done")]
    assert found.counts == {"done": 2, "running": 0, "stale": 0, "failed": 0, "waiting": 0}
    assert found.seconds_left is None


PLAN = {"key": "a1", "names": ["bee"], "made": [["experts/bee"]], "n_steps": 5}
DAMAGED = {
    "": "", "[]": "[]", "{}": "{}", "fields": '[{"key": "a1"}]', "number": "[3]", "deep": "[" * 200_000,
    "infinite": json.dumps([PLAN]).replace("5", "Infinity"),
    "beyond floats": json.dumps([{**PLAN, "n_steps": 10**400}]),
    "leads outside": json.dumps([{**PLAN, "key": "../../home"}]),
    "no file name": json.dumps([{**PLAN, "key": "a\0"}]),
    "long": json.dumps([{**PLAN, "key": "a" * 5000}]),
    "leads outside by what it makes": json.dumps([{**PLAN, "made": [["experts/../../bee"]]}]),
    "what it makes is missing": json.dumps([{**PLAN, "made": []}]),
    "of an older version": json.dumps([{"key": "a1", "names": ["bee"], "experts": [["bee"]], "n_steps": 5}]),
    "one directory for two": json.dumps([PLAN, {**PLAN, "names": ["cat"], "made": [["experts/cat"]]}]),
}  # fmt: skip


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_plan_is_no_plan(worklist, content):
    (plan,) = worklist.work.glob("plan-*.json")
    plan.write_text(content)
    assert states(worklist) == {"ant": "done"}
    clear(worklist.root)
    assert plan.exists(), "its checkpoints may be there: its own build goes on with them"
    assert len(worklist.agree(JOBS, lambda: PACKS)) == 3, "and writes it anew"


def test_a_plan_of_other_experts_is_written_anew(worklist):
    (plan,) = worklist.work.glob("plan-*.json")
    plan.write_text(plan.read_text().replace('"dog"', '"cow"', 1))
    assert worklist.agree(JOBS, lambda: PACKS) == tuple(PACKS)


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("/nowhere")])
def test_a_plan_that_is_no_file_hangs_nobody(worklist, make):
    make(worklist.work / "plan-b.json")
    assert states(worklist)["dog"] == "waiting"
    with pytest.raises(LibraryError) as caught:
        worklist.agree(JOBS, lambda: PACKS)
    assert str(caught.value) == (
        f"error[E-PATH] '{worklist.work}/plan-b.json' is no plain file or directory of a build. "
        "Look at it and remove it: no worker made it."
    )


@pytest.mark.parametrize("place", ["a1", "a1/1", "a1/1/checkpoint.safetensors", "logs", "logs/a1.log", "failed"])
def test_workers_write_through_no_link(worklist, tmp_path, place):
    (tmp_path / "home").mkdir()
    link = worklist.work / place
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(tmp_path / "home")
    with pytest.raises(LibraryError, match="E-PATH"):
        worklist.agree(JOBS, lambda: PACKS)


def test_nothing_is_cleared_through_a_link(worklist, tmp_path):
    worklist.work.rename(tmp_path / "home")
    worklist.work.symlink_to(tmp_path / "home")
    for name in JOBS:
        (worklist.root / "experts" / name).mkdir(exist_ok=True)
    with pytest.raises(LibraryError, match="E-PATH"):
        clear(worklist.root)
    assert len(list((tmp_path / "home").glob("plan-*.json"))) == 1


def test_a_damaged_failure_is_none(worklist):
    (worklist.work / "failed").mkdir()
    (worklist.work / "failed" / "a2.json").write_text('{"error": 3, "log": null, "run": "r", "at": 0}')
    assert states(worklist)["cat"] == "waiting"


def test_who_follows_hears_plan_and_steps(worklist):
    plans, steps = [], []
    follower = Follower(
        worklist.root,
        Listener.of(lambda jobs, done: plans.append(([j.name for j in jobs], list(done))), steps.append),
    )
    follower.look()
    follower.look()
    assert plans == [(["ant", "bee", "cat", "dog"], ["ant"])]
    assert steps == []
    mine = take(worklist, "a1", step=4, bee=0.5)
    follower.look()
    follower.look()
    assert steps == [JobStep("bee", 4, 10, 0.5)]
    (worklist.root / "experts" / "bee").mkdir()
    mine.finish()
    follower.look()
    assert steps[1:] == [JobStep("bee", 10, 10)]


def test_jobs_without_steps_are_followed_too(base, tmp_path):
    library = random_library(tmp_path / "lib", base, ["ant"])
    Worklist(library.path, "key").agree(
        {"merged": ["experts/merged"]}, lambda: [Pack("a", ("merged",), (("experts/merged",),), 0)]
    )
    plans = []
    Follower(library.path, Listener(lambda jobs, done: plans.append(([job.name for job in jobs], done)))).look()
    assert plans == [(["merged"], [])], "ant belongs to no plan"


def test_who_follows_waits_for_the_library(tmp_path):
    Follower(tmp_path / "nothing", NOBODY).look()


def test_leases_are_plain_json(worklist):
    take(worklist, "a1")
    content = json.loads((worklist.work / "a1" / "1" / "lease.json").read_text())
    assert set(content) == {field.name for field in dataclasses.fields(claims.Lease)}


def test_a_build_that_ends_while_somebody_looks_has_no_plans(worklist, monkeypatch):
    listing = os.listdir

    def ended(path):
        shutil.rmtree(worklist.work, ignore_errors=True)
        return listing(path)

    monkeypatch.setattr("lorary.work.worklist.os.listdir", ended)
    assert states(worklist) == {"ant": "done"}


def test_a_plan_is_written_again_where_the_end_of_another_build_took_its_folder(worklist, monkeypatch):
    plan, grouped = Worklist(worklist.root, "other"), []
    write = Path.write_text

    def swept(path, *content, **how):
        if not grouped[1:]:
            shutil.rmtree(worklist.work)
        return write(path, *content, **how)

    def group():
        grouped.append(None)
        return PACKS

    monkeypatch.setattr(Path, "write_text", swept)
    assert plan.agree(JOBS, group) == tuple(PACKS) and len(grouped) == 2


def test_a_log_is_opened_though_its_folder_goes_at_this_moment(tmp_path, monkeypatch):
    log, opening, swept = tmp_path / ".work" / "logs" / "worker-0.log", Path.open, []

    def sweep(path, *how, **more):
        if not swept:
            swept.append(shutil.rmtree(tmp_path / ".work"))
        return opening(path, *how, **more)

    monkeypatch.setattr(Path, "open", sweep)
    with open_log(log) as file:
        file.write(b"said")
    assert log.read_bytes() == b"said" and swept
