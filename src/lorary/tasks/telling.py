"""Who hears how far the reading of large files is."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Tell = Callable[[int, int], None]
"""Hears how many bytes of the files are read, and how many there are."""

_listener: ContextVar[Tell | None] = ContextVar("_listener", default=None)


@contextmanager
def telling(tell: Tell) -> Iterator[None]:
    """Let `tell` hear in the block of large files that are read, not of those that are only opened again."""
    token = _listener.set(tell)
    try:
        yield
    finally:
        _listener.reset(token)


def listener() -> Tell | None:
    """Give who hears of it now, if anybody does."""
    return _listener.get()
