"""Files and data sets -> Tasks."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field

from lorary.errors import OptionError, TaskError, known_names
from lorary.tasks.example import Example, short
from lorary.tasks.rows.fields import Row
from lorary.tasks.rows.files import Source, rows_of
from lorary.tasks.rows.row import Answers, Reading, part_of, read_row
from lorary.tasks.rows.unread import in_words
from lorary.tasks.task import Origin, Task, Tasks

ANSWERS = ("last", "all")
EVERYTHING = "*"


def read_tasks(
    source: Source, *, only: Iterable[str] | None = None, ignore: Iterable[str] = (), answers: Answers = "last"
) -> Tasks:
    """Read tasks from a directory, a glob, a file, hf://datasets/USER/NAME, a list of those, or a `datasets` object.

    Rows: see `lorary.tasks.rows.shapes`. A row's task is its `task` or `task_name`, else the file's name; its part is
    its `split`, else the end of the file's name ("race.train.jsonl"), else follows from a hash of the prompt
    (80/10/10), so that one prompt is never in two parts. No row is skipped: the first that can't be read raises E-DATA
    with file and line. So do fields with text that no example would hold (see `lorary.tasks.rows.unread`), with their
    counts. `only`: keep these tasks. `ignore`: fields to read as if they weren't there; "*" means all unknown ones.
    `answers`: "last" makes one example of a conversation; "all" makes one of each answer, in the same part as the last.
    Names of the Hub: see `lorary.tasks.rows.hub_rows`; they raise E-HUB.
    Parquet without pyarrow, and such names without datasets, raise E-EXTRA; an unknown name in `only` E-TASK.
    """
    ignored = _checked(ignore, answers)
    found: dict[str, _Drawer] = {}
    lost = _Counts()
    for row in rows_of(source):
        kept = {key: value for key, value in row.values.items() if key not in ignored}
        reading = read_row(Row(kept, row.place, row.task, row.part), answers)
        drawer = found.setdefault(reading.examples[-1].task, _Drawer())
        drawer.put(reading, part_of(row) or split_by_hash(reading.examples[-1]))
        left = [key for key in ignored if row.values.get(key) is not None]
        drawer.unread.add((*left, *reading.unread), row.place)
        if EVERYTHING not in ignored:
            lost.add((n for n, holds_text in reading.unread.items() if holds_text and n not in ignored), row.place)
    lost.require_none()
    tasks = Tasks(drawer.as_task(name) for name, drawer in found.items())
    return tasks if only is None else tasks.only(only)


def split_by_hash(example: Example) -> str:
    """Say which part an example goes to, by what it asks alone: 80 % train, 10 % valid, 10 % test."""
    share = int.from_bytes(hashlib.sha256(example.question.encode()).digest()[:4]) / 2**32
    return "train" if share < 0.8 else "valid" if share < 0.9 else "test"


def _checked(ignore: Iterable[str], answers: str) -> tuple[str, ...]:
    if answers not in ANSWERS:
        raise OptionError("E-OPTION", f"answers={short(answers)}.", known_names(answers, ANSWERS))
    ignored = (ignore,) if isinstance(ignore, str) else tuple(ignore)
    for name in ignored:
        if not isinstance(name, str):
            raise OptionError("E-OPTION", f"ignore holds {short(name)}, expected names of fields.")
    return ignored


class _Counts:
    """Fields by name, with the number of rows that have them and the place of the first."""

    def __init__(self) -> None:
        self.n: dict[str, int] = {}
        self.place = ""

    def add(self, names: Iterable[str], place: str) -> None:
        for name in names:
            self.place = self.place or place
            self.n[name] = self.n.get(name, 0) + 1

    def require_none(self) -> None:
        """Refuse text that would be lost. Raises E-DATA."""
        if not self.n:
            return
        names = list(self.n)
        python, line = f"ignore={names}", " ".join(f"--ignore {name}" for name in names)
        what = f"{self.place}: text in fields that are not read: {in_words(self.n)}."
        raise TaskError("E-DATA", what, f"Put it into the prompt or the turns, or drop it: {python}, {line}.")


@dataclass
class _Drawer:
    """What was read of one task so far."""

    parts: dict[str, list[Example]] = field(default_factory=dict)
    shapes: dict[str, tuple[int, Example]] = field(default_factory=dict)
    unread: _Counts = field(default_factory=_Counts)

    def put(self, reading: Reading, part: str) -> None:
        self.parts.setdefault(part, []).extend(reading.examples)
        n, first = self.shapes.get(reading.shape, (0, reading.examples[-1]))
        self.shapes[reading.shape] = (n + 1, first)

    def as_task(self, name: str) -> Task:
        parts = {part: tuple(examples) for part, examples in self.parts.items()}
        return Task(name, **parts, origin=Origin(self.shapes, self.unread.n))
