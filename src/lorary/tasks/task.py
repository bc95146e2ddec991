"""Named sets of examples."""

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from lorary.errors import OptionError, TaskError, known_names
from lorary.hashing import hash_json
from lorary.tasks.example import Example, require_text


@dataclass(frozen=True)
class Origin:
    """What was seen when a task was read. It is no part of the task: equal tasks may come from anywhere.

    `shapes`: how many rows were of each shape, with the first's example. `unread`: fields that no example holds -> the
    number of rows that have them.
    """

    shapes: Mapping[str, tuple[int, Example]] = field(default_factory=dict)
    unread: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Task:
    """A named set of examples in three disjoint parts. Raises E-DATA for a name that isn't text.

    The parts are tuples, or stay on disk: then each example is read when it is asked for.
    """

    name: str
    train: Sequence[Example] = ()
    valid: Sequence[Example] = ()
    test: Sequence[Example] = ()
    origin: Origin = field(default=Origin(), compare=False, repr=False, kw_only=True)

    def __post_init__(self) -> None:
        """Look at the name."""
        require_text("task: 'name'", self.name)

    @property
    def hash(self) -> str:
        """sha256 of all examples in order: the same data has the same hash, wherever it was read from."""
        return hash_json([self.name, self.train, self.valid, self.test])

    def with_share(self, share: float, *, seed: int = 0) -> "Task":
        """Keep a share of the training examples, drawn at random, at least one; their order stays.

        Of one seed a smaller share is part of every larger one. Other tasks draw otherwise. Raises E-OPTION for a share
        that isn't above 0 and at most 1.
        """
        if not 0 < share <= 1:
            raise OptionError("E-OPTION", f"share={share}, expected above 0, at most 1.")
        n = len(self.train)
        drawn = random.Random(f"{seed} {self.name}").sample(range(n), n)[: max(1, round(share * n))]
        kept = tuple(self.train[place] for place in sorted(drawn))
        return Task(self.name, kept, self.valid, self.test, origin=self.origin)

    def first(self, *, train: int | None = None, valid: int | None = None, test: int | None = None) -> "Task":
        """Keep the first examples of each part; None keeps all."""
        return Task(self.name, self.train[:train], self.valid[:valid], self.test[:test], origin=self.origin)


class Tasks(Mapping[str, Task]):
    """Tasks by name, in order of their names."""

    def __init__(self, tasks: Iterable[Task]) -> None:
        """Collect tasks. Raises E-TASK for a name that comes twice."""
        self._tasks: dict[str, Task] = {}
        for task in sorted(tasks, key=lambda t: t.name):
            if task.name in self._tasks:
                raise TaskError("E-TASK", f"two tasks are called {task.name!r}.", "Names must differ.")
            self._tasks[task.name] = task

    def __getitem__(self, name: str) -> Task:
        if name not in self._tasks:
            raise TaskError("E-TASK", f"unknown task {name!r}.", known_names(name, list(self._tasks)))
        return self._tasks[name]

    def __contains__(self, name: object) -> bool:
        return name in self._tasks

    def __iter__(self) -> Iterator[str]:
        return iter(self._tasks)

    def __len__(self) -> int:
        return len(self._tasks)

    def __repr__(self) -> str:
        return f"<{len(self)} tasks: {', '.join(list(self)[:6])}{', …' if len(self) > 6 else ''}>"

    def with_share(self, share: float, *, seed: int = 0) -> "Tasks":
        """Keep a share of each task's training examples, as `Task.with_share`; the other parts stay whole."""
        return Tasks(task.with_share(share, seed=seed) for task in self.values())

    def only(self, names: Iterable[str] | str) -> "Tasks":
        """Keep the named tasks, each once; a text is one name. Raises E-TASK for a name that isn't here."""
        return Tasks(self[name] for name in dict.fromkeys([names] if isinstance(names, str) else names))
