"""Several workers on one library: each pack is run by one, whatever dies, and the library is the same."""

import dataclasses
import json
import shutil
import threading

import pytest
import torch

from lorary.building import estimate
from lorary.building.build import build
from lorary.building.build_work import Build
from lorary.building.builders.private import Private
from lorary.building.training import loop as train
from lorary.errors import AdapterError, BuildError, LibraryError, LoraryError, OptionError, TaskError
from lorary.library.library import Library
from lorary.tasks.task import Task, Tasks
from lorary.testing.contracts import files_of
from lorary.testing.pico import pico_base
from lorary.work import claims
from lorary.work.backend import Order, new_run
from lorary.work.claims import Claim, Watch, read_lease
from lorary.work.jobs import Listener
from lorary.work.worker import jobs_failed, join
from lorary.work.worklist import Failure

NAMES = ["copy", "join", "swap", "upper"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class OneByOne(Private):
    """Train each expert in a pack of its own."""

    def packs(self, jobs, base):
        return [[job] for job in jobs]


BUILDER = OneByOne(steps=4, batch_size=2, rank=2, n_evaluations=2, dropout=0.1, lr=1e-2)


def enlist(builder, tasks, base, *, into, report=None, run=None):
    """Make this process a worker of a build."""
    return join(Order(Build(builder, tasks, base, into), run or new_run(), Listener.of(None, report)))


@pytest.fixture
def tasks(toy):
    return toy.only(NAMES)


@pytest.fixture(autouse=True)
def checkpoint_at_every_step(monkeypatch):
    monkeypatch.setattr(train, "CHECKPOINT_EVERY_S", 0.0)


@pytest.fixture(scope="module")
def other_base():
    """Another process has a base of its own."""
    return pico_base()


@pytest.fixture(scope="module")
def undisturbed(_pico, toy, tmp_path_factory):
    library = build(BUILDER, toy.only(NAMES), _pico, into=tmp_path_factory.mktemp("undisturbed") / "lib")
    return library.hash, files_of(library.path)


def at(job_number, step, do):
    """Do something once, when a worker has reached a step of the n-th job that it runs; its steps are kept."""
    seen = []

    def report(reached):
        seen.append((reached.job, reached.step))
        if len({job for job, _ in seen}) == job_number and reached.step == step:
            do()

    report.seen = seen
    return report


# ---- together -----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("n_others", [1, 3])
def test_workers_share_the_packs_and_the_library_is_the_same(base, other_base, tasks, tmp_path, undisturbed, n_others):
    """While the first worker is in the midst of a pack, others take one each, and what is left."""
    into, others = tmp_path / "one" / "lib", []

    def call_others():
        for _ in range(n_others):
            steps = []
            other = enlist(BUILDER, tasks, other_base, into=into, report=steps.append)
            others.append(steps)
            (busy,) = [pack for pack in other.packs if read_lease(other.worklist.pack_directory(pack))]
            assert not other.try_pack(busy)
            free = [pack for pack in other.packs if pack.missing(into) and pack != busy]
            for pack in free if n_others == 1 else free[-1:]:
                assert other.try_pack(pack)

    report = at(1, 2, call_others)
    library = build(BUILDER, tasks, base, into=into, report=report)
    assert (library.hash, files_of(into)) == undisturbed
    trained = [(step.job, step.step) for steps in others for step in steps] + report.seen
    assert sorted(trained) == [(name, step) for name in NAMES for step in (1, 2, 3, 4)], "each once"
    assert all(others)


def test_the_order_of_packs_changes_nothing(base, tasks, tmp_path, undisturbed):
    worker = enlist(BUILDER, tasks, base, into=tmp_path / "lib")
    worker.packs.reverse()
    worker.finish()
    assert (Library.open(tmp_path / "lib").hash, files_of(tmp_path / "lib")) == undisturbed


def test_all_follow_the_grouping_of_the_first(base, tasks, tmp_path):
    first = enlist(BUILDER, tasks, base, into=tmp_path / "lib")
    together = Private(**{f.name: getattr(BUILDER, f.name) for f in dataclasses.fields(BUILDER)})
    assert len(together.packs(together.plan(tasks), base)) == 1
    key = enlist(together, tasks, base, into=tmp_path / "other").worklist.key
    assert first.worklist.key != key, "another builder is another plan"
    worse = enlist(BUILDER, tasks, base, into=tmp_path / "lib")
    assert worse.packs == first.packs and len(worse.packs) == 4
    (plan,) = (tmp_path / "lib" / ".work").glob("plan-*.json")
    plan.write_text(plan.read_text().replace('"copy"', '"gone"'))
    assert enlist(BUILDER, tasks, base, into=tmp_path / "lib").packs == first.packs, "a damaged plan is made anew"


@pytest.mark.parametrize("folder", [".staging", ".work", "learned", "experts"])
def test_a_build_into_a_strangers_library_touches_nothing_outside(base, tasks, tmp_path, folder):
    library = Library.create(tmp_path / "lib", base=base.fingerprint)
    (tmp_path / "home" / "letters").mkdir(parents=True)
    shutil.rmtree(library.path / folder, ignore_errors=True)
    (library.path / folder).symlink_to(tmp_path / "home")
    steps = []
    with pytest.raises(LibraryError, match="E-PATH"):
        build(BUILDER, tasks, base, into=library.path, report=steps.append)
    assert not steps
    assert [p.name for p in (tmp_path / "home").rglob("*")] == ["letters"]


def test_a_plan_that_leads_outside_is_made_anew(base, tasks, tmp_path, undisturbed):
    first = enlist(BUILDER, tasks, base, into=tmp_path / "lib")
    (tmp_path / "home" / "1").mkdir(parents=True)
    (plan,) = (tmp_path / "lib" / ".work").glob("plan-*.json")
    plan.write_text(plan.read_text().replace(first.packs[0].key, "../../home"))
    library = build(BUILDER, tasks, base, into=tmp_path / "lib")
    assert (library.hash, files_of(library.path)) == undisturbed
    assert (tmp_path / "home" / "1").is_dir()


def test_many_may_start_at_the_same_instant(base, tmp_path):
    for number in range(20):
        barrier, found = threading.Barrier(6), []

        def start(path=tmp_path / f"lib{number}", barrier=barrier, found=found):
            barrier.wait()
            found.append(Library.create(path, base=base.fingerprint, exist_ok=True))

        threads = [threading.Thread(target=start) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [library.base for library in found] == [base.fingerprint] * 6


# ---- taken over ---------------------------------------------------------------------------------


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def take_over(into, tasks, base, steps):
    """Another worker sees the first one's lease, waits, hears nothing, and does its pack."""
    clock = Clock()
    other = enlist(BUILDER, tasks, base, into=into, report=steps.append)
    other.watch = Watch(clock)
    (pack,) = [pack for pack in other.packs if read_lease(other.worklist.pack_directory(pack))]
    assert not other.try_pack(pack)
    clock.now += 61
    assert other.try_pack(pack)


@pytest.mark.parametrize("wakes_up", [True, False])
def test_a_worker_that_was_thought_dead_spoils_nothing(
    base, other_base, tasks, tmp_path, undisturbed, monkeypatch, wakes_up
):
    """It stalls in step 3; another goes on from the checkpoint of step 2. Awake again, it notices, or is too late."""
    into, steps, beat = tmp_path / "one" / "lib", [], Claim.beat
    hearts = []

    def stall():
        monkeypatch.setattr(Claim, "beat", lambda self: hearts.append(self))
        with monkeypatch.context() as patch:
            patch.setattr(claims, "is_running", lambda pid, start: True)
            take_over(into, tasks, other_base, steps)
        monkeypatch.setattr(Claim, "beat", beat if wakes_up else lambda self: None)
        if wakes_up:
            own.beat()

    reached = Claim.reached

    def remember(self, *told):
        nonlocal own
        own = own or self
        reached(self, *told)

    own = None
    monkeypatch.setattr(Claim, "reached", remember)
    report = at(1, 3, stall)
    library = build(BUILDER, tasks, base, into=into, report=report, lease_s=60)
    assert [step.step for step in steps] == [3, 4], "from the last whole checkpoint"
    first = report.seen[0][0]
    assert [step for job, step in report.seen if job == first] == ([1, 2, 3] if wakes_up else [1, 2, 3, 4])
    assert library.hash == undisturbed[0]
    assert files_of(into / "experts") == files_of_experts(undisturbed)


def test_only_jobs_with_steps_can_hang(base, tasks, tmp_path, monkeypatch):
    limits, held = [], Claim.held

    def remember(self, hang_s, on_hang):
        limits.append(hang_s)
        return held(self, hang_s, on_hang)

    monkeypatch.setattr(Claim, "held", remember)
    library = build(BUILDER, tasks.only(["copy", "join"]), base, into=tmp_path / "lib", hang_s=60)
    build("uniform", Tasks([]), base, into=tmp_path / "merged", source=library, hang_s=60)
    assert limits == [60, 60, None]


def files_of_experts(undisturbed):
    return {name.removeprefix("experts/"): h for name, h in undisturbed[1].items() if name.startswith("experts/")}


def test_an_expert_of_that_name_made_meanwhile_of_other_data_is_an_error(base, other_base, tasks, tmp_path):
    def another():
        build(dataclasses.replace(BUILDER, seed=1), tasks.only([report.seen[0][0]]), other_base, into=tmp_path / "lib")

    report = at(1, 3, another)
    expected = r"^error\[E-EXISTS\] library '.*' holds an expert 'copy' that was built with"
    with pytest.raises(LibraryError, match=expected):
        build(BUILDER, tasks.only(["copy"]), base, into=tmp_path / "lib", report=report)


# ---- failures -----------------------------------------------------------------------------------


@pytest.fixture
def failing(monkeypatch):
    """Let jobs of these names fail, until they are taken off the list."""
    names = {}
    run = Private.run

    def run_or_fail(self, pack, *rest):
        if error := names.get(pack[0].name):
            raise error
        return run(self, pack, *rest)

    monkeypatch.setattr(Private, "run", run_or_fail)
    return names


def test_a_failure_takes_no_other_job_along(base, tasks, tmp_path, failing, undisturbed):
    into = tmp_path / "one" / "lib"
    failing["join"] = BuildError("E-DIVERGED", "expert 'join': the loss is nan at step 1.", "Lower lr=1.")
    with pytest.raises(BuildError) as caught:
        build(BUILDER, tasks, base, into=into)
    assert caught.value is failing["join"]
    assert sorted(Library.open(into)) == ["copy", "swap", "upper"]
    (record,) = into.glob(".work/failed/*.json")
    failure = json.loads(record.read_text())
    assert failure["error"] == str(failing["join"])
    assert "Traceback (most recent call last):" in (into / failure["log"]).read_text()
    failing.clear()
    report = at(1, 99, None)
    library = build(BUILDER, tasks, base, into=into, report=report)
    assert {job for job, _ in report.seen} == {"join"}, "only what is missing"
    assert (library.hash, files_of(into)) == undisturbed


def test_several_failures_are_told_together(base, tasks, tmp_path, failing):
    failing["join"] = BuildError("E-DIVERGED", "the loss is nan.")
    failing["swap"] = RuntimeError("out of\nmemory")
    with pytest.raises(BuildError) as caught:
        build(BUILDER, tasks, base, into=tmp_path / "lib")
    logs = {json.loads(path.read_text())["error"]: json.loads(path.read_text())["log"]
            for path in (tmp_path / "lib" / ".work" / "failed").iterdir()}  # fmt: skip
    one, two = "error[E-DIVERGED] the loss is nan.", "RuntimeError: out of memory"
    assert str(caught.value) == (
        f"error[E-JOBS] 2 packs of jobs failed: join: {one} (log: {logs[one]}); "
        f"swap: {two} (log: {logs[two]}) The same command tries again."
    )


def test_of_many_failures_the_first_few_are_named():
    failures = {f"job{n}": Failure("no.", f"{n}.log", "run", 0.0) for n in range(6)}
    assert str(jobs_failed(failures)) == (
        "error[E-JOBS] 6 packs of jobs failed: job0: no. (log: 0.log); job1: no. (log: 1.log); job2: no. (log: 2.log); "
        "job3: no. (log: 3.log); and 2 more, which `lorary status` lists. The same command tries again."
    )


def test_what_fails_unexpectedly_is_one_error_too(base, tasks, tmp_path, failing):
    failing["join"] = RuntimeError("out of memory")
    with pytest.raises(BuildError) as caught:
        build(BUILDER, tasks, base, into=tmp_path / "lib")
    (record,) = tmp_path.glob("lib/.work/failed/*.json")
    assert str(caught.value) == (
        "error[E-JOBS] a pack of jobs failed: join: RuntimeError: out of memory "
        f"(log: {json.loads(record.read_text())['log']}) The same command tries again."
    )
    assert caught.value.__cause__ is failing["join"]


def test_workers_of_one_run_try_a_job_once(base, tasks, tmp_path, failing):
    failing["join"] = RuntimeError("out of memory")
    for name in ("first", "first", "second"):
        with pytest.raises(BuildError, match="join: RuntimeError"):
            build(BUILDER, tasks, base, into=tmp_path / "lib", run=name)
    log = next((tmp_path / "lib" / ".work" / "logs").iterdir()).read_text()
    assert log.count("Traceback") == 2


@pytest.mark.parametrize("code", ["E-DISK", "E-PERM"])
def test_what_no_other_job_would_fare_better_with_ends_the_build(base, tasks, tmp_path, failing, code):
    failing.update({name: LibraryError(code, f"{name}: no.") for name in NAMES})
    with pytest.raises(LibraryError, match=rf"^error\[{code}\] copy: no\.$"):
        build(BUILDER, tasks, base, into=tmp_path / "lib")
    assert not list(tmp_path.glob("lib/.work/failed/*"))


def test_a_full_disk_ends_the_build(base, tasks, tmp_path, failing, monkeypatch):
    full = OSError(28, "No space left on device")
    failing["copy"] = full
    message = (
        "error[E-DISK] library 'lib': the disk is full (No space left on device). Free some space and run it again; "
    )
    with pytest.raises(LibraryError) as caught:
        build(BUILDER, tasks, base, into=tmp_path / "lib")
    assert str(caught.value).startswith(message)
    failing.clear()

    def refuse(*_, **__):
        raise full

    monkeypatch.setattr(claims, "_write", refuse)
    with pytest.raises(LibraryError) as caught:
        build(BUILDER, tasks, base, into=tmp_path / "lib")
    assert str(caught.value).startswith(message)


def test_a_disk_without_room_for_a_checkpoint_ends_the_build_before_its_first_step(base, tasks, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: shutil._ntuple_diskusage(10, 7, 3))
    steps = []
    with pytest.raises(LibraryError, match=r"^error\[E-DISK\] the disk is too full: needs \d+ MB, 1 MB free\."):
        build(Private(rank=2, steps=2), tasks, base, into=tmp_path / "lib", report=steps.append)
    assert not steps


def test_two_jobs_of_one_name_are_refused(base, toy, tmp_path):
    twins = Tasks(Task(name, toy["copy"].train, toy["copy"].valid) for name in ("a b", "a-b"))
    with pytest.raises(OptionError) as caught:
        build(BUILDER, twins, base, into=tmp_path / "lib")
    assert str(caught.value) == "error[E-NAME] two jobs make an expert 'a-b'. Rename the task of one."


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["Copy", "copy"], "experts 'Copy' and 'copy' differ only by case, which some disks can't tell apart."),
        (["base", "copy"], "expert name 'base' is reserved: it occurs inside PEFT's tensor keys."),
    ],
)
def test_names_that_no_library_takes_are_refused_before_anything_is_trained(base, toy, tmp_path, names, message):
    tasks = Tasks(Task(name, toy["copy"].train, toy["copy"].valid) for name in names)
    with pytest.raises(LoraryError) as caught:
        build(BUILDER, tasks, base, into=tmp_path / "lib")
    assert str(caught.value).startswith(f"error[E-NAME] {message}")
    assert not (tmp_path / "lib").exists()


