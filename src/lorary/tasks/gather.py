"""Rows -> the examples of tasks, wherever they are kept."""

import hashlib
import shlex
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from lorary.errors import TaskError
from lorary.tasks.example import Example
from lorary.tasks.rows.fields import Row
from lorary.tasks.rows.row import Answers, Reading, part_of, read_row
from lorary.tasks.rows.unread import in_words
from lorary.tasks.task import Origin

EVERYTHING = "*"

Keep = Callable[[str, str, tuple[Example, ...]], None]
"""Takes a task's name, a part's name, and examples of it."""


def gather(rows: Iterable[Row], ignored: tuple[str, ...], answers: Answers, keep: Keep) -> dict[str, Origin]:
    """Read rows and hand their examples on; say what was seen of each task. Raises E-DATA, as `read_tasks`."""
    found: dict[str, _Seen] = {}
    lost = _Counts()
    for row in rows:
        kept = {key: value for key, value in row.values.items() if key not in ignored}
        reading = read_row(Row(kept, row.place, row.task, row.part), answers)
        last = reading.examples[-1]
        keep(last.task, part_of(row) or split_by_hash(last), reading.examples)
        seen = found.setdefault(last.task, _Seen())
        seen.note_shape(reading)
        left = [key for key in ignored if row.values.get(key) is not None]
        seen.unread.add((*left, *reading.unread), row.place)
        if EVERYTHING not in ignored:
            lost.add((n for n, holds_text in reading.unread.items() if holds_text and n not in ignored), row.place)
    lost.require_none()
    return {name: Origin(seen.shapes, seen.unread.n) for name, seen in found.items()}


def split_by_hash(example: Example) -> str:
    """Say which part an example goes to, by what it asks alone: 80 % train, 10 % valid, 10 % test."""
    share = int.from_bytes(hashlib.sha256(example.question.encode()).digest()[:4]) / 2**32
    return "train" if share < 0.8 else "valid" if share < 0.9 else "test"


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
        python, line = f"ignore={names}", " ".join(f"--ignore {shlex.quote(name)}" for name in names)
        what = f"{self.place}: text in fields that are not read: {in_words(self.n)}."
        raise TaskError("E-DATA", what, f"Put it into the prompt or the turns, or drop it: {python}, {line}.")


@dataclass
class _Seen:
    """What was seen of one task so far."""

    shapes: dict[str, tuple[int, Example]] = field(default_factory=dict)
    unread: _Counts = field(default_factory=_Counts)

    def note_shape(self, reading: Reading) -> None:
        n, first = self.shapes.get(reading.shape, (0, reading.examples[-1]))
        self.shapes[reading.shape] = (n + 1, first)
