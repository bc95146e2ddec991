"""A directory that is there whole or not at all."""

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from lorary.disk.processes import beside, collect_beside
from lorary.disk.reading import as_path
from lorary.disk.writing import ELSEWHERE, check_writable, disk_errors, sync
from lorary.errors import LibraryError, quote

_NO_PLACE = {errno.EEXIST, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP}


@contextlib.contextmanager
def arriving(target: Path | str) -> Iterator[Path]:
    """Give an empty directory that becomes `target` when the `with` block ends; if the block raises, nothing remains.

    Raises E-EXISTS when the target is there already, E-PATH where none can be, E-DISK and E-PERM from the disk, for the
    block's writing too.
    """
    named, target = quote(str(target), 200), as_path(target)
    with disk_errors(named, ELSEWHERE):
        stage = _make_stage(target)
        try:
            yield stage
            for path in sorted(stage.rglob("*"), reverse=True):
                sync(path)
            sync(stage)
            os.rename(stage, target)
        finally:
            shutil.rmtree(stage, ignore_errors=True)
        sync(target.parent)


def check_target(target: Path | str) -> None:
    """Refuse a target that can't arrive, before long work is done for it. Raises E-EXISTS, E-PATH, E-PERM."""
    _check_free(as_path(target))
    check_writable(as_path(target))


def _check_free(target: Path) -> None:
    if target.exists() or target.is_symlink():
        raise LibraryError("E-EXISTS", f"{quote(str(target), 200)} exists already.", "Choose another path.")


def _make_stage(target: Path) -> Path:
    try:
        _check_free(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        collect_beside(target.parent)  # first: it may be what fills the disk
        stage = beside(target)
        stage.mkdir()
    except OSError as error:
        if error.errno not in _NO_PLACE:
            raise
        what = f"no directory can be made at {quote(str(target), 200)}: a part of it is a file, or too long."
        raise LibraryError("E-PATH", what, "Choose another path.") from None
    return stage
