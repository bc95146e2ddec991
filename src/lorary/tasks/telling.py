"""Who hears how far the reading of large files is."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from lorary.progress import Progress

_listener: ContextVar[Progress | None] = ContextVar("_listener", default=None)


@contextmanager
def telling(progress: Progress) -> Iterator[None]:
    """Let `progress` hear, in the block, how many bytes of large files are read; not of those only opened again."""
    token = _listener.set(progress)
    try:
        yield
    finally:
        _listener.reset(token)


def listener() -> Progress | None:
    """Give who hears of it now, if anybody does."""
    return _listener.get()
