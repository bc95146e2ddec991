"""Builder, Job, Clusterer, Clusters: what may be built, and from what."""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

from torch import Tensor

from lorary.adapters.base import Experts
from lorary.errors import BuildError, OptionError
from lorary.hashing import hash_json
from lorary.library.library import Library
from lorary.options import as_dict
from lorary.tasks.example import Example
from lorary.tasks.task import Task, Tasks


@dataclass(frozen=True)
class JobStep:
    """Where a job is: for progress bars. `valid_loss` is set when it was just measured, nats per token."""

    job: str
    step: int
    n_steps: int
    loss: float | None = None
    valid_loss: float | None = None


Report = Callable[[JobStep], None]


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

    def key(self, base_fingerprint: Mapping[str, Any]) -> str:
        """Hash of all that decides the result: options, data, seed, base."""

    def describe(self) -> dict[str, Any]:
        """What --dry-run prints: name, tasks, steps, examples."""


Write = Callable[[Path], dict[str, Any]]
"""Writes one expert's files to a staging directory; gives the provenance's fields."""


@dataclass(frozen=True)
class Made:
    """What a pack made: a writer per expert, and per learned artefact (kind -> writer of its safetensors file).

    An artefact is kept as learned/<kind>-<key of the job>, written before the experts that only make sense with it.
    """

    experts: Mapping[str, Write]
    learned: Mapping[str, Callable[[Path], None]] = field(default_factory=dict)


@dataclass(frozen=True)
class Builder(ABC):
    """Options of one way to make a library."""

    @abstractmethod
    def plan(self, tasks: Tasks, source: Library | None = None) -> list[Job]:
        """List the jobs that make the library; nothing is run. `source`: the library that some builders start from."""

    @abstractmethod
    def packs(self, jobs: Sequence[Job], base: Any) -> list[list[Job]]:
        """Group the jobs that run together; a function of the jobs alone."""

    @abstractmethod
    def run(self, pack: Sequence[Job], base: Any, work: Path, report: Report | None) -> Made:
        """Do a pack's work; checkpoints go to `work`, and a second call with the same pack goes on from them."""


