"""A file of lines that grows beside its place until it is whole, so that a killed run resumes."""

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from lorary.disk.writing import ELSEWHERE, discard, disk_errors, write_whole
from lorary.errors import EvaluationError, LibraryError


def part_of(path: Path) -> Path:
    """Name the file that an unfinished run grows in; it gets its final name when it is whole."""
    return path.with_name(path.name + ".part")


class GrowingFile:
    """The file of one unfinished run; `begin` comes first. Raises E-RUN where another process writes to it too."""

    def __init__(self, final: Path) -> None:
        self.final, self.path, self.size = final, part_of(final), 0
        with self._refusals():
            final.parent.mkdir(parents=True, exist_ok=True)

    def begin(self, known: bytes, head: bytes) -> None:
        """Go on behind the bytes of it that are known, or begin it with a head. What stands behind them goes."""
        try:
            self._write(0, known or head)
        except LibraryError:
            if not known:
                discard(self.path)
            raise

    def append(self, data: bytes) -> None:
        """Write on, and wait until it is on the disk."""
        with self._alone():
            self._write(self.size, data)

    def finish(self, *, n_head: int = 0) -> None:
        """Give it its final name; n_head: bytes at its beginning that aren't part of what is wanted."""
        with self._alone(), self._refusals():
            if n_head:
                write_whole(self.final, self.path.read_bytes()[n_head:])
                self.path.unlink()
            else:
                os.replace(self.path, self.final)

    def _write(self, start: int, data: bytes) -> None:
        how = (
            os.O_RDWR | getattr(os, "O_BINARY", 0) | (0 if start else os.O_CREAT)
        )  # gone meanwhile, it isn't made anew
        with self._refusals(), open(self.path, "r+b", opener=lambda path, _: os.open(path, how, 0o666)) as file:
            file.seek(start)
            file.write(data)
            file.truncate()
            file.flush()
            os.fsync(file.fileno())
        self.size = start + len(data)

    def _refusals(self) -> AbstractContextManager[None]:
        return disk_errors(repr(str(self.final)), ELSEWHERE)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Raise E-RUN if another process wrote to the file, or finishes it in the block, which takes it away."""
        try:
            if self.path.stat().st_size == self.size:
                yield
                return
        except FileNotFoundError:
            pass
        raise EvaluationError(
            "E-RUN", f"{self.path}: another process writes to it too.", "Let one run finish, or use another file."
        )