def test_a_name_that_differs_by_case_from_one_in_the_library_is_refused(base, toy, tasks, tmp_path):
    build(BUILDER, tasks.only(["copy"]), base, into=tmp_path / "lib")
    steps = []
    with pytest.raises(OptionError, match="'copy' and 'Copy' differ only by case"):
        task = Task("Copy", toy["copy"].train, toy["copy"].valid)
        build(BUILDER, Tasks([task]), base, into=tmp_path / "lib", report=steps.append)
    assert not steps


def test_an_error_of_the_listener_is_not_the_job_s(base, tasks, tmp_path):
    def listen(step):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        build(BUILDER, tasks, base, into=tmp_path / "lib", report=listen)
    assert not list(tmp_path.glob("lib/.work/failed/*"))


def test_a_pack_that_kills_its_workers_is_given_up(base, tasks, tmp_path, monkeypatch):
    """Three processes of one run died at it."""
    into = tmp_path / "lib"
    worker = enlist(BUILDER, tasks, base, into=into, run="run")
    pack = worker.packs[0]
    with monkeypatch.context() as patch:
        patch.setattr(claims, "is_running", lambda pid, start: False)
        for _ in range(3):
            assert claims.claim(worker.worklist.pack_directory(pack), Watch(), run="run")
        worker.try_pack(pack)
    with pytest.raises(BuildError) as caught:
        worker.finish()
    (log,) = (into / ".work" / "logs").iterdir()
    assert str(caught.value) == (
        "error[E-JOBS] a pack of jobs failed: copy: error[E-WORKER] 3 workers died at it, the last "
        "after step 0: killed, out of memory, or hung for 1800 s. "
        f"(log: .work/logs/{log.name}) The same command tries again."
    )
    assert sorted(Library.open(into)) == ["join", "swap", "upper"]
    assert sorted(build(BUILDER, tasks, base, into=into)) == NAMES


