"""Builder and Job: what may be built, and from what."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

from lorary.adapters.tied import tied_groups
from lorary.building.trained_layers import require_trainable, warn_of_targets
from lorary.errors import BuildError, LibraryError, TaskError
from lorary.hashing import hash_json
from lorary.library.library import Library
from lorary.model.base.base_model import BaseModel
from lorary.options import Options, name_of, require
from lorary.tasks.example import Example
from lorary.tasks.task import Task, Tasks
from lorary.work.jobs import Failures as Failures
from lorary.work.jobs import JobStep as JobStep
from lorary.work.jobs import Report as Report
from lorary.work.jobs import failing_alone as failing_alone


class Job(Protocol):
    """One unit of a builder's work; most make one expert, of the same name."""

    @property
    def name(self) -> str:
        """What progress and messages call it."""

    @property
    def experts(self) -> Sequence[str]:
        """The experts it makes."""

    @property
    def n_steps(self) -> int:
        """Optimiser steps in all."""

    def key(self, base_facts: Mapping[str, object]) -> str:
        """Hash of all that decides the result: options, data, seed, and the base by its `identity`."""

    def describe(self) -> dict[str, Any]:
        """What --dry-run prints: name, tasks, steps, examples."""

    def n_tokens(self, base: BaseModel | None) -> int | None:
        """Count the tokens that it passes through the base while it trains; None if it isn't known before.

        base: None if it isn't at hand.
        """


J = TypeVar("J")


def jobs_of(kind: type[J], pack: Sequence[Job]) -> list[J]:
    """Take a builder's jobs as the kind that it planned: another's are its mistake, and none is left out in silence."""
    assert all(isinstance(job, kind) for job in pack), f"expected {kind.__name__}: {pack}"
    return [job for job in pack if isinstance(job, kind)]


@dataclass(frozen=True)
class OneExpertJob(ABC):
    """Make one expert, of the job's name, from `source`, without training."""

    name: str
    source: Library = field(compare=False)

    @property
    def experts(self) -> tuple[str, ...]:
        """The one expert it makes."""
        return (self.name,)

    @property
    def n_steps(self) -> int:
        """0, unless it searches."""
        return 0

    @property
    @abstractmethod
    def tasks(self) -> tuple[str, ...]:
        """The tasks that the expert is for."""

    @property
    def examples(self) -> Sequence[Example]:
        """The examples that it sees."""
        return ()

    @property
    def data_hash(self) -> str:
        """sha256 of the examples it sees."""
        return hash_json(self.examples)

    @abstractmethod
    def key(self, base_facts: Mapping[str, object]) -> str:
        """Hash of all that decides the result."""

    def n_tokens(self, base: BaseModel | None) -> int | None:
        """None for those that pass through the base without training."""
        return None

    def describe(self) -> dict[str, Any]:
        """What --dry-run prints."""
        examples = {"train": len(self.examples), "valid": 0}
        return {"expert": self.name, "tasks": list(self.tasks), "steps": self.n_steps, "examples": examples}


Write = Callable[[Path], dict[str, Any]]
"""Writes one expert's files to a staging directory; gives the provenance's fields."""


@dataclass(frozen=True)
class Made:
    """What a pack made: a writer per expert, and (job, kind) -> a writer of the safetensors file of what it learned.

    An artefact is kept as learned/<kind>-<key of the job>, written before the experts that only make sense with it.
    failed: the jobs that made nothing; a pack's run raises only what concerns all of it.
    """

    experts: Mapping[str, Write]
    learned: Mapping[tuple[str, str], Callable[[Path], None]] = field(default_factory=dict)
    failed: Failures = field(default_factory=dict)


