"""Open only regular files; write whole files or none; say plainly what the disk refused."""

import contextlib
import errno
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from lorary.errors import LibraryError
from lorary.library.findings import quote

# Windows has none of these flags, nor the FIFOs they are for.
_SAFE_READ = (
    os.O_RDONLY
    | getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_NONBLOCK", 0)
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_BINARY", 0)
)
_DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}
SPARE_BYTES = 1 << 20  # for directories, manifest and card


def cache_directory() -> Path:
    """Where lorary keeps what it can make again: $LORARY_CACHE, else $XDG_CACHE_HOME/lorary, else ~/.cache/lorary."""
    if own := os.environ.get("LORARY_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lorary"


def as_path(given: Path | str) -> Path:
    """Take a path that a caller gave, absolute. Raises E-PATH for what can't be one."""
    text = os.fspath(given) if isinstance(given, str | os.PathLike) else None
    if not isinstance(text, str) or "\0" in text:
        raise LibraryError("E-PATH", f"{quote(given)} is no path.", "Give a text or a pathlib.Path.")
    return Path(text).absolute()


def open_regular(path: Path) -> BinaryIO:
    """Open a file for reading, if it is one: never through a symlink, never a FIFO or device (which could hang).

    Raises LibraryError: E-FILE when it is missing, E-PATH when it is something else, E-PERM when it is forbidden.
    """
    try:
        descriptor = os.open(path, _SAFE_READ)
    except FileNotFoundError:
        raise LibraryError("E-FILE", f"{path.name} is missing.") from None
    except OSError as error:
        if error.errno in _FORBIDDEN:
            raise LibraryError("E-PERM", f"{path.name} can't be read: {error.strerror}.") from None
        raise _not_regular(path.name) from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _not_regular(path.name)
    return os.fdopen(descriptor, "rb")


def signature(path: Path) -> tuple[int, ...]:
    """Tell a file from those that come in its place and from what is made of it: equal ones are of the same bytes.

    Unequal ones may be, too: a hard link, a chmod or a touch changes the times of a file and none of its bytes.
    """
    found = os.stat(path, follow_symlinks=False)
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _not_regular(name: str) -> LibraryError:
    return LibraryError("E-PATH", f"{name} is not a regular file.", "Copy the real file there (cp -L), not a link.")


def read_capped(path: Path, max_bytes: int, code: str) -> bytes:
    """Read a small regular file. Raises LibraryError with `code` when it is larger than `max_bytes`."""
    with open_regular(path) as file:
        data = file.read(max_bytes + 1)
        if len(data) > max_bytes:
            size = os.fstat(file.fileno()).st_size
            raise LibraryError(code, f"{path.name} has {size:,} bytes, the limit is {max_bytes:,}.")
    return data


def is_plain_directory(path: Path) -> bool:
    """Tell whether `path` is a directory itself, not a link to one."""
    return path.is_dir() and not path.is_symlink()


def write_whole(path: Path, data: bytes) -> None:
    """Write a file beside and rename it into place: a reader sees the old bytes or the new, never a part."""
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with beside.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
    sync(path.parent)


def sync(path: Path) -> None:
    """Wait until a file or directory is on the disk. Does nothing for directories where that can't be asked."""
    with contextlib.suppress(PermissionError):  # Windows can't open a directory
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def copy_durably(source: Path, target: Path) -> None:
    """Copy a regular file to a new file and wait until it is on the disk."""
    with open_regular(source) as reader, target.open("xb") as writer:
        shutil.copyfileobj(reader, writer, 1 << 20)
        writer.flush()
        os.fsync(writer.fileno())


def need_space(directory: Path, size_bytes: int) -> None:
    """Raise E-DISK before anything is written when `size_bytes` and a spare megabyte don't fit."""
    needed, free = size_bytes + SPARE_BYTES, shutil.disk_usage(directory).free
    if needed > free:
        message = f"the disk is too full: needs {megabytes(needed)}, {megabytes(free)} free."
        raise LibraryError("E-DISK", message, "Free some space and run it again; nothing was changed.")


def megabytes(size_bytes: int) -> str:
    """Say a size in MB, rounded up: `12 MB`."""
    return f"{-(-size_bytes // 1_000_000):,} MB"


def is_disk_error(error: BaseException) -> bool:
    """Tell whether the disk refused: full, read-only or somebody else's."""
    return isinstance(error, OSError) and error.errno in _DISK_FULL | _FORBIDDEN


@contextlib.contextmanager
def disk_errors(doing: str) -> Iterator[None]:
    """Raise E-DISK for a full disk and E-PERM for a read-only or foreign one; other OSErrors pass."""
    try:
        yield
    except OSError as error:
        if error.errno in _DISK_FULL:
            hint = "Free some space and run it again; nothing was changed."
            raise LibraryError("E-DISK", f"{doing}: the disk is full ({error.strerror}).", hint) from error
        if error.errno in _FORBIDDEN:
            hint = "Copy the library to a place you can write to; reading needs no permission."
            raise LibraryError("E-PERM", f"{doing}: writing is not allowed ({error.strerror}).", hint) from error
        raise