def test_a_worker_notes_its_experts_once(base, tasks, tmp_path, notes):
    into = tmp_path / "lib"
    Library.create(into, base=base.fingerprint)
    notes.clear()

    def interrupt():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(BUILDER, tasks, base, into=into, report=at(3, 2, interrupt))
    assert notes == [["copy", "join"]]
    build(BUILDER, tasks, base, into=into)
    assert notes[1:] == [NAMES]


# ---- what changes meanwhile -----------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("change", [lambda into: into.rename(into.with_name("there")), shutil.rmtree])
def test_a_library_that_is_gone_is_told_and_not_made_anew(base, tasks, tmp_path, undisturbed, change):
    into, there = tmp_path / "one" / "lib", tmp_path / "one" / "there"
    with pytest.raises(LibraryError) as caught:
        build(BUILDER, tasks, base, into=into, report=at(2, 3, lambda: change(into)), lease_s=0.4)
    assert str(caught.value) == (
        f"error[E-LIBRARY] library '{into}' is gone: it was moved or deleted while it was built. "
        "If it was moved, go on there: the same command with that --into."
    )
    assert not into.exists()
    assert build(BUILDER, tasks, base, into=there).hash == undisturbed[0]


def test_an_expert_that_was_removed_meanwhile_is_told(base, tasks, tmp_path):
    def remove():
        Library.open(tmp_path / "lib").remove("copy")

    with pytest.raises(BuildError) as caught:
        build(BUILDER, tasks, base, into=tmp_path / "lib", report=at(3, 1, remove))
    assert str(caught.value) == (
        f"error[E-JOBS] library '{tmp_path / 'lib'}': 'copy' is missing though it was built: somebody removed it. "
        "The same command builds what is missing."
    )
    assert sorted(build(BUILDER, tasks, base, into=tmp_path / "lib")) == NAMES


