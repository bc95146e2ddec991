"""Where tasks stay on disk: entries of lorary's cache, each named by the content of the files that it was read from.

    <cache>/tasks/<key>_<whose>/   rows.jsonl, rows.index: see `rows_file`
                                   entry.json: where each task's parts are, and the seal
    <cache>/tasks/<request>_<whose>.json: the key that files had when they were hashed, so that nobody hashes them again

An entry is taken only if this user's own lorary sealed it (`disk.seal`): of a cache that users share each has entries
of their own. The seal covers both files, by what tells them from changed ones (`disk.reading.signature`), and by their
hashes, which count where that differs: after a copy, or on another host.
"""

import contextlib
import errno
import json
import os
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from lorary.disk.arrival import arriving
from lorary.disk.processes import collect_beside, is_abandoned, place
from lorary.disk.reading import cache_directory, is_plain_directory, open_file, read_capped, signature
from lorary.disk.seal import is_sealed, seal, sealer
from lorary.disk.writing import need_space, write_whole
from lorary.errors import LibraryError, LoraryError
from lorary.hashing import hash_file, hash_open
from lorary.tasks.stored.rows_file import INDEX, ROWS, RowsWriter, Store

FACTS = "entry.json"
OLD_S = 30 * 24 * 3600.0
"""What wasn't opened for so long is collected."""
_MOST_BYTES = 1 << 28  # of facts
_LOOK_EVERY_S = 0.2
_STANDS = {errno.EEXIST, errno.ENOTEMPTY}
_ENTRY, _REQUEST = "tasks on disk", "files of tasks on disk"

Fill = Callable[[RowsWriter], Mapping[str, Any]]
"""Writes all examples; gives JSON values of each task."""
Again = tuple[Callable[..., Store], tuple[Any, ...]]


@dataclass(frozen=True)
class Entry:
    """Tasks on disk, opened. tasks: what `fill` gave of them."""

    tasks: Mapping[str, Any]
    store: Store


def home() -> Path:
    """The directory of all entries."""
    return cache_directory() / "tasks"


def _path(key: str) -> Path:
    return home() / f"{key}_{sealer()}"


def open_entry(key: str, again: Again) -> Entry | None:
    """Open an entry; None if there is none, or none that can be trusted. again: as `Store` has it."""
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError, AttributeError, LoraryError):
        path = _path(key)
        if not is_plain_directory(path):
            return None
        facts = json.loads(read_capped(path / FACTS, _MOST_BYTES, "E-FILE"))
        tasks, files = facts["tasks"], facts["files"]
        if not is_sealed(facts["seal"], _ENTRY, key, tasks, files):
            return None
        with contextlib.ExitStack() as opened:
            rows, index = (opened.enter_context(open_file(path / name, through_links=False)) for name in (ROWS, INDEX))
            if not _are(files, rows, index):
                return None
            opened.pop_all()
            _note_use(path, key, tasks, files, rows, index)
            return Entry(tasks, Store(rows, index, again))
    return None


def _are(files: Mapping[str, Any], rows: BinaryIO, index: BinaryIO) -> bool:
    """Tell whether open files are those that were sealed: untouched since, or else of the same bytes."""
    for name, file in ((ROWS, rows), (INDEX, index)):
        if list(signature(file.fileno())) != files[name]["signature"] and hash_open(file) != files[name]["sha256"]:
            return False
    return True


def _note_use(path: Path, key: str, tasks: Any, files: Any, rows: BinaryIO, index: BinaryIO) -> None:
    """Say that it is in use, and how its files are told from others from now on."""
    with contextlib.suppress(OSError):
        told = {name: list(signature(file.fileno())) for name, file in ((ROWS, rows), (INDEX, index))}
        if all(files[name]["signature"] == told[name] for name in told):
            os.utime(path / FACTS)
        else:
            known = {name: {**files[name], "signature": told[name]} for name in told}
            write_whole(path / FACTS, _facts(key, tasks, known))


