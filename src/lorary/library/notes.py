"""When the notes about a library (library.json, the card) are taken: after each change, or once after many."""

import contextlib
from collections.abc import Callable, Iterator


class Notes:
    """Writes notes by `write`, which reads the whole directory: for thousands of changes in a row, once is enough."""

    def __init__(self, write: Callable[[], None]) -> None:
        self._write = write
        self._depth = 0
        self._are_due = False

    def changed(self) -> None:
        """Hear of a change: note it now, or at the end of the outermost `once`."""
        self._are_due = True
        if self._depth == 0:
            self.take()

    def take(self) -> None:
        """Write the notes now."""
        self._are_due = False
        self._write()

    @contextlib.contextmanager
    def once(self) -> Iterator[None]:
        """Wait with notes until the `with` block ends, however it ends."""
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1
            if self._depth == 0 and self._are_due:
                self.take()
