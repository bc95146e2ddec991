"""Bases that stand at a path of this machine, and that its user has named: others aren't loaded for the asking.

An adapter or a library says what its base is called. If that is a path, it may lead anywhere: into the library itself,
or to what somebody left in the directory where the user happens to be. So a path counts once the user gave it, in
Python or on the command line; then it is remembered, in lorary's cache, under a name that only this user can make.
"""

import contextlib
from pathlib import Path

from lorary.library.files import cache_directory
from lorary.library.seal import seal


def remember_base(name: str) -> None:
    """Remember a directory that the user named as a base; where nothing can be kept, it has to be named again."""
    if Path(name).is_dir():
        with contextlib.suppress(OSError):
            mark = _mark(name)
            mark.parent.mkdir(parents=True, exist_ok=True)
            mark.touch()


def is_named(name: str) -> bool:
    """Tell whether the user named the base that stands in this directory."""
    return _mark(name).exists()


def absence(name: str) -> str:
    """Say why a base that somebody's files name can't be taken, as in: base 'x', which ..."""
    return "is a directory that nobody but its files named" if Path(name).is_dir() else "isn't on this machine"


def _mark(name: str) -> Path:
    return cache_directory() / "bases" / seal("base", str(Path(name).resolve()))[:32]
