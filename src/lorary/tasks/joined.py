"""Examples of several tasks as one sequence. Of what stays on disk nothing is read before it is asked for."""

import itertools
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, overload

from lorary.hashing import canonical_json
from lorary.tasks.example import Example


class ExampleView(Sequence[Example]):
    """Examples that are made when they are asked for; it equals a tuple of the same ones."""

    def json_blocks(self) -> Iterator[bytes]:
        """Give the canonical JSON of all examples, many at a time; those of a block are separated by commas."""
        yield from (canonical_json(example).encode() for example in self)

    def json_pieces(self) -> Iterator[bytes]:
        """Give the canonical JSON of the sequence, as `hash_json` takes it."""
        yield b"["
        for number, block in enumerate(self.json_blocks()):
            yield b"," if number else b""
            yield block
        yield b"]"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, tuple | ExampleView):
            return NotImplemented
        return len(self) == len(other) and all(mine == theirs for mine, theirs in zip(self, other, strict=True))

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __add__(self, other: Sequence[Example]) -> Sequence[Example]:
        return joined([self, other])

    def __radd__(self, other: Sequence[Example]) -> Sequence[Example]:
        return joined([other, self])

    def __repr__(self) -> str:
        return f"<{len(self):,} examples>"


class JoinedExamples(ExampleView):
    """Examples of several sequences, one after the other; rows: which, counted over all of them; None: all."""

    def __init__(self, parts: Sequence[Sequence[Example]], rows: Sequence[int] | None = None) -> None:
        self.parts = tuple(parts)
        self.rows = range(self._ends[-1] if self.parts else 0) if rows is None else rows
        self.is_whole = rows is None

    @cached_property
    def _ends(self) -> list[int]:
        return list(itertools.accumulate(map(len, self.parts)))

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> "JoinedExamples": ...
    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return JoinedExamples(self.parts, self.rows[index])
        row = self.rows[index]
        part = bisect_right(self._ends, row)
        return self.parts[part][row - self._ends[part]]  # from its end: a negative number

    def __iter__(self) -> Iterator[Example]:
        if self.is_whole:
            return itertools.chain.from_iterable(self.parts)
        return (self[place] for place in range(len(self)))

    def json_blocks(self) -> Iterator[bytes]:
        """Give the canonical JSON of all examples, many at a time."""
        if not self.is_whole:
            yield from super().json_blocks()
            return
        for part in self.parts:
            if isinstance(part, ExampleView):
                yield from part.json_blocks()
            else:
                yield from (canonical_json(example).encode() for example in part)


def joined(parts: Sequence[Sequence[Example]]) -> Sequence[Example]:
    """Join sequences: a tuple of tuples, else a view."""
    if all(isinstance(part, tuple) for part in parts):
        return tuple(example for part in parts for example in part)
    return JoinedExamples(parts)


def chosen(parts: Sequence[Sequence[Example]], rows: Sequence[int]) -> Sequence[Example]:
    """Choose examples by their numbers, counted over all parts: a tuple of tuples, else a view."""
    view = JoinedExamples(parts, rows)
    return tuple(view) if all(isinstance(part, tuple) for part in parts) else view
