"""Bases in directories of this machine that its user has named: where they are, and that they may be loaded.

An adapter or a library says what its base is called. If that is a path, it may lead anywhere: into the library itself,
or to what somebody left in the directory where the user happens to be; and a relative one leads nowhere from another
directory. So a path counts once the user gave it, in Python or on the command line. It is noted in lorary's cache,
never in a library, under a name that only this user can make; once the base has fitted a library, with its fingerprint,
by which it is found from elsewhere. What is loaded then is compared with the library again.
"""

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from lorary.disk.reading import cache_directory
from lorary.disk.seal import seal
from lorary.disk.writing import write_whole
from lorary.library import sync
from lorary.library.base_names import is_relative, is_shared_name, shared_name
from lorary.model.base.embedded_needs import EMBEDDED, is_embedded

_MOST_BYTES = 1 << 16
_PATHS = (".", "~", os.sep)


class Loaded(Protocol):
    """A base, as far as it is noted: where it was loaded from, and what tells it from others."""

    directory: Path | None

    @property
    def fingerprint(self) -> Mapping[str, Any]:
        """What tells it from others."""


def remember_base(name: str) -> None:
    """Note a directory that the user named as a base; where nothing can be kept, it has to be named again."""
    if Path(name).is_dir():
        with contextlib.suppress(OSError, ValueError):
            note = _note(name)
            note.parent.mkdir(parents=True, exist_ok=True)
            if note.exists() and note.stat().st_size:
                note.touch()
            else:
                write_whole(note, json.dumps({"directory": os.path.abspath(name)}, indent=2).encode())


def remember_fit(base: Loaded) -> None:
    """Note the fingerprint of a base that was loaded from a directory; of others there is nothing to note."""
    if base.directory is not None:
        facts = {"directory": str(base.directory), "fingerprint": base.fingerprint}
        with contextlib.suppress(OSError, ValueError):  # a note; nothing fails for it
            note = _note(str(base.directory))
            note.parent.mkdir(parents=True, exist_ok=True)
            write_whole(note, json.dumps(facts, indent=2).encode())


def is_named(name: str) -> bool:
    """Tell whether the user named the base that stands in this directory."""
    return _note(name).exists()


def find_here(name: str) -> str | None:
    """Give what to load for the base that somebody's files name, if it is on this machine; asks no network.

    It may be the embedded one, in the Hub's cache, or a directory that the user named before.
    """
    if is_embedded(name):
        return EMBEDDED
    if Path(name).is_dir():  # a name from the Hub, too, is one if there is such a directory
        return os.path.abspath(name) if is_named(name) else None
    if is_shared_name(name):
        return find_shared(name)
    return name if sync.is_cached(name) else None


def find_shared(name: str) -> str | None:
    """Find the directory that a file calls by its `shared_name`, if the user named it here; None for all else."""
    if is_shared_name(name) and not Path(name).is_dir():
        for directory, _ in _noted():
            if Path(directory).is_dir() and name in (shared_name(directory), shared_name(os.path.realpath(directory))):
                return directory
    return None


def called(name: str) -> str:
    """Give the name to record for a base: a directory is never recorded by what could be a name on the Hub."""
    return f"./{name}" if Path(name).is_dir() and not name.startswith(_PATHS) and not Path(name).is_absolute() else name


def find_base(name: str, fingerprint: Mapping[str, object] | None) -> str | None:
    """Give what to load for the base that a library names, as `find_here`, wherever the user's directory is.

    Whatever stands in the current directory under a relative name, the base that fitted before comes first.
    """
    here = find_here(name)
    if here is not None and (Path(name).is_absolute() or not Path(here).is_dir()):
        return here
    return recall(fingerprint) or here


def recall(fingerprint: Mapping[str, object] | None) -> str | None:
    """Find the directory of the base with this fingerprint; of several, the one that was used last.

    In another precision only the signs of a base's weights are known, so these count only where nothing says more.
    """
    wanted, found = fingerprint or {}, dict[str, str]()
    for directory, known in _noted() if wanted else ():
        if not known:
            continue
        shared = known.keys() & wanted.keys()
        if all(known[key] == wanted[key] for key in shared) and Path(directory).is_dir():
            by = "weights" if any(key.startswith("weights") for key in shared) else "signs"
            if by == "weights" or "embedding_signs" in shared:
                found.setdefault(by, directory)
    return found.get("weights") or found.get("signs")


def absence(name: str) -> str:
    """Say why a base that somebody's files name can't be taken, as in: base 'x', which ..."""
    if Path(name).is_dir():
        return "is a directory that nobody but its files named"
    return "was a directory where it was made" if is_relative(name) else "isn't on this machine"


def _notes() -> Path:
    return cache_directory() / "bases"


def _note(name: str) -> Path:
    return _notes() / seal("base", str(Path(name).resolve()))[:32]


def _noted() -> Iterator[tuple[str, Mapping[str, Any]]]:
    """List directories with the fingerprints of their bases, {} if none fitted yet, the last used first.

    A note of somebody else is none.
    """
    with contextlib.suppress(OSError):
        for path in sorted(_notes().iterdir(), key=lambda path: path.stat().st_mtime_ns, reverse=True):
            with contextlib.suppress(OSError, ValueError):
                note = json.loads(path.read_bytes()[:_MOST_BYTES])
                known = note.get("fingerprint", {}) if isinstance(note, dict) else None
                if isinstance(known, dict) and path == _note(directory := str(note.get("directory"))):
                    yield directory, known
