"""What work/ promises to any kind of work; shown by work that counts and has nothing to do with libraries."""

import dataclasses
import os
import signal
from pathlib import Path

import pytest
from counting import N_STEPS, Counting

from lorary.errors import LibraryError, LoraryError
from lorary.testing.contracts import files_of
from lorary.work import claims
from lorary.work.backend import Order
from lorary.work.backends.local import Local
from lorary.work.claims import Watch, claim, read_lease
from lorary.work.jobs import Listener, Pack, pack_jobs
from lorary.work.survey import survey
from lorary.work.worker import join, work_here

NAMES = ("a", "b", "c", "d", "e")


@pytest.fixture
def work(tmp_path):
    return Counting(tmp_path / "counted", NAMES)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    into = tmp_path_factory.mktemp("undisturbed") / "counted"
    work_here(Order(Counting(into, NAMES)))
    return files_of(into)


def test_all_jobs_are_run_and_nothing_else_is_left(work, undisturbed):
    steps, plans, said = [], [], []
    listener = Listener(lambda jobs, done: plans.append(([job.name for job in jobs], done)), steps.append, said.append)
    work_here(Order(work, listener=listener))
    assert {path.name: path.read_text() for path in (work.into / "counts").iterdir()} == {
        f"{name}.txt": "1\n2\n3\n4\n5\n6\n" for name in NAMES
    }
    assert [path.name for path in work.into.iterdir()] == ["counts"]
    assert files_of(work.into) == undisturbed
    assert (plans, said) == ([(list(NAMES), [])], ["learning to count ..."])
    assert [step.job for step in steps if step.step == N_STEPS] == list(NAMES)
    assert join(Order(work)) is None, "all is done"


def test_an_interrupted_worker_leaves_its_pack_and_the_next_resumes(work, undisturbed):
    def stop(step):
        if (step.job, step.step) == ("d", 3):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work_here(Order(work, listener=Listener(on_step=stop)))
    states = {job.name: (job.state, job.step) for job in survey(work.into).jobs}
    assert states == {
        "a": ("done", 6), "b": ("done", 6), "c": ("waiting", 3), "d": ("waiting", 3), "e": ("waiting", 0),
    }  # fmt: skip
    steps = []
    work_here(Order(work, listener=Listener(on_step=steps.append)))
    assert [(step.job, step.step) for step in steps][:2] == [("c", 4), ("d", 4)]
    assert files_of(work.into) == undisturbed


def test_a_pack_whose_worker_died_is_taken_over_where_it_was(work, undisturbed, monkeypatch):
    first = join(Order(work, "run"))
    pack = first.packs[0]
    mine = claim(first.worklist.pack_directory(pack), Watch())
    (mine.directory / "checkpoint").write_text("a1 b1\na2 b2")
    second = join(Order(work, "run"))
    assert not second.try_pack(pack), "another works on it"
    monkeypatch.setattr(claims.Lease, "is_dead", True)
    steps = []
    third = join(Order(work, "run", Listener(on_step=steps.append)))
    assert third.try_pack(pack)
    assert steps[0].step == 3
    monkeypatch.undo()
    third.finish()
    assert files_of(work.into) == undisturbed


def test_a_job_that_fails_fails_alone(work, undisturbed):
    with pytest.raises(LoraryError) as caught:
        work_here(Order(dataclasses.replace(work, failing="b"), "run"))
    assert str(caught.value) == "error[E-DATA] no."
    assert sorted(path.stem for path in (work.into / "counts").iterdir()) == ["a", "c", "d", "e"]
    assert {job.name: job.state for job in survey(work.into).jobs}["b"] == "failed"
    work_here(Order(work))
    assert files_of(work.into) == undisturbed


def test_a_pack_is_named_by_the_keys_of_its_jobs(work):
    jobs = join(Order(work)).runner.jobs
    one, other = pack_jobs(jobs[:2]), pack_jobs([jobs[0], dataclasses.replace(jobs[1], key="other")])
    assert one == Pack(one.key, ("a", "b"), (("counts/a.txt",), ("counts/b.txt",)), N_STEPS)
    assert one.key != other.key


def test_a_directory_that_is_gone_ends_the_work(work):
    def move(step):
        if work.into.exists() and step.step == 2:
            work.into.rename(work.into.with_name("there"))

    with pytest.raises(LibraryError, match="the counts are gone"):
        work_here(Order(work, listener=Listener(on_step=move)))
    assert not work.into.exists()


def test_what_leads_outside_is_no_result(work):
    with pytest.raises(AssertionError, match="paths must stay inside"):
        join(Order(Counting(work.into, ("../a",))))


@pytest.mark.slow
def test_a_killed_process_is_replaced_and_the_same_comes_out(work, undisturbed, monkeypatch, tmp_path):
    """Two processes; one is killed in the midst of a pack. None of them has heard of builds, libraries or models."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]))
    slow = dataclasses.replace(work, pause_s=0.5, modules=tmp_path / "modules")
    killed, steps = [], []

    def kill_one(step):
        steps.append(step)
        leases = [read_lease(path) for path in work.into.glob(".work/*") if path.is_dir()]
        living = [lease for lease in leases if lease and not lease.is_free and not lease.is_dead and lease.step >= 2]
        if living and not killed:
            killed.append(living[0].pid)
            os.kill(living[0].pid, signal.SIGKILL)

    Local(workers=2, threads=1).work(Order(slow, listener=Listener(on_step=kill_one)))
    assert killed
    assert files_of(work.into) == undisturbed
    assert {step.job: step.step for step in steps} == dict.fromkeys(NAMES, N_STEPS)
    rooms = {name.split(".")[1] for name in (tmp_path / "modules").read_text().splitlines() if "." in name}
    assert rooms <= {"work", "disk", "errors", "extras", "folder", "hashing", "options", "progress"}
