"""Clusters: tasks grouped for joint training, and their file."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lorary.disk.strict_json import parse_object
from lorary.disk.writing import ELSEWHERE, check_writable, disk_errors, write_whole
from lorary.errors import BuildError, LibraryError, quote
from lorary.hashing import hash_json
from lorary.tasks.example import Example
from lorary.tasks.joined import chosen
from lorary.tasks.task import Task


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

        def own(examples: Sequence[Example]) -> Sequence[Example]:
            keys = ([self.dealt, task.name, e.question, e.answer] for e in examples)
            owners = (int(hash_json(key)[:16], 16) % len(self.groups) for key in keys)
            return chosen([examples], [row for row, owner in enumerate(owners) if owner == place])

        return Task(task.name, own(task.train), own(task.valid), own(task.test), origin=task.origin)

    def write(self, path: Path) -> None:
        """Write groups.json, over earlier groups by atomic replace. Raises E-EXISTS for all else, E-DISK, E-PERM."""
        content = {
            "clusters": {name: list(tasks) for name, tasks in self.groups.items()},
            "method": dict(self.method),
            "source": self.source,
            "names": list(self.names),
            "similarity": [[round(value, 7) for value in row] for row in self.similarity],
            "curve": [dict(row) for row in self.curve],
            "dealt": self.dealt,
        }
        with disk_errors(repr(str(path)), ELSEWHERE):
            _check_groups_or_nothing(path)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, (json.dumps(content, indent=1) + "\n").encode())

    @classmethod
    def from_option(cls, text: str) -> "Clusters":
        """Read a groups.json, as `per_cluster:clusters=groups.json` names it."""
        return read_clusters(Path(text))


def check_groups_place(path: Path) -> None:
    """Refuse a path where no groups can be written, before long work is done. Raises E-EXISTS, E-PATH, E-PERM."""
    _check_groups_or_nothing(path)
    check_writable(path)


def _check_groups_or_nothing(path: Path) -> None:
    if (path.exists() or path.is_symlink()) and not _holds_groups(path):
        what = f"{str(path)!r} exists and isn't a groups file."
        raise LibraryError("E-EXISTS", what, "Choose another path, or remove it.")


def read_clusters(path: Path) -> Clusters:
    """Read groups.json. Raises E-CLUSTERS for a file that isn't one, or that says anything twice."""
    try:
        content = parse_object(path.read_bytes(), str(path), "E-CLUSTERS")
    except OSError as error:
        raise BuildError(
            "E-CLUSTERS", f"{path} can't be read: {error.strerror}.", "`lorary cluster` writes it."
        ) from None
    except BuildError as error:
        raise error.reworded(error.message, "`lorary cluster` writes one.") from None
    for name, (default, accepts, expected) in _FIELDS.items():
        value = content.setdefault(name, default)
        if not accepts(value):
            wrong = f"{name} is {quote(value)}, expected {expected}" if name != "clusters" else f"expected {expected}"
            raise BuildError("E-CLUSTERS", f"{path} is no groups file: {wrong}.", "`lorary cluster` writes one.")
    names, similarity = content["names"], content["similarity"]
    if names != sorted(set(names)) or [len(row) for row in similarity] != [len(names)] * len(names):
        message = f"{path}: names and similarity are no map of experts: expected N names, sorted, and N rows of N."
        raise BuildError("E-CLUSTERS", message, "Cluster the library again.")
    groups = {name: tuple(tasks) for name, tasks in content["clusters"].items()}
    return Clusters(
        groups, content["method"], content["source"], tuple(names), similarity, content["curve"], content["dealt"]
    )


def _holds_groups(path: Path) -> bool:
    try:
        return path.is_file() and read_clusters(path) is not None
    except BuildError:
        return False


def _are_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def _are_groups(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_are_names, value.values()))


def _is_method(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("name", ""), str)


def _are_numbers(values: Iterable[Any]) -> bool:
    return all(type(value) in (int, float) for value in values)


def _are_rows(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(row, list) and _are_numbers(row) for row in value)


def _is_curve(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(row, dict) and _are_numbers(row.values()) for row in value)


def _is_seed(value: Any) -> bool:
    return value is None or type(value) is int


_FIELDS: dict[str, tuple[Any, Callable[[Any], bool], str]] = {
    "clusters": (None, _are_groups, '{"clusters": {"c0": ["task", ...]}}'),
    "method": ({}, _is_method, "an object with the method's name"),
    "source": ("", lambda value: isinstance(value, str), "a string"),
    "names": ([], _are_names, "a list of names"),
    "similarity": ([], _are_rows, "a list of rows of numbers"),
    "curve": ([], _is_curve, "a list of objects of numbers"),
    "dealt": (None, _is_seed, "a whole number or null"),
}
"""What a groups file may hold: the default, what is accepted, and how that is said."""


def name_groups(labels: Sequence[int], members: Sequence[Sequence[str]]) -> dict[str, tuple[str, ...]]:
    """Name clusters c0, c1, ... in order of their first member; each lists its task names, sorted.

    labels: one per expert; members: the tasks of each expert.
    """
    found: dict[int, list[str]] = {}
    for label, tasks in zip(labels, members, strict=True):
        found.setdefault(int(label), []).extend(tasks)
    return {f"c{i}": tuple(sorted(set(tasks))) for i, tasks in enumerate(found.values())}
