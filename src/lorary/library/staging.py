"""The way in and out of a library: a directory of its own, then one rename.

A writer that is killed leaves its staging directory behind and nothing else; `clean` finds out whose it was.
"""

import contextlib
import ctypes
import errno
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from lorary.disk.processes import collect_beside, is_abandoned, is_marked, marked
from lorary.disk.reading import is_plain_directory, require_plain_directory
from lorary.disk.writing import sync
from lorary.errors import LibraryError, OptionError, quote
from lorary.library.layout import Layout, is_name

_AS_BEFORE = re.compile(
    r"[^.]+\.[^.]+\.[0-9]+\.[^.]+(\.old)?"
)  # <name>.<host>.<pid>.<token>: tells no more than its age
_TAKEN = {errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR}
_EXCHANGE = 2  # RENAME_EXCHANGE of renameat2
_HERE = -100  # AT_FDCWD


def new_stage(staging: Path, name: str) -> Path:
    """Make an empty directory whose name says who is writing what. Raises E-PATH for a link."""
    require_plain_directory(staging)
    staging.mkdir(parents=True, exist_ok=True)
    stage = staging / marked(name)
    stage.mkdir()
    return stage


def commit(stage: Path, target: Path) -> None:
    """Move a staged directory to its name, durably. Raises E-EXISTS when another writer was first."""
    _sync_tree(stage)
    try:
        os.rename(stage, target)
    except OSError as error:
        if error.errno in _TAKEN:
            message = f"expert {quote(target.name)} exists already."
            raise LibraryError("E-EXISTS", message, "Choose another name, or replace it (--replace).") from None
        raise
    sync(target.parent)


def commit_over(stage: Path, target: Path) -> None:
    """Exchange a staged directory with the one that has the name; readers of the old one keep their files.

    At one instant where the system can exchange (Linux). Elsewhere by two renames; killed between them, the old
    directory waits in staging under its name, and `clean` moves it back.
    """
    _sync_tree(stage)
    if _exchange(stage, target):
        sync(target.parent)
        discard(stage)  # it is the old one now
        return
    away = stage.with_name(stage.name + ".old")
    try:
        os.rename(target, away)
    except FileNotFoundError:
        message = f"expert {quote(target.name)} was removed by another writer."
        raise OptionError("E-NAME", message, "Add it instead.") from None
    try:
        os.rename(stage, target)
    except OSError:
        _put_back(away, target)
        raise
    sync(target.parent)
    discard(away)


def _put_back(away: Path, target: Path) -> None:
    try:
        os.rename(away, target)
    except OSError as error:
        if error.errno not in _TAKEN:
            raise
        discard(away)  # another writer's stands there by now


def _exchange(one: Path, other: Path) -> bool:
    renameat2 = getattr(ctypes.CDLL(None), "renameat2", None) if os.name == "posix" else None
    return renameat2 is not None and renameat2(_HERE, os.fsencode(one), _HERE, os.fsencode(other), _EXCHANGE) == 0


def take_out(target: Path, staging: Path) -> None:
    """Make an expert vanish at one instant, then delete its files; readers that mapped them keep them."""
    if target.is_symlink():  # no expert, but it stood where experts do
        target.unlink()
        return
    away = new_stage(staging, target.name if is_name(target.name) else "expert")  # what others named fits no stage
    try:
        os.rename(target, away)
    except OSError:  # another took it out before us
        discard(away)
        raise
    sync(target.parent)
    discard(away)


def discard(stage: Path) -> None:
    """Delete a staging directory; what can't be deleted now, `clean` deletes later."""
    if stage.is_symlink():  # what an expert was put in the place of
        stage.unlink()
    else:
        with contextlib.suppress(OSError), _held(stage.parent) as parent:
            shutil.rmtree(stage if parent is None else stage.name, ignore_errors=True, dir_fd=parent)


@contextlib.contextmanager
def _held(directory: Path) -> Iterator[int | None]:
    """Open a directory, so that no link can come in its place meanwhile; None where the system can't."""
    if not shutil.rmtree.avoids_symlink_attacks:
        yield None
        return
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def leftovers(layout: Layout) -> list[str]:
    """Name the stages that dead writers left, sorted; `clean` deletes them."""
    stages = sorted(layout.staging.iterdir()) if is_plain_directory(layout.staging) else []
    return [stage.name for stage in stages if _is_left(stage)]


def clean(layout: Layout) -> list[str]:
    """Delete what dead writers left; move back an expert whose replacement was cut short. Returns what it did, sorted.

    Raises E-PATH for a link: what it leads to is nobody's stage.
    """
    layout.require_plain()
    done = []
    for stage in sorted(layout.staging.iterdir()) if layout.staging.is_dir() else []:
        with contextlib.suppress(FileNotFoundError):  # another collects as well, or its writer was done
            if _is_left(stage):
                done += _settle(stage, layout.experts)
    for folder in (layout.root, layout.derived, layout.learned):
        done += [f"removed {name}" for name in collect_beside(folder)]
    return sorted(done)


def _settle(stage: Path, experts: Path) -> list[str]:
    """Put a dead writer's stage where it belongs; say where. Raises FileNotFoundError if it is gone."""
    name = stage.name.partition(".")[0]
    if stage.name.endswith(".old") and is_plain_directory(stage) and not os.path.lexists(experts / name):
        try:
            os.rename(stage, experts / name)
            return [f"restored {name}"]
        except OSError as error:
            if error.errno not in _TAKEN:  # else somebody made it meanwhile
                raise
    stage.lstat()
    discard(stage)
    return [] if os.path.lexists(stage) else [f"removed {stage.name}"]  # else the disk keeps it


def _is_left(stage: Path) -> bool:
    is_a_writers = is_marked(stage.name) or _AS_BEFORE.fullmatch(stage.name) is not None
    return not is_a_writers or is_abandoned(stage)


def _sync_tree(directory: Path) -> None:
    for path in sorted(directory.iterdir()):
        if path.is_file() and not path.is_symlink():
            sync(path)
    sync(directory)
