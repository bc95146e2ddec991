"""Artefacts of a library by kind and key: derived/ can be rebuilt and collected, learned/ can't and is left alone.

The key is the hash of the origins, so an artefact is never stale: what changed has another key.
"""

import contextlib
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path

from lorary.disk.processes import collect_beside, is_abandoned, marked
from lorary.disk.reading import require_plain_directory
from lorary.disk.writing import disk_errors, sync
from lorary.errors import LibraryError, OptionError, quote
from lorary.library.layout import Layout
from lorary.library.library import Library

_KIND = re.compile(r"[a-z0-9][a-z0-9_]{0,63}")
_KEY = re.compile(r"[A-Za-z0-9_]{1,64}")
_SUFFIX = re.compile(r"[a-z0-9]{1,16}")


def put(
    library: Library, kind: str, key: str, suffix: str, write: Callable[[Path], None], *, learned: bool = False
) -> Path:
    """Store an artefact as `<kind>-<key>.<suffix>`: `write` fills a temporary file, which is then renamed.

    `learned=True` is for what can't be rebuilt without data. Raises E-PERM for a library that can't be
    written to (keep the artefact in memory then), E-PATH for a folder that is a link, and E-DISK.
    """
    folder = library.layout.learned if learned else library.layout.derived
    target = folder / _file_name(kind, key, suffix)
    if not library.layout.is_ours:
        message = f"{target.name}: {quote(library.path.name)} has no library.json and is opened read-only."
        raise LibraryError("E-PERM", message, "Create a library elsewhere and add its experts.")
    require_plain_directory(folder)
    arriving = folder / f".{marked(f'{kind}-{key}')}.{suffix}"
    with disk_errors(target.name):
        folder.mkdir(exist_ok=True)
        try:
            write(arriving)
            sync(arriving)
            os.replace(arriving, target)
        finally:
            arriving.unlink(missing_ok=True)
        sync(folder)
        collect_beside(folder)
    return target


def get(library: Library, kind: str, key: str, suffix: str, *, learned: bool = False) -> Path | None:
    """Find an artefact; None when it has to be made. Links and unreadable files don't count."""
    return find(library.layout, kind, key, suffix, learned=learned)


def find(layout: Layout, kind: str, key: str, suffix: str, *, learned: bool = False) -> Path | None:
    """Find an artefact as `get` does, in a library that nobody opened."""
    folder = layout.learned if learned else layout.derived
    path = folder / _file_name(kind, key, suffix)
    with contextlib.suppress(PermissionError, FileNotFoundError):  # somebody else's; collected since we looked
        if not folder.is_symlink() and not path.is_symlink() and path.is_file():
            if not learned:  # else it can't be made again: its reader says what is wrong
                path.open("rb").close()
            return path
    return None


def namesakes(library: Library, kind: str, beginning: str, suffix: str) -> list[str]:
    """Name the derived artefacts whose key begins so, sorted: other users' of the same origins."""
    folder = library.layout.derived
    if folder.is_symlink() or not folder.is_dir():
        return []
    start, end = f"{kind}-{beginning}", f".{suffix}"
    return sorted(path.name for path in folder.iterdir() if path.name.startswith(start) and path.suffix == end)


def gc(library: Library, keep: Iterable[str] | None) -> list[str]:
    """Delete derived artefacts whose key is not in `keep` (None: all stay), and what dead writers left.

    Learned artefacts are never touched. Returns the names of what it deleted, sorted. Raises E-PERM.
    """
    doomed = [path for path in _files(library.layout, library.layout.learned) if _is_left(path)]
    for path in _files(library.layout, library.layout.derived):
        is_kept = path.name.startswith(".") or keep is None or path.stem.partition("-")[2] in set(keep)
        doomed += [path] if _is_left(path) or not is_kept else []
    with disk_errors(quote(library.path.name)):
        for path in doomed:
            path.unlink(missing_ok=True)
    return sorted(path.name for path in doomed)


def _files(layout: Layout, folder: Path) -> list[Path]:
    if not layout.is_ours or folder.is_symlink() or not folder.is_dir():
        return []
    return [path for path in folder.iterdir() if not path.is_dir()]


def _is_left(path: Path) -> bool:
    """Tell a temporary file whose writer is gone."""
    with contextlib.suppress(FileNotFoundError):
        return path.name.startswith(".") and is_abandoned(path)
    return False


def _file_name(kind: str, key: str, suffix: str) -> str:
    for what, value, pattern in (("kind", kind, _KIND), ("key", key, _KEY), ("suffix", suffix, _SUFFIX)):
        if not pattern.fullmatch(value):
            raise OptionError(
                "E-NAME", f"{what} {quote(value)} can't be part of a file name.", "Use letters and digits."
            )
    return f"{kind}-{key}.{suffix}"
