"""Rows that grow at the end without being copied, while whoever holds the earlier rows keeps them as they were."""

import threading

import torch
from torch import Tensor

SPARE = 0.25
"""Of the rows held: what is set aside for those to come."""


class Room:
    """Memory with rows to spare. Several banks may hold its first rows; only the newest may add to them in place."""

    def __init__(self, rows: Tensor, n_needed: int) -> None:
        """Copy rows (R, d) to the start of room for `n_needed` rows and some more."""
        self._buffer = rows.new_empty(n_needed + int(SPARE * n_needed), *rows.shape[1:])
        self._buffer[: len(rows)] = rows
        self._n_used = len(rows)
        self._lock = threading.Lock()

    def extend(self, rows: Tensor, new: Tensor) -> Tensor | None:
        """Give `rows` and then `new` (n, d) in one piece; None if others wrote behind `rows`, or there is no space."""
        n_all = len(rows) + len(new)
        with self._lock:
            if self._n_used != len(rows) or n_all > len(self._buffer):
                return None
            self._n_used = n_all
        self._buffer[len(rows) : n_all] = new
        return self._buffer[:n_all]


def insert_rows(rows: Tensor, at: int, new: Tensor, room: Room | None) -> tuple[Tensor, Room | None]:
    """Give rows (R, d) with `new` (n, d) before row `at`, contiguous, and the room they are in; `rows` stay valid.

    At the end, into spare room, nothing is copied but `new`; anywhere else the rows move to memory of their own.
    """
    if at < len(rows):
        return torch.cat([rows[:at], new, rows[at:]]), None
    grown = room.extend(rows, new) if room is not None else None
    if grown is None:
        room = Room(rows, len(rows) + len(new))
        grown = room.extend(rows, new)
    assert grown is not None
    return grown, room
