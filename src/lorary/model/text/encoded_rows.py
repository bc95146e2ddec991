"""Many encoded examples: their ids as plain numbers, in memory while they are few, else in a file without a name.

A Python tuple of ids takes nine times the memory: that of a large task's examples would not fit.
"""

import tempfile
import weakref
from array import array
from collections.abc import Iterable, Sequence
from typing import Any, overload

from lorary.disk.writing import disk_errors
from lorary.model.text.reader import Reader
from lorary.model.text.tokens import Encoded, warn_of_cuts
from lorary.tasks.example import Example

MOST_IN_MEMORY = 32 << 20
"""Bytes of ids; more go to a file where the system keeps temporary ones (TMPDIR)."""
_AT_ONCE = 256  # examples, so that few are Python objects at a time
_ID = "i"
_ELSEWHERE = "Let TMPDIR name a place that you can write to."


class EncodedRows(Sequence[Encoded]):
    """Encoded examples in order; each is made anew when it is asked for. Raises E-DISK if the ids find no place."""

    def __init__(self, rows: Iterable[Encoded]) -> None:
        self.lengths = array("l")
        self.cuts = array("l")
        self._n_prompt = array("l")
        self._starts = array("q")
        # Written and read in one thread, as a pack's rows are.
        self._file: Any = tempfile.SpooledTemporaryFile(max_size=MOST_IN_MEMORY)  # noqa: SIM115 - closed below
        self._close = weakref.finalize(self, self._file.close)
        with disk_errors(f"keeping encoded examples in {tempfile.gettempdir()!r}", _ELSEWHERE):
            for row in rows:
                self._put(row)

    def _put(self, row: Encoded) -> None:
        self._starts.append(self._file.tell())
        self._n_prompt.append(len(row.prompt))
        self.lengths.append(len(row))
        self.cuts.append(row.n_cut)
        self._file.write(array(_ID, (*row.prompt, *row.completion)).tobytes())

    def __len__(self) -> int:
        return len(self._starts)

    @overload
    def __getitem__(self, index: int) -> Encoded: ...
    @overload
    def __getitem__(self, index: slice) -> list[Encoded]: ...
    def __getitem__(self, index: int | slice) -> Encoded | list[Encoded]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        self._file.seek(self._starts[index])
        ids = array(_ID)
        ids.frombytes(self._file.read(self.lengths[index] * ids.itemsize))
        n = self._n_prompt[index]
        return Encoded(tuple(ids[:n]), tuple(ids[n:]), self.cuts[index])


def encode_rows(base: Reader, examples: Sequence[Example]) -> EncodedRows:
    """Encode many examples as `base.encode` does, a few at a time. Raises E-LENGTH, E-CHAT, E-DISK."""
    blocks = (examples[start : start + _AT_ONCE] for start in range(0, len(examples), _AT_ONCE))
    rows = EncodedRows(row for block in blocks for row in base.encode(block, quiet=True))
    warn_of_cuts(rows.cuts, base.max_tokens)
    return rows


def lengths_of(rows: Sequence[Encoded]) -> Sequence[int]:
    """List how long encoded examples are."""
    return rows.lengths if isinstance(rows, EncodedRows) else [len(row) for row in rows]


def length_at(rows: Sequence[Encoded], place: int) -> int:
    """Tell how long one of them is."""
    return rows.lengths[place] if isinstance(rows, EncodedRows) else len(rows[place])
