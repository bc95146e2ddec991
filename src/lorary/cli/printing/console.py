"""stdout is data, stderr is progress."""

import codecs
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from lorary.cli.printing.pace import Pace

_WIDE = 240  # columns, where no screen says how many there are
_SHOWN = 4  # of many items, so that a row stays a line
_WIDE_SCREEN = 100  # columns
_BAR, _SHORT_BAR = 30, 12


class Bar:
    """How far some work is, with a note and the time that is left: a Progress, whose `note` is a Tell.

    show: gets done, total, both in words, and the note. per: what the words count in, as thousands.
    """

    def __init__(self, show: Callable[[int, int, str, str], None], per: int = 1) -> None:
        self._show, self._per, self._pace = show, per, Pace()
        self._done, self._total, self._before, self._note = 0, 0, 0, ""

    def __call__(self, done: int, total: int, note: str | None = None, before: int = 0) -> None:
        """Hear of done and total, 0 while that isn't known, and of how much that took no time: it was done before."""
        self._done, self._total, self._before = done, total, before
        self.note(self._note if note is None else note)

    def note(self, text: str) -> None:
        """Hear a word on what is being done."""
        self._note = text
        if self._total:
            self._pace.record(self._done - self._before)
        self._show(self._done, self._total, self._numbers(), text)

    def _numbers(self) -> str:
        if not self._total:
            return ""
        left = self._pace.left(self._total - self._done)
        whole = f"{round(self._done / self._per)}/{max(1, round(self._total / self._per))}"
        return f"{whole}, {left}" if left else whole


def say(line: str) -> None:
    """Write a line for people to stderr."""
    print(printable(line), file=sys.stderr, flush=True)


def print_json(value: object) -> None:
    """Write data for machines to stdout. What isn't printable there is escaped as JSON does it."""
    encoding = getattr(sys.stdout, "encoding", None) or "ascii"
    is_utf_8 = codecs.lookup(encoding).name == "utf-8"
    print(_escaped(json.dumps(value, ensure_ascii=not is_utf_8, indent=2, default=str)))


def _escaped(text: str) -> str:
    """Escape as JSON does what a terminal would obey, or show in another order: controls, marks of direction."""
    return "".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text)


def print_table(rows: Sequence[Sequence[object]]) -> None:
    """Write rows to stdout, columns aligned, one row a line."""
    if not rows:
        return
    texts = [[printable(str(cell)).replace("\n", " ") for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    for row in texts:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def in_words(value: object) -> str:
    """Write a fact for people: nothing for None, `key=value` for mappings, only the first few of many items."""
    if isinstance(value, dict):
        return ", ".join(f"{key}={_inner(inner)}" for key, inner in value.items())
    if isinstance(value, (list, tuple)):
        shown = ", ".join(map(str, value[:_SHOWN]))
        return f"{shown} and {len(value) - _SHOWN} more" if len(value) > _SHOWN else shown
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def _inner(value: Any) -> str:
    """Write what stands in a mapping: of a mapping in it the first few items, of one that holds more the number."""
    if not isinstance(value, dict):
        return in_words(value)
    if any(isinstance(inner, dict) for inner in value.values()):
        return f"({len(value)} of them, with --json)"
    return f"({in_words([f'{key}={in_words(inner)}' for key, inner in value.items()])})"


def print_rich(renderable: object, *, to_stderr: bool = False) -> None:
    """Write what rich renders; without colours where it isn't a terminal."""
    from rich.console import Console

    console = Console(stderr=to_stderr)
    if not console.is_terminal:
        console.width = _WIDE
    with console.capture() as text:  # not written directly: a bar may be on the screen, which redirects sys.stderr
        console.print(renderable)
    print(text.get(), end="", file=sys.stderr if to_stderr else sys.stdout)


def printable(text: str) -> str:
    """Escape what could control a terminal: names, data and models are untrusted."""
    return "".join(c if c.isprintable() or c in "\n\t" else f"\\x{ord(c):02x}" for c in text)


@contextmanager
def progress(title: str, per: int = 1) -> Iterator[Bar]:
    """Show how far some work is, on stderr: a bar on a terminal, else a line at every tenth."""
    if not sys.stderr.isatty():
        yield lines(title, per)
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn
    from rich.table import Column

    console = Console(stderr=True)
    # A note is cut where the line ends, and the bar is the first to give way: titles and numbers stay whole.
    room = Column(no_wrap=True, overflow="ellipsis", ratio=1)
    columns = (
        TextColumn("{task.description}", table_column=Column(no_wrap=True)),
        BarColumn(bar_width=_BAR if console.width >= _WIDE_SCREEN else _SHORT_BAR),
        TextColumn("{task.fields[numbers]}", table_column=Column(no_wrap=True)),
        TextColumn("{task.fields[note]}", table_column=room),
    )
    with Progress(*columns, console=console, expand=True) as bar:
        task = bar.add_task(title, total=None, note="", numbers="")

        def show(done: int, total: int, numbers: str, note: str) -> None:
            numbers += ":" if numbers and note else ""
            bar.update(task, completed=done, total=total or None, note=printable(note), numbers=numbers)

        yield Bar(show, per)


def lines(title: str, per: int = 1) -> Bar:
    """Show how far some work is by a line on stderr at every tenth; it disturbs no bar."""
    last = -1

    def show(done: int, total: int, numbers: str, note: str) -> None:
        nonlocal last
        tenth = 10 * done // total if total else -1
        if tenth > last:
            last = tenth
            say(f"{title}: {numbers}{f' ({note})' if note else ''}")

    return Bar(show, per)
