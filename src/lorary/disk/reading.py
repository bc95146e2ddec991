"""Paths as they are given, and what stands there: only regular files are opened, and told apart; where the cache is."""

import contextlib
import difflib
import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

from lorary.disk.writing import FORBIDDEN
from lorary.errors import LibraryError, error_of, quote

NOT_REGULAR = errno.EINVAL
# Windows has none of these flags, nor the FIFOs they are for.
_SAFE_READ = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)


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


def absolute_name(name: str) -> str:
    """Give a name that means the same in any process: where it is that of a directory, the absolute path."""
    return str(Path(name).absolute()) if Path(name).is_dir() else name


def open_file(path: Path, *, through_links: bool = True) -> BinaryIO:
    """Open a file for reading, if it is one: never a FIFO, device or directory. Those could hang, or have no end.

    Raises OSError, "not a regular file" for what is none.
    """
    descriptor = os.open(path, _SAFE_READ | (0 if through_links else getattr(os, "O_NOFOLLOW", 0)))
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(NOT_REGULAR, "not a regular file", str(path))
    return os.fdopen(descriptor, "rb")


def open_regular(path: Path) -> BinaryIO:
    """Open a file of a library or of something else that strangers fill: as `open_file`, and never through a symlink.

    Raises E-FILE when it is missing, E-PATH when it is something else, E-PERM when it is forbidden.
    """
    try:
        return open_file(path, through_links=False)
    except FileNotFoundError:
        raise LibraryError("E-FILE", f"{path.name} is missing.") from None
    except OSError as error:
        if error.errno in FORBIDDEN:
            raise LibraryError("E-PERM", f"{path.name} can't be read: {error.strerror}.") from None
        message = f"{path.name} is not a regular file."
        raise LibraryError("E-PATH", message, "Copy the real file there (cp -L), not a link.") from None


def identity(path: Path) -> tuple[int, int] | None:
    """Tell a file or directory from those that come in its place; None if there is none."""
    try:
        found = os.stat(path, follow_symlinks=False)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def signature(path: Path | int) -> tuple[int, ...]:
    """Tell a file from those that come in its place and from what is made of it: equal ones are of the same bytes.

    Unequal ones may be, too: a hard link, a chmod or a touch changes the times of a file and none of its bytes.
    A number stands for an open file, which keeps what it is of when another comes in its place.
    """
    found = os.fstat(path) if isinstance(path, int) else os.stat(path, follow_symlinks=False)
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def near_path(path: Path) -> str:
    """Say what stands beside a path that isn't there and is called nearly so; nothing if that's nothing."""
    with contextlib.suppress(OSError, ValueError):
        siblings = [] if os.path.lexists(path) else sorted(sibling.name for sibling in path.parent.iterdir())
        if near := difflib.get_close_matches(path.name, siblings, n=1, cutoff=0.6):
            return f"Did you mean {str(path.parent / near[0])!r}?"
    return ""


def read_capped(path: Path, max_bytes: int, code: str) -> bytes:
    """Read a small regular file. Raises `code` when it is larger than `max_bytes`, and as `open_regular`."""
    with open_regular(path) as file:
        data = file.read(max_bytes + 1)
        if len(data) > max_bytes:
            size = os.fstat(file.fileno()).st_size
            raise error_of(code, f"{path.name} has {size:,} bytes, the limit is {max_bytes:,}.")
    return data


def files_below(directory: Path) -> list[Path]:
    """List all files in a directory and its folders, in order of their paths."""
    return [path for path in sorted(directory.rglob("*")) if path.is_file()]


def is_plain_directory(path: Path) -> bool:
    """Tell whether `path` is a directory itself, not a link to one."""
    return path.is_dir() and not path.is_symlink()


def require_plain_directory(path: Path) -> None:
    """Raise E-PATH for what is there and no directory itself: through a link we would write and delete elsewhere."""
    try:
        mode = path.lstat().st_mode  # asked once: another process may make it in between
    except OSError:  # it isn't there; or nobody may look, and then nobody may write
        return
    if stat.S_ISDIR(mode):
        return
    what = "a link" if stat.S_ISLNK(mode) else "no directory"
    hint = "Look at it and remove it: nothing is written or deleted outside a library."
    raise LibraryError("E-PATH", f"{quote(str(path), 200)} is {what}, expected a directory of its own.", hint)
