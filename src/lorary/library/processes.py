"""Who this process is to others that share a directory, and whether another one still runs."""

import os
import platform
from functools import cache
from pathlib import Path

from lorary.hashing import short_key


def host() -> str:
    """Name this host in letters that a file name may hold."""
    return "".join(letter for letter in platform.node() if letter.isalnum() or letter == "-") or "localhost"


@cache
def place() -> str:
    """Name where a process id of ours means something: this host since its last start, this container's processes.

    Two containers may share a host's name; then one can't see the other's processes, and must not think them dead.
    """
    return short_key(host(), _read("/proc/sys/kernel/random/boot_id"), _link("/proc/self/ns/pid"))


def is_running(pid: int) -> bool:
    """Tell whether a process of this place still runs; True where that can't be asked. A zombie doesn't run."""
    if os.name != "posix":  # os.kill(pid, 0) asks on posix, and kills on Windows
        return True
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return _read(f"/proc/{pid}/stat").rpartition(")")[2].split()[:1] not in (["Z"], ["X"])


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:  # not Linux
        return ""


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""