def test_a_base_of_another_precision_or_length_is_said_to_be_so(base, tasks, tmp_path):
    into, one = tmp_path / "lib", tasks.only(["copy"])
    build(BUILDER, one, base, into=into)
    remove = f"Give another --into, or remove the expert: `lorary remove {into} copy`."
    begin = f"error[E-EXISTS] library '{into}' holds an expert 'copy' that was built with"
    with pytest.raises(LibraryError) as caught:
        build(BUILDER, one, pico_base(dtype=torch.bfloat16), into=into)
    assert str(caught.value) == (
        f"{begin} dtype=float32, not dtype=bfloat16. Give --dtype float32: the default depends on the machine. {remove}"
    )
    short = pico_base()
    short.max_tokens = 16
    with pytest.raises(LibraryError) as caught:
        build(BUILDER, one, short, into=into)
    assert str(caught.value) == f"{begin} max_tokens=256, not max_tokens=16. {remove}"


def test_an_interrupted_build_does_not_go_on_in_another_precision(base, tasks, tmp_path):
    def interrupt():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(BUILDER, tasks, pico_base(dtype=torch.bfloat16), into=tmp_path / "lib", report=at(1, 3, interrupt))
    report = at(9, 9, None)
    build(BUILDER, tasks, base, into=tmp_path / "lib", report=report)
    assert report.seen[0] == ("copy", 1), "from the start"