def make_entry(key: str, size_bytes: int, fill: Fill, again: Again) -> Entry | None:
    """Make an entry of what `fill` writes; of several processes of this host one makes it, the others wait for it.

    size_bytes: about how large it gets. None if it was made and is gone again. Raises what the disk raises, with
    nothing left behind, and what `fill` raises.
    """
    path = _path(key)
    path.parent.mkdir(parents=True, exist_ok=True)
    if _is_coming(path):
        while _is_coming(path):
            time.sleep(_LOOK_EVERY_S)
        if found := open_entry(key, again):
            return found
    collect()
    _clear(path)
    need_space(path.parent, size_bytes)
    try:
        with arriving(path) as stage:
            _fill(stage, key, fill)
    except (LibraryError, OSError) as error:  # another was first, with the same
        if getattr(error, "code", "") != "E-EXISTS" and getattr(error, "errno", 0) not in _STANDS:
            raise
    return open_entry(key, again)


def _fill(stage: Path, key: str, fill: Fill) -> None:
    stage.chmod(0o700)  # the data may be for nobody else's eyes
    with contextlib.closing(RowsWriter(stage)) as writer:
        seen, spans = fill(writer), writer.finish()
    tasks = {name: {**facts, "parts": spans[name]} for name, facts in seen.items()}
    hashes = {ROWS: writer.sha256, INDEX: hash_file(stage / INDEX)}
    files = {name: {"sha256": told, "signature": list(signature(stage / name))} for name, told in hashes.items()}
    (stage / FACTS).write_bytes(_facts(key, tasks, files))


def _facts(key: str, tasks: Any, files: Any) -> bytes:
    plain = json.loads(json.dumps(tasks))  # as it will be read: tuples are lists then
    facts = {"tasks": plain, "files": files, "seal": seal(_ENTRY, key, plain, files)}
    return json.dumps(facts, ensure_ascii=False).encode()


def _is_coming(path: Path) -> bool:
    """Tell whether another process of this host is making it."""
    begins, own = f".{path.name}.{place()}-", f"-{os.getpid()}-"
    with contextlib.suppress(OSError):
        for name in os.listdir(path.parent):
            if name.startswith(begins) and own not in name and not is_abandoned(path.parent / name):
                return True
    return False


def _clear(path: Path) -> None:
    """Take away what stands in an entry's place and isn't one."""
    if is_plain_directory(path):
        shutil.rmtree(path, ignore_errors=True)
    elif os.path.lexists(path):
        path.unlink()


def key_of(request: str) -> str | None:
    """Give the key that files of a request had; None if nobody hashed them, as they are now."""
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError, AttributeError, LoraryError):
        note = json.loads(read_capped(_note(request), 1 << 16, "E-FILE"))
        if is_sealed(note["seal"], _REQUEST, request, note["key"]):
            os.utime(_note(request))
            return str(note["key"])
    return None


def note_key(request: str, key: str) -> None:
    """Remember the key of a request, if the disk lets us."""
    with contextlib.suppress(OSError):
        note = {"key": key, "seal": seal(_REQUEST, request, key)}
        write_whole(_note(request), json.dumps(note).encode())


def _note(request: str) -> Path:
    return home() / f"{request}_{sealer()}.json"


def collect(older_than_s: float = OLD_S) -> list[str]:
    """Delete what nobody opened for so long, and what killed processes left; say the names. Never fails."""
    done: list[str] = []
    with contextlib.suppress(OSError, RuntimeError):  # nobody's home
        done = collect_beside(home())
        for path in sorted(home().iterdir()):
            is_entry = is_plain_directory(path)
            with contextlib.suppress(OSError):
                if not path.name.startswith(".") and _age_s(path / FACTS if is_entry else path) >= older_than_s:
                    _clear(path)
                    done.append(path.name)
    return done


def _age_s(path: Path) -> float:
    try:
        return time.time() - path.lstat().st_mtime
    except FileNotFoundError:  # an entry without facts is none
        return float("inf")
