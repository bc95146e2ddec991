"""The two files in which examples stay on disk, and the sequence that reads them.

rows.jsonl   one example a line, in the order in which they were read, as the JSON that `hash_json` hashes; where that
             would lose the order of keys that a chat template sees, with the keys in their own order
rows.index   one record for each example: offset and length of its line, and whether its keys are in their own order;
             those of a task's part stand together

Both are read by position, not mapped: what a map has touched counts as this process's memory, and a file that is cut
while it is mapped ends the process. Processes share what is read through the system's cache of files either way.
"""

import hashlib
import itertools
import json
import os
import struct
import threading
import weakref
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, overload

from lorary.errors import LibraryError
from lorary.hashing import hashed_fields
from lorary.tasks.example import Example, Message
from lorary.tasks.joined import ExampleView

ROWS, INDEX = "rows.jsonl", "rows.index"
_RECORD = struct.Struct("<qq?")
_BLOCK_ROWS = 4096
_BLOCK_BYTES = 1 << 20
_SORTED = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, sort_keys=True, default=hashed_fields)
_AS_IT_IS = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, default=hashed_fields)

Span = tuple[int, int]
"""First record and number of records."""


class RowsWriter:
    """Writes both files into a directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._file: BinaryIO = (directory / ROWS).open("xb", buffering=_BLOCK_BYTES)
        self._end = 0
        self._digest = hashlib.sha256()
        self._parts: dict[tuple[str, str], tuple[array[int], array[int], bytearray]] = {}

    def put(self, task: str, part: str, examples: Iterable[Example]) -> None:
        """Append examples of a task's part."""
        offsets, lengths, kept = self._parts.setdefault((task, part), (array("q"), array("q"), bytearray()))
        for example in examples:
            line, keeps_order = line_of(example)
            offsets.append(self._end)
            lengths.append(len(line))
            kept.append(keeps_order)
            line += b"\n"
            self._file.write(line)
            self._digest.update(line)
            self._end += len(line)

    @property
    def sha256(self) -> str:
        """Hash of the rows so far, in hex."""
        return self._digest.hexdigest()

    def finish(self) -> dict[str, dict[str, Span]]:
        """Write the index; say where each task's parts are in it."""
        found: dict[str, dict[str, Span]] = {}
        first = 0
        with (self._directory / INDEX).open("xb", buffering=_BLOCK_BYTES) as index:
            for (task, part), (offsets, lengths, kept) in self._parts.items():
                for record in zip(offsets, lengths, map(bool, kept), strict=True):
                    index.write(_RECORD.pack(*record))
                found.setdefault(task, {})[part] = (first, len(offsets))
                first += len(offsets)
        self.close()
        return found

    def close(self) -> None:
        """Close what is open, whatever happened."""
        self._file.close()


def line_of(example: Example) -> tuple[bytes, bool]:
    """Write an example as one line; say whether its keys are in their own order, not in that which is hashed."""
    text = _AS_IT_IS.encode(example)
    may_differ = example.extra or example.template or any(message.extra for message in example.messages)
    return text.encode(), bool(may_differ) and _SORTED.encode(example) != text


def example_of(line: bytes) -> Example:
    """Read an example from its line."""
    found = json.loads(line.decode())
    messages = tuple(Message(**turn) for turn in found.pop("messages"))
    lists = {name: tuple(value) for name, value in found.items() if isinstance(value, list)}
    return Example(**{**found, **lists, "messages": messages})


class Store:
    """Both files, open. again: how another process opens the same: a function and its arguments."""

    def __init__(self, rows: BinaryIO, index: BinaryIO, again: tuple[Callable[..., "Store"], tuple[Any, ...]]) -> None:
        self._rows, self._index, self.again = rows, index, again
        self._lock = threading.Lock()
        weakref.finalize(self, _close, rows, index)

    def examples(self, span: Span) -> "StoredExamples":
        """Give the examples of a span of records."""
        first, n = span
        return StoredExamples(self, range(first, first + n))

    def records(self, start: int, stop: int) -> list[tuple[int, int, bool]]:
        """Read records: offset and length of a line, and whether its keys are in their own order."""
        data = self._read(self._index, start * _RECORD.size, (stop - start) * _RECORD.size)
        return list(_RECORD.iter_unpack(data))

    def lines(self, records: Sequence[tuple[int, int, bool]]) -> Iterator[bytes]:
        """Read the lines of records, many with one access to the file where they stand in its order."""
        start = 0
        while start < len(records):
            begin, length, _ = records[start]
            end, stop = begin + length, start + 1
            for offset, length, _ in itertools.islice(records, stop, None):
                if offset < end or offset + length - begin > _BLOCK_BYTES:
                    break
                end, stop = offset + length, stop + 1
            data = self._read(self._rows, begin, end - begin)
            for offset, length, _ in records[start:stop]:
                yield data[offset - begin : offset - begin + length]
            start = stop

    def _read(self, file: BinaryIO, offset: int, size: int) -> bytes:
        if hasattr(os, "pread"):
            data = os.pread(file.fileno(), size, offset)
        else:
            with self._lock:
                file.seek(offset)
                data = file.read(size)
        if len(data) != size:
            raise damaged(file.name)
        return data

    def __reduce__(self) -> Any:
        return self.again


def damaged(where: str) -> LibraryError:
    """Make the error of a file that isn't what it was when it was opened."""
    hint = "Run it again: the data are read anew from their own files."
    return LibraryError("E-FILE", f"{where}: the file was changed while it was in use.", hint)


def _close(*files: BinaryIO) -> None:
    for file in files:
        file.close()


class StoredExamples(ExampleView):
    """Examples on disk, by the numbers of their records."""

    def __init__(self, store: Store, rows: range) -> None:
        self.store, self.rows = store, rows

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> "StoredExamples": ...
    def __getitem__(self, index: Any) -> Any:
        rows = self.rows[index]
        if isinstance(rows, range):
            return StoredExamples(self.store, rows)
        (line,) = self.store.lines(self.store.records(rows, rows + 1))
        return self._example(line)

    def __iter__(self) -> Iterator[Example]:
        for records in self._records():
            yield from map(self._example, self.store.lines(records))

    def json_blocks(self) -> Iterator[bytes]:
        """Give the canonical JSON of all examples, many at a time."""
        for records in self._records():
            yield b",".join(
                _SORTED.encode(json.loads(line)).encode() if keeps_order else line
                for line, (_, _, keeps_order) in zip(self.store.lines(records), records, strict=True)
            )

    def _records(self) -> Iterator[list[tuple[int, int, bool]]]:
        """Read the records, a block at a time, in the order of the sequence."""
        for start in range(0, len(self.rows), _BLOCK_ROWS):
            rows = self.rows[start : start + _BLOCK_ROWS]
            if rows.step == 1:
                yield self.store.records(rows.start, rows.stop)
            else:
                yield [record for row in rows for record in self.store.records(row, row + 1)]

    def _example(self, line: bytes) -> Example:
        try:
            return example_of(line)
        except (ValueError, LookupError, TypeError, AttributeError):
            raise damaged(ROWS) from None

    def __eq__(self, other: object) -> bool:
        if isinstance(other, StoredExamples) and other.store is self.store and other.rows == self.rows:
            return True
        return super().__eq__(other)

    __hash__ = ExampleView.__hash__