# ---- what is left -------------------------------------------------------------------------------


def test_an_interrupted_build_leaves_its_claim_to_others(base, tasks, tmp_path):
    def interrupt():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(BUILDER, tasks, base, into=tmp_path / "lib", report=at(2, 3, interrupt))
    (lease,) = tmp_path.glob("lib/.work/*/1/lease.json")
    assert json.loads(lease.read_text())["is_free"]
    report = at(9, 9, None)
    build(BUILDER, tasks, base, into=tmp_path / "lib", report=report)
    assert report.seen[0][1] == 4, "from the checkpoint of the step it was interrupted at"
    assert not (tmp_path / "lib" / ".work").exists()


def test_plans_of_other_tasks_keep_their_work(base, tasks, tmp_path):
    def interrupt():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(BUILDER, tasks.only(["copy", "join"]), base, into=tmp_path / "lib", report=at(1, 3, interrupt))
    build(BUILDER, tasks.only(["swap"]), base, into=tmp_path / "lib")
    report = at(9, 9, None)
    build(BUILDER, tasks.only(["copy", "join"]), base, into=tmp_path / "lib", report=report)
    assert report.seen[0] == ("copy", 4)
    assert not (tmp_path / "lib" / ".work").exists()


def test_a_pack_s_speed_is_remembered(base, tasks, tmp_path, monkeypatch):
    monkeypatch.setenv("LORARY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(estimate, "_LEAST_S", 0.0)
    heard = []
    monkeypatch.setattr(
        "lorary.building.runner.remember_rate",
        lambda *facts: heard.append(facts) or estimate.remember_rate(*facts),
    )
    build(BUILDER, tasks.only(["copy"]), base, into=tmp_path / "lib")
    ((name, tokens, seconds),) = heard
    job = BUILDER.plan(tasks.only(["copy"]))[0]
    assert (name, tokens) == (base.name, round(3 / 4 * job.n_tokens(base))), "the first step isn't timed"
    assert estimate.recall_rate(base.name) == pytest.approx(tokens / seconds)


# ---- before anything runs -----------------------------------------------------------------------


def test_nothing_to_build_is_an_error(base, tasks, tmp_path):
    with pytest.raises(TaskError, match=r"E-TASK\] private: there is nothing to build: no tasks were given"):
        build(Private(steps=1), tasks.only([]), base, into=tmp_path / "lib")
    assert not (tmp_path / "lib").exists()


def test_targets_that_name_nothing_are_one_error_before_any_pack_starts(base, tasks, tmp_path):
    with pytest.raises(AdapterError) as caught:
        build(dataclasses.replace(BUILDER, targets=("mlp",)), tasks, base, into=tmp_path / "lib")
    assert str(caught.value) == (
        "error[E-TARGET] 'mlp' names no linear layer of the base. "
        "Known: attention, all-linear, down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj."
    )
    assert not (tmp_path / "lib").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"builder": Private}, "builder is the class Private, expected a builder, as Private"),
        ({"tasks": "tasks/"}, "tasks is 'tasks/', expected tasks. read_tasks"),
        ({"base": "smollm2-135m"}, "base is 'smollm2-135m', expected a base model. Load one"),
    ],
)
def test_wrong_arguments_are_said_to_be_so(base, tasks, tmp_path, arguments, message):
    given = {"builder": BUILDER, "tasks": tasks, "base": base, **arguments}
    with pytest.raises(OptionError, match=f"^error.E-OPTION. {message}"):
        build(**given, into=tmp_path / "lib")


def test_what_goes_wrong_since_another_took_the_pack_over_is_no_failure_of_its_jobs(base, tasks, tmp_path, monkeypatch):
    """Its files went with its directory; nobody has told it yet, since it beats now and then only."""
    into, save = tmp_path / "lib", train.save_checkpoint
    monkeypatch.setattr(Claim, "beat", lambda self: None)
    taken = []

    def without_place(path, *rest):
        if not taken:
            taken.append(path.parent.rename(path.parent.with_name(str(int(path.parent.name) + 1))))
            raise FileNotFoundError(2, "No such file or directory", str(path))
        return save(path, *rest)

    monkeypatch.setattr(train, "save_checkpoint", without_place)
    worker = enlist(BUILDER, tasks.only(["copy"]), base, into=into)
    (pack,) = worker.packs
    assert not worker.try_pack(pack), "another has it"
    assert worker.worklist.failure(pack) is None
