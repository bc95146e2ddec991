"""Which files this process opens, in the words of its own audit."""

import contextlib
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Opened:
    """Paths in the order in which they were opened."""

    read: list[Path] = field(default_factory=list)
    written: list[Path] = field(default_factory=list)


_listening: list[Opened] = []


def _hear(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and _listening and not isinstance(arguments[0], int):
        for opened in _listening:
            is_read = not arguments[2] & (os.O_WRONLY | os.O_RDWR)
            (opened.read if is_read else opened.written).append(Path(os.fsdecode(arguments[0])))


sys.addaudithook(_hear)  # it stays for good, so there is one


@contextlib.contextmanager
def opens() -> Iterator[Opened]:
    """Note which files are opened in a `with` block."""
    _listening.append(opened := Opened())
    try:
        yield opened
    finally:
        _listening.remove(opened)
