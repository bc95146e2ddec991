"""Copies of the Hub's libraries in lorary's cache: one for each commit, which nobody changes, and what of them goes."""

import contextlib
import os
import shutil
import time
from pathlib import Path

from lorary.disk.processes import collect_beside
from lorary.disk.reading import cache_directory, is_plain_directory
from lorary.disk.writing import write_whole
from lorary.errors import LibraryError
from lorary.library.adapter.expert import hash_experts
from lorary.library.library import Library

OLD_S = 30 * 24 * 3600.0
"""What wasn't opened for so long is collected."""
_PULLED = ".pulled"
"""In a kept library: the hash of its experts, as they came; touched whenever it is opened."""


def kept_place(key: str) -> Path:
    """Say where the copy of a key is, or would be."""
    return _home() / key


def open_kept(place: Path, called: str) -> Library:
    """Open a copy. Raises E-LIBRARY if it was changed; `called`: what the Hub calls the library."""
    library, noted = Library.open(place, skip_bad=True), place / _PULLED
    if not noted.exists():
        write_whole(noted, hash_experts(library, recorded=True).encode())
    if library.bad or not _is_as_it_came(library, noted):
        what = f"lorary's copy of {called}, {str(place)!r}, was changed."
        raise LibraryError("E-LIBRARY", what, "Move it away, and open it there; then it is fetched again.")
    with contextlib.suppress(OSError):  # a cache that is read-only grows no older
        os.utime(noted)
    return library


def collect_kept(older_than_s: float = OLD_S) -> list[str]:
    """Delete copies that nobody opened for so long, and what killed processes left; say what was done. Never fails.

    A copy that was changed stays: what was done there is somebody's work.
    """
    done: list[str] = []
    with contextlib.suppress(OSError, RuntimeError):  # nobody's home
        done = [f"removed {name}" for name in collect_beside(_home())]
        for place in sorted(_home().iterdir()):
            with contextlib.suppress(OSError):
                if not place.name.startswith(".") and is_plain_directory(place) and _age_s(place) >= older_than_s:
                    done.append(_discard(place))
    return done


def _discard(place: Path) -> str:
    try:
        library = Library.open(place, skip_bad=True)
        is_whole = not library.bad and _is_as_it_came(library, place / _PULLED)
    except LibraryError:
        is_whole, library = False, None
    if not is_whole:
        return f"kept {str(place)!r}: it was changed since it came from the Hub"
    shutil.rmtree(place, ignore_errors=True)
    return f"removed the copy of {library.source or place.name}" if library is not None else ""


def _is_as_it_came(library: Library, noted: Path) -> bool:
    return noted.read_text(encoding="utf-8") == hash_experts(library, recorded=True)


def _home() -> Path:
    return cache_directory() / "libraries"


def _age_s(place: Path) -> float:
    try:
        return time.time() - (place / _PULLED).lstat().st_mtime
    except FileNotFoundError:  # it came a moment ago, or nobody ever opened it
        return time.time() - place.lstat().st_mtime
