"""What every builder promises: a test class to inherit from, with `builder`, `base`, `tasks` and `source`."""

from collections.abc import Callable
from pathlib import Path

from lorary.building.build import build
from lorary.building.contract import Builder, JobStep
from lorary.hashing import hash_file
from lorary.library.layout import Layout
from lorary.library.library import Library
from lorary.model.base.base_model import BaseModel
from lorary.tasks.task import Tasks
from lorary.testing.contracts.options import OptionsContract


class Killed(BaseException):
    """What the contract raises inside a build; nobody catches it."""


def _killer(step: int) -> Callable[[JobStep], None]:
    def report(reached: JobStep) -> None:
        if reached.step == step:
            raise Killed

    return report


_WHOLE: dict[tuple[str, ...], dict[str, str]] = {}
"""Hashes of the files of builds that ran through in this process: several promises are about one and the same."""


class BuilderContract(OptionsContract):
    """What a builder promises.

    Needs `builder` (Tasks -> Builder, checkpoint at every step), `base`, `tasks`, and `source`: a library on the base
    with an expert for each task, for builders that start from one.
    """

    def test_the_plan_lists_what_run_does(
        self, builder: Callable[[Tasks], Builder], base: BaseModel, tasks: Tasks, source: Library, tmp_path: Path
    ) -> None:
        """One expert per job, with its name, its tasks and its steps; base, data and source stay as they were."""
        maker, before, facts = builder(tasks), {t: tasks[t].hash for t in tasks}, _hash_model(base)
        files = files_of(source.path)
        jobs = maker.plan(tasks, source)
        steps: list[JobStep] = []
        library = build(maker, tasks, base, source=source, into=tmp_path / "lib", report=steps.append)
        assert sorted(library) == sorted(name for job in jobs for name in job.experts)
        for job in jobs:
            described = job.describe()
            assert described["expert"] == job.name
            for name in job.experts:
                assert tuple(described["tasks"]) == library[name].provenance.tasks
                assert library[name].provenance.steps == job.n_steps == described["steps"]
            assert [s.step for s in steps if s.job == job.name] == list(range(1, job.n_steps + 1))
        assert {t: tasks[t].hash for t in tasks} == before
        assert _hash_model(base) == facts
        assert files_of(source.path) == files
        _WHOLE.setdefault(_inputs(maker, base, tasks, source), files_of(library.path))

    def test_same_seed_same_bytes(
        self, builder: Callable[[Tasks], Builder], base: BaseModel, tasks: Tasks, source: Library, tmp_path: Path
    ) -> None:
        """Two builds write the same files."""
        expected = _whole(builder(tasks), base, tasks, source, tmp_path / "one" / "lib")
        again = build(builder(tasks), tasks, base, source=source, into=tmp_path / "two" / "lib")
        assert files_of(again.path) == expected

    def test_kill_and_resume_is_uninterrupted(
        self, builder: Callable[[Tasks], Builder], base: BaseModel, tasks: Tasks, source: Library, tmp_path: Path
    ) -> None:
        """Broken off twice, with a checkpoint at every step, it writes the files of a build that ran through.

        A builder without steps computes at once as it writes: there is nothing to go on with.
        """
        if not any(job.n_steps for job in builder(tasks).plan(tasks, source)):
            return
        whole = _whole(builder(tasks), base, tasks, source, tmp_path / "whole" / "lib")
        for step in (3, 5):
            try:
                build(builder(tasks), tasks, base, source=source, into=tmp_path / "cut" / "lib", report=_killer(step))
            except Killed:
                assert not files_of(Layout(tmp_path / "cut" / "lib").experts)
            else:
                raise AssertionError("the build was too short to be killed")
        steps: list[JobStep] = []
        resumed = build(builder(tasks), tasks, base, source=source, into=tmp_path / "cut" / "lib", report=steps.append)
        assert files_of(resumed.path) == whole
        assert steps[0].step == 5, "it did not go on where it was"

    def test_a_second_call_runs_nothing(
        self, builder: Callable[[Tasks], Builder], base: BaseModel, tasks: Tasks, source: Library, tmp_path: Path
    ) -> None:
        """What is built is not built again, and not touched."""
        build(builder(tasks), tasks, base, source=source, into=tmp_path / "lib")
        before, steps = files_of(tmp_path / "lib"), list[JobStep]()
        build(builder(tasks), tasks, base, source=source, into=tmp_path / "lib", report=steps.append)
        assert not steps
        assert files_of(tmp_path / "lib") == before

    def test_it_is_frozen(self, builder: Callable[[Tasks], Builder], tasks: Tasks) -> None:
        """Equal options are equal objects."""
        self.check_options(builder(tasks))


def _inputs(builder: Builder, base: BaseModel, tasks: Tasks, source: Library) -> tuple[str, ...]:
    return (
        repr(builder),
        str(base.fingerprint),
        source.hash,
        str(source.path),
        *(f"{name} {tasks[name].hash}" for name in tasks),
    )


def _whole(builder: Builder, base: BaseModel, tasks: Tasks, source: Library, into: Path) -> dict[str, str]:
    """Hash the files of a build that ran through, where this process knows of none by making one."""
    inputs = _inputs(builder, base, tasks, source)
    if inputs not in _WHOLE:
        _WHOLE[inputs] = files_of(build(builder, tasks, base, source=source, into=into).path)
    return _WHOLE[inputs]


def files_of(library: Path) -> dict[str, str]:
    """Hash all files of a library by their path in it."""
    paths = sorted(path for path in library.rglob("*") if path.is_file())
    return {str(path.relative_to(library)): hash_file(path) for path in paths}


def _hash_model(base: BaseModel) -> list[tuple[str, int, float]]:
    tensors = base.hf.state_dict().items()
    return [(name, id(base.hf.get_parameter(name)), float(t.double().abs().sum())) for name, t in tensors]
