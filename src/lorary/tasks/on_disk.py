"""Large files -> tasks whose examples stay on disk; a second reading of the same files opens what the first one wrote.

Files are large from `LARGE_BYTES` on, compressed ones counted `UNFOLDS` times. Smaller ones are read into memory and
nothing is written for them; so is everything where nothing can be written (W-CACHE), and with LORARY_TASK_CACHE=off.
"""

import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

from lorary import __version__
from lorary.disk.reading import signature
from lorary.disk.writing import megabytes
from lorary.errors import LibraryError, TaskError
from lorary.hashing import hash_file, short_key
from lorary.tasks.gather import gather
from lorary.tasks.rows.fields import Row
from lorary.tasks.rows.files import SUFFIXES, rows_at
from lorary.tasks.rows.names import name_and_part
from lorary.tasks.rows.row import Answers
from lorary.tasks.stored.entry import Entry, key_of, make_entry, note_key, open_entry
from lorary.tasks.stored.rows_file import RowsWriter, Store, example_of, line_of
from lorary.tasks.task import Origin, Task, Tasks
from lorary.tasks.telling import listener

LARGE_BYTES = 64 << 20
UNFOLDS = 4
"""About how many times its size a compressed text takes."""
_COMPRESSED = (".gz", ".parquet")
_VARIABLE = "LORARY_TASK_CACHE"
_CODE = "W-CACHE"
_OF_DATA = ("E-LIMIT",)  # whoever reads the files into memory would meet it as well
_TELL_EVERY = 2000  # rows


@dataclass(frozen=True)
class LargeFiles:
    """Files, absolute, and how they are read: what another process needs to open the same tasks."""

    paths: tuple[Path, ...]
    ignored: tuple[str, ...]
    answers: Answers

    @property
    def size_bytes(self) -> int:
        """About how much text they hold. Raises OSError."""
        return sum(path.stat().st_size * (UNFOLDS if path.name.endswith(_COMPRESSED) else 1) for path in self.paths)

    def signatures(self) -> list[tuple[int, ...]]:
        """Tell them from files that come in their places. Raises OSError."""
        return [signature(path.resolve()) for path in self.paths]

    def content_key(self) -> str:
        """Name what is read from them by their bytes. Raises OSError."""
        return self.key([hash_file(path) for path in self.paths])

    def key(self, told: Sequence[object]) -> str:
        """Name what is read from them; told: what is known of the content of each."""
        names = [name_and_part(path, SUFFIXES) for path in self.paths]
        return short_key("tasks", rules(), names, list(told), sorted(self.ignored), self.answers)


def tasks_on_disk(places: Sequence[Path | str], ignored: tuple[str, ...], answers: Answers) -> Tasks | None:
    """Open or make the entry of large files; None for what is read into memory. Raises E-DATA, as `read_tasks`."""
    paths = tuple(place.absolute() for place in places if isinstance(place, Path))
    files = LargeFiles(paths, ignored, answers)
    try:
        if len(paths) < len(places) or files.size_bytes < LARGE_BYTES or os.environ.get(_VARIABLE) == "off":
            return None
        return _opened(_entry(files))
    except LibraryError as error:
        if error.code in _OF_DATA:
            raise
        _warn(error.message, files)
    except OSError as error:
        if error.filename in {name for path in paths for name in (str(path), str(path.resolve()))}:
            return None  # it will be said when it is read
        _warn(f"{error.strerror or error}.", files)
    except RuntimeError as error:  # nobody's home
        _warn(f"{str(error).rstrip('.')}.", files)
    return None


def _warn(why: str, files: LargeFiles) -> None:
    size = megabytes(files.size_bytes)
    what = f"warning[{_CODE}] tasks can't be kept on disk, so every process holds all {size} of text in memory: {why}"
    hint = f" Let LORARY_CACHE name a place with room for them, or say {_VARIABLE}=off."
    warnings.warn(what + hint, RuntimeWarning, stacklevel=4)


def _entry(files: LargeFiles) -> Entry:
    before = files.signatures()
    request = files.key(before)
    key = key_of(request)
    if key and (found := open_entry(key, (reopen, (files, key)))):
        return found
    key = files.content_key()
    again = (reopen, (files, key))

    def fill(writer: RowsWriter) -> Mapping[str, object]:
        seen = gather(_told(files), files.ignored, files.answers, writer.put)
        if files.signatures() != before and files.content_key() != key:
            raise LibraryError("E-FILE", "a file was changed while it was read.")
        return {name: _origin_fields(origin) for name, origin in seen.items()}

    found = open_entry(key, again) or make_entry(key, files.size_bytes, fill, again)
    if found is None:
        raise LibraryError("E-FILE", "what was written is gone, or can't be read.")
    if files.signatures() == before:
        note_key(request, key)
    return found


def reopen(files: LargeFiles, key: str) -> Store:
    """Open what another process opened, or make it anew of the same files. Raises E-DATA if they changed."""
    if found := open_entry(key, (reopen, (files, key))):
        return found.store
    try:
        found = _entry(files)
        if found.store.again == (reopen, (files, key)):
            return found.store
        why = "the files changed"
    except (LibraryError, OSError) as error:
        if getattr(error, "code", "") in _OF_DATA:
            raise
        why = str(error).rstrip(".")
    what = f"tasks of {files.paths[0]} that another process opened can't be opened here: {why}."
    raise TaskError("E-DATA", what, "Run it again; processes of other machines need the same files.")


def _opened(entry: Entry) -> Tasks:
    tasks = []
    for name, facts in entry.tasks.items():
        parts = {part: entry.store.examples((first, n)) for part, (first, n) in facts["parts"].items()}
        shapes = {shape: (n, example_of(line.encode())) for shape, (n, line) in facts["shapes"].items()}
        tasks.append(Task(name, **parts, origin=Origin(shapes, facts["unread"])))
    return Tasks(tasks)


def _origin_fields(origin: Origin) -> dict[str, Any]:
    lines = {shape: [n, line_of(example)[0].decode()] for shape, (n, example) in origin.shapes.items()}
    return {"shapes": lines, "unread": dict(origin.unread)}


def _told(files: LargeFiles) -> Iterator[Row]:
    """Go through the rows of files, and tell how far that is."""
    tell = listener()
    if tell is None:
        yield from rows_at(files.paths)
        return
    begun: list[BinaryIO] = []
    sizes = [path.stat().st_size for path in files.paths]
    for number, row in enumerate(rows_at(files.paths, begun.append)):
        if number % _TELL_EVERY == 0 and begun:
            tell(sum(sizes[: len(begun) - 1]) + begun[-1].tell(), sum(sizes))
        yield row
    tell(sum(sizes), sum(sizes))


@cache
def rules() -> str:
    """Name the code that makes examples of files: what other code read is read anew."""
    here = Path(__file__).parent
    code = [
        here / "example.py",
        here / "gather.py",
        *sorted((here / "rows").glob("*.py")),
        here / "stored/rows_file.py",
    ]
    return short_key(__version__, [hash_file(path) for path in code if path.is_file()])