@dataclass(frozen=True, eq=False)
class Clusters(Mapping[str, tuple[str, ...]]):
    """Tasks grouped for joint training: cluster name -> task names.

    `method` and `source` say how and of which library it was made; `names` and `similarity` (N, N) are the map of
    the experts that it was made from, if the method has one; `curve` says what other numbers of clusters were tried:
    rows of k, silhouette, stability. With `dealt`, a seed, every cluster lists the same tasks and has a share of the
    examples of each.
    """

    groups: Mapping[str, tuple[str, ...]]
    method: Mapping[str, Any] = field(default_factory=dict)
    source: str = ""
    names: tuple[str, ...] = ()
    similarity: Sequence[Sequence[float]] = ()
    curve: Sequence[Mapping[str, float]] = ()
    dealt: int | None = None

    def __getitem__(self, name: str) -> tuple[str, ...]:
        return self.groups[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.groups)

    def __len__(self) -> int:
        return len(self.groups)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Clusters) and (dict(self.groups), self.dealt) == (dict(other.groups), other.dealt)

    def __hash__(self) -> int:
        return hash((tuple(self.groups.items()), self.dealt))

    def part(self, name: str, task: Task) -> Task:
        """Give what a cluster has of one of its tasks: all of it, or its share of the examples if they are dealt out.

        Who gets an example depends on its text, its task and the seed: not on the others, nor on their order.
        """
        if self.dealt is None:
            return task
        place = list(self.groups).index(name)

        def own(examples: Sequence[Example]) -> tuple[Example, ...]:
            keys = ([self.dealt, task.name, e.whole_prompt, e.completion] for e in examples)
            owners = (int(hash_json(key)[:16], 16) % len(self.groups) for key in keys)
            return tuple(e for e, owner in zip(examples, owners, strict=True) if owner == place)

        return Task(task.name, own(task.train), own(task.valid), own(task.test))

    def write(self, path: Path) -> None:
        """Write groups.json by atomic replace."""
        content = {
            "clusters": {name: list(tasks) for name, tasks in self.groups.items()},
            "method": dict(self.method),
            "source": self.source,
            "names": list(self.names),
            "similarity": [[round(value, 7) for value in row] for row in self.similarity],
            "curve": [dict(row) for row in self.curve],
            "dealt": self.dealt,
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        staged = path.with_name(path.name + ".tmp")
        staged.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        staged.replace(path)

    @classmethod
    def from_option(cls, text: str) -> "Clusters":
        """Read a groups.json, as `per_cluster:clusters=groups.json` names it."""
        return read_clusters(Path(text))


def read_clusters(path: Path) -> Clusters:
    """Read groups.json. Raises E-CLUSTERS for a file that isn't one."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        groups = {str(name): _task_names(tasks) for name, tasks in content["clusters"].items()}
        dealt = content.get("dealt")
        return Clusters(
            groups, content.get("method", {}), content.get("source", ""), tuple(content.get("names", ())),
            content.get("similarity", ()), content.get("curve", ()), None if dealt is None else int(dealt),
        )  # fmt: skip
    except OSError as error:
        raise BuildError(
            "E-CLUSTERS", f"{path} can't be read: {error.strerror}.", "`lorary cluster` writes it."
        ) from None
    except (ValueError, KeyError, AttributeError, TypeError):
        raise BuildError(
            "E-CLUSTERS", f'{path} is no groups file: expected {{"clusters": {{"c0": ["task", ...]}}}}.',
            "`lorary cluster` writes one.",
        ) from None  # fmt: skip


def _task_names(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise TypeError("a string would be read as a list of letters")
    return tuple(map(str, value))


def name_groups(labels: Sequence[int], members: Sequence[Sequence[str]]) -> dict[str, tuple[str, ...]]:
    """Name clusters c0, c1, ... in order of their first member; each lists its task names, sorted.

    labels: one per expert; members: the tasks of each expert.
    """
    found: dict[int, list[str]] = {}
    for label, tasks in zip(labels, members, strict=True):
        found.setdefault(int(label), []).extend(tasks)
    return {f"c{i}": tuple(sorted(set(tasks))) for i, tasks in enumerate(found.values())}


class TaskProbe(Protocol):
    """Facts about the tasks' data; only clusterers whose `needs` has "examples" may ask."""

    def mean_state(self, task: str, *, layer: int, n_examples: int) -> Tensor:
        """Run the base on training examples: the mean over their tokens, then over them, of a layer's states, (d,)."""


@dataclass(frozen=True)
class Clusterer(ABC):
    """Options of one way to group the tasks of a library. `needs`: {"examples"} if it asks the probe."""

    needs: ClassVar[frozenset[str]] = frozenset()

    @abstractmethod
    def cluster(
        self, experts: Experts, tasks_of: Mapping[str, Sequence[str]], probe: TaskProbe | None = None
    ) -> Clusters:
        """Group the tasks of experts; `tasks_of` names each expert's tasks. A partition, whatever the order.

        `experts` may be read from disk each time they are asked for: ask once a site, and keep nothing large.
        """

    def similarities(self, expert: str, experts: Experts) -> list[float]:
        """Compare one expert with all, in order of their names: its row of the map, which `join` adds to it.

        Raises E-CLUSTERS for methods that don't compare experts.
        """
        message = f"{type(self).__name__} can't compare one more expert with the others."
        raise BuildError("E-CLUSTERS", message, "Cluster the whole library again.")


def check_positive(options: Any, *names: str) -> None:
    """Refuse options that must be above zero. Raises E-OPTION."""
    for name in names:
        value = getattr(options, name)
        if value is not None and not value > 0:
            raise OptionError("E-OPTION", f"{type(options).__name__}: {name}={value}, expected more than 0.")


def require_source(builder: Builder, source: Library | None) -> Library:
    """Refuse to start from nothing. Raises E-SOURCE without a library, E-EMPTY for one without experts."""
    name = as_dict(builder)["name"]
    if source is None:
        raise BuildError("E-SOURCE", f"{name} starts from a library.", "Pass source=..., or --from LIBRARY.")
    if not source:
        raise BuildError("E-EMPTY", f"{name}: library {str(source.path)!r} holds no experts.", "Add or build some.")
    return source