@dataclass(frozen=True)
class Builder(Options, ABC):
    """Options of one way to make a library."""

    @abstractmethod
    def plan(self, tasks: Tasks, source: Library | None = None) -> list[Job]:
        """List the jobs that make the library; nothing is run. `source`: the library that some builders start from."""

    def check_base(self, base: BaseModel) -> None:
        """Refuse a base without the layers that the options name, before anything runs.

        Raises E-TARGET, E-DEVICE, and E-OPTION for layers that can't be tied.
        Says of layers on which PEFT opens no adapter that it is so (W-PEFT).
        """
        if targets := getattr(self, "targets", ()):
            require_trainable(base, targets)
            tied_groups({site.name: site for site in base.target_sites(targets)}, getattr(self, "tie", ()))
            warn_of_targets(base, targets)

    def n_numbers(self, job: Job, base: BaseModel) -> int | None:
        """Foresee how many numbers the experts of a job hold, at most; None if that isn't known before."""
        return None

    def packs(self, jobs: Sequence[Job], base: BaseModel) -> list[list[Job]]:
        """Group the jobs that run together; a function of the jobs alone. By default each runs alone."""
        return [[job] for job in jobs]

    @abstractmethod
    def run(self, pack: Sequence[Job], base: BaseModel, work: Path, report: Report | None) -> Made:
        """Do a pack's work; checkpoints go to `work`, and a second call with the same pack goes on from them."""


SETTINGS = ("dtype", "max_tokens")
"""What decides, beside a base's weights, what is learned on it: its precision and the longest text it is given."""


def settings_of(base: BaseModel) -> dict[str, object]:
    """Give a base's settings, as what is made on it notes them."""
    identity = base.identity
    return {name: identity[name] for name in SETTINGS}


def other_settings(
    job: Job, made_by: object, found: Mapping[str, object], facts: Mapping[str, object]
) -> tuple[str, str]:
    """Say how something was made and what to do, if nothing but settings makes it other than what a job makes.

    made_by: its key; found: the settings it was made with, as far as they are known; facts: the base's `identity`.
    """
    there = {name: found[name] for name in SETTINGS if name in found and found[name] != facts[name]}
    if not there or job.key({**facts, **there}) != made_by:
        return "", ""
    here = {name: facts[name] for name in there}
    flag = f"Give --dtype {there['dtype']}: the default depends on the machine. " if "dtype" in there else ""
    return f"with {_in_words(there)}, not {_in_words(here)}", flag


def _in_words(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value}" for name, value in values.items())


def plan_jobs(builder: Builder, tasks: Tasks, source: Library | None) -> list[Job]:
    """List the jobs of a build. Raises E-TASK if there is none, E-OPTION, and what the plan raises."""
    require("builder", builder, Builder, "a builder, as Private(rank=4)")
    require("tasks", tasks, Tasks, "tasks", "read_tasks(path) reads them.")
    jobs = builder.plan(tasks, source)
    if not jobs:
        given = f"{len(tasks)} tasks were given" if tasks else "no tasks were given"
        raise TaskError("E-TASK", f"{name_of(builder)}: there is nothing to build: {given}.", "Give some.")
    return jobs


def require_source(builder: Builder, source: Library | None) -> Library:
    """Refuse to start from nothing. Raises E-SOURCE without a library, E-EMPTY for one without experts."""
    name = name_of(builder)
    if source is None:
        raise BuildError("E-SOURCE", f"{name} starts from a library.", "Pass source=..., or --from LIBRARY.")
    if not source:
        raise LibraryError("E-EMPTY", f"{name}: library {str(source.path)!r} holds no experts.", "Add or build some.")
    return source


def own_tasks(tasks: Tasks, library: Library, expert: str) -> list[Task]:
    """Find an expert's own tasks among those given. Raises E-DATA if none of them has training examples."""
    names = library[expert].provenance.tasks
    found = [tasks[name] for name in names if name in tasks and tasks[name].train]
    if not found:
        message = f"expert {expert!r}: no training examples of its tasks {list(names)} were given."
        raise TaskError("E-DATA", message, "Give the library's own tasks.")
    return found
