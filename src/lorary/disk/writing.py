"""Write whole files or none, as the umask wants them; say plainly what the disk refused."""

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from lorary.disk.processes import beside, collect_beside
from lorary.errors import LibraryError

_DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}
SPARE_BYTES = 1 << 20  # for directories, manifest and card
COPY_IT = "Copy the library to a place you can write to; reading needs no permission."
ELSEWHERE = "Choose a place you can write to."


def write_new(path: Path, data: bytes) -> None:
    """Write a file that isn't there yet, and wait until it is on the disk."""
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def write_whole(path: Path, data: bytes) -> None:
    """Write a file beside and rename it into place: a reader sees the old bytes or the new, never a part.

    What writers that were killed left beside it goes.
    """
    arriving = beside(path)
    try:
        write_new(arriving, data)
        os.replace(arriving, path)
    except OSError as error:
        if error.errno is not None:
            error.filename = str(path)  # the other name tells nobody anything
        raise
    finally:
        discard(arriving)
    sync(path.parent)
    collect_beside(path.parent)


def check_writable(path: Path) -> None:
    """Refuse a path at which nothing can be written, before long work is done for it. Raises E-PATH, E-PERM."""
    place = path.absolute()
    with contextlib.suppress(OSError):  # what can't be looked at is told below, or when it is written
        while not place.exists() and place != place.parent:
            place = place.parent
    where = f"{str(path)!r}: {str(place)!r}"
    if place != path.absolute() and not place.is_dir():
        raise LibraryError("E-PATH", f"{where} is a file, and nothing can be made in it.", "Choose another path.")
    if not os.access(place, os.W_OK):
        raise LibraryError("E-PERM", f"{where} may not be written to.", ELSEWHERE)


def discard(path: Path) -> None:
    """Delete a file, if it is there and can be: what is wrong with the disk was told already."""
    with contextlib.suppress(OSError):
        path.unlink()


def sync(path: Path) -> None:
    """Wait until a file or directory is on the disk. Does nothing for directories where that can't be asked."""
    with contextlib.suppress(PermissionError):  # Windows can't open a directory
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def try_place(directory: Path, size_bytes: int) -> None:
    """Make a directory, and see that `size_bytes` can be written to it, before long work is done for it.

    Raises E-DISK where they don't fit, and the OSError of a disk that refuses the first byte.
    """
    directory.mkdir(parents=True, exist_ok=True)
    trial = beside(directory / "trial")
    try:
        trial.write_bytes(b"0")
    finally:
        discard(trial)
    need_space(directory, size_bytes)


def need_space(directory: Path, size_bytes: int) -> None:
    """Raise E-DISK before anything is written when `size_bytes` and a spare megabyte don't fit."""
    needed, free = size_bytes + SPARE_BYTES, shutil.disk_usage(directory).free
    if needed > free:
        message = f"the disk is too full: needs {megabytes(needed)}, {megabytes(free)} free."
        raise LibraryError("E-DISK", message, "Free some space and run it again; nothing was changed.")


def megabytes(size_bytes: int) -> str:
    """Say a size in MB, rounded up: `12 MB`."""
    return f"{-(-size_bytes // 1_000_000):,} MB"


def code_of(error: OSError) -> str | None:
    """Say E-DISK where the disk is full, E-PERM where it is read-only or somebody else's; None for all else."""
    return "E-DISK" if error.errno in _DISK_FULL else "E-PERM" if error.errno in FORBIDDEN else None


def is_disk_error(error: BaseException) -> bool:
    """Tell whether the disk refused: full, read-only or somebody else's."""
    return isinstance(error, OSError) and code_of(error) is not None


@contextlib.contextmanager
def disk_errors(doing: str, forbidden: str = COPY_IT) -> Iterator[None]:
    """Raise E-DISK for a full disk and E-PERM for a read-only or foreign one; other OSErrors pass.

    `doing` begins the message; `forbidden` is what to do where writing isn't allowed.
    """
    try:
        yield
    except OSError as error:
        if code_of(error) == "E-DISK":
            hint = "Free some space and run it again; nothing was changed."
            raise LibraryError("E-DISK", f"{doing}: the disk is full ({error.strerror}).", hint) from error
        if code_of(error) == "E-PERM":
            raise LibraryError("E-PERM", f"{doing}: writing is not allowed ({error.strerror}).", forbidden) from error
        raise
