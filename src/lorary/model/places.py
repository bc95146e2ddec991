"""Where on this machine the bases are that its user has worked with: notes in lorary's cache, never in a library.

A library names its base as its user did, and a relative name leads nowhere from another directory. So whenever a base
that was loaded from a directory fits a library, that directory is noted with the base's fingerprint, and later found
by the library's. Only directories that were loaded before are found, and what is loaded from them is compared with the
library again.
"""

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lorary.disk import write_whole
from lorary.hashing import short_key
from lorary.library.files import cache_directory
from lorary.model.base_model import BaseModel, find_here

_MOST_BYTES = 1 << 16


def remember(base: BaseModel) -> None:
    """Note where a base is that was loaded from a directory; of others there is nothing to note."""
    if base.directory is None:
        return
    note = {"directory": str(base.directory), "fingerprint": base.fingerprint}
    path = _notes() / f"{short_key(str(base.directory))}.json"
    with contextlib.suppress(OSError, ValueError):  # a note; nothing fails for it
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps(note, indent=2).encode())


def recall(fingerprint: Mapping[str, Any] | None) -> str | None:
    """Find the directory of the base with this fingerprint; of several, the one that was used last.

    In another precision only the signs of a base's weights are known, so these count only where nothing says more.
    """
    found: dict[str, str] = {}
    for directory, known in _noted() if fingerprint else ():
        shared = known.keys() & (fingerprint or {}).keys()
        if all(known[key] == (fingerprint or {})[key] for key in shared) and Path(directory).is_dir():
            by = "weights" if any(key.startswith("weights") for key in shared) else "signs"
            if by == "weights" or "embedding_signs" in shared:
                found.setdefault(by, directory)
    return found.get("weights") or found.get("signs")


def find_base(name: str, fingerprint: Mapping[str, Any] | None) -> str | None:
    """Give what to load for the base that a library names; None if it isn't on this machine. Asks no network.

    Whatever stands in the current directory under a relative name, the base that was loaded before comes first.
    """
    here = find_here(name)
    if here is not None and (Path(here).is_absolute() or not Path(here).is_dir()):
        return here
    return recall(fingerprint) or here


def _notes() -> Path:
    return cache_directory() / "bases"


def _noted() -> Iterator[tuple[str, Mapping[str, Any]]]:
    """List directories with the fingerprints of their bases, the last used first."""
    with contextlib.suppress(OSError):
        for path in sorted(_notes().glob("*.json"), key=lambda path: path.stat().st_mtime_ns, reverse=True):
            with contextlib.suppress(OSError, ValueError):
                note = json.loads(path.read_bytes()[:_MOST_BYTES])
                if isinstance(note, dict) and isinstance(note.get("fingerprint"), dict):
                    yield str(note.get("directory")), note["fingerprint"]
