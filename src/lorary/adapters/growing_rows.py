"""Rows that grow at the end without being copied, while whoever holds the earlier rows keeps them as they were."""

import functools
import threading
from collections.abc import Sequence

import torch
from torch import Tensor

SPARE = 0.25
"""Of the rows held: what is set aside for those to come. A system that gives out memory when it is first written to
gives nothing for it before."""


class Room:
    """Memory with rows to spare. Several may hold its first rows; only the newest may add to them in place."""

    def __init__(self, buffer: Tensor, n_used: int) -> None:
        """Take memory (R + spare, d) whose first R = n_used rows are written."""
        self._buffer = buffer
        self._n_used = n_used
        self._lock = threading.Lock()

    def extend(self, rows: Tensor, new: Tensor) -> Tensor | None:
        """Give `rows` and then `new` (n, d) in one piece.

        None if `rows` aren't those in this memory, `new` has another dtype, others wrote behind them, or there is no
        space.
        """
        n_all = len(rows) + len(new)
        if rows.data_ptr() != self._buffer.data_ptr() or {rows.dtype, new.dtype} != {self._buffer.dtype}:
            return None
        with self._lock:
            if self._n_used != len(rows) or n_all > len(self._buffer):
                return None
            self._n_used = n_all
        self._buffer[len(rows) : n_all] = new
        return self._buffer[:n_all]


@torch.inference_mode(False)  # what is made in that mode can't be written to outside of it
@torch.no_grad()
def in_room(pieces: Sequence[Tensor]) -> tuple[Tensor, Room]:
    """Copy pieces (n_i, d), one after the other, to new memory with room behind them: rows (R, d), and the room.

    Pieces of several dtypes come to lie in one that holds the numbers of all.
    """
    n_rows = sum(len(piece) for piece in pieces)
    dtype = functools.reduce(torch.promote_types, [piece.dtype for piece in pieces])
    buffer = pieces[0].new_empty(n_rows + int(SPARE * n_rows), *pieces[0].shape[1:], dtype=dtype)
    torch.cat(list(pieces), out=buffer[:n_rows])
    return buffer[:n_rows], Room(buffer, n_rows)


def splice(rows: Tensor, start: int, stop: int, new: Tensor, room: Room | None) -> tuple[Tensor, Room | None]:
    """Give rows (R, d) with `new` (n, d) in the place of rows start to stop, contiguous, and the room they are in.

    `rows` stay valid. At the end, into spare room, nothing is copied but `new`; anywhere else the rows move to memory
    of their own, with new room.
    """
    if len(new) == 0 and (start == stop or stop == len(rows)):
        return rows[: len(rows) - (stop - start)], room
    if start == len(rows) and room is not None and (grown := room.extend(rows, new)) is not None:
        return grown, room
    return in_room([rows[:start], new, rows[stop:]])
