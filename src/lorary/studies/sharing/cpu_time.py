"""How much processor time the parts of a study took: one line a stretch of work, written by whoever did it."""

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

TIMES = "cpu_seconds.tsv"
"""The one file of a study that a second run doesn't make to the byte: machines differ."""
_LEAST_S = 0.01  # less is looking whether something is done


@contextlib.contextmanager
def counted(times: Path, part: Path | str) -> Iterator[None]:
    """Note in the file `times` what the block took of this process's time, all threads together."""
    start = time.process_time()
    try:
        yield
    finally:
        seconds = time.process_time() - start
        if seconds >= _LEAST_S:
            _append(times, f"{Path(part).as_posix()}\t{seconds:.3f}\n")


def _append(path: Path, line: str) -> None:
    with contextlib.suppress(OSError):  # a note; no study fails for it
        path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            os.write(file, line.encode())  # one call, so that lines of several processes don't mix
        finally:
            os.close(file)


def cpu_seconds(times: Path) -> dict[str, float]:
    """Add up the seconds of each part; lines that can't be read count nothing."""
    found: dict[str, float] = {}
    with contextlib.suppress(OSError, UnicodeDecodeError):
        for line in times.read_text(encoding="utf-8").splitlines():
            part, _, seconds = line.partition("\t")
            with contextlib.suppress(ValueError):
                found[part] = found.get(part, 0.0) + float(seconds)
    return found
