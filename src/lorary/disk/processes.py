"""Who this process is to others that share a directory, whether another one still runs, and what dead ones left.

Whatever is on its way to its name stands beside it for a while, under a hidden name that bears its writer's mark:
`.<name>.<place>-<pid>-<start>.<token>.tmp`. So whoever writes there next knows what is nobody's any more.
"""

import contextlib
import os
import platform
import re
import secrets
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from lorary.hashing import short_key

WORK = ".work"
"""The folder in which processes that share a directory leave what they need until their work there is done."""
SAFE_AGE_S = 24 * 3600.0
"""What a writer elsewhere hasn't touched for so long is left: from here nobody sees whether it lives."""
_MARK = re.compile(r"\.([0-9a-f]{16})-([0-9]{1,10})-([0-9]{1,20})\.[0-9a-f]{8}(?:\.[a-z0-9]+)*$")
_MOST_LETTERS = 32  # of a name, in a name made of it, which must not become too long for the disk


def host() -> str:
    """Name this host in letters that a file name may hold."""
    return "".join(letter for letter in platform.node() if letter.isalnum() or letter == "-") or "localhost"


@cache
def place() -> str:
    """Name where a process id of ours means something: this host since its last start, this container's processes.

    Two containers may share a host's name; then one can't see the other's processes, and must not think them dead.
    """
    return short_key(host(), _read("/proc/sys/kernel/random/boot_id"), _link("/proc/self/ns/pid"))


def is_running(pid: int, start: int = 0) -> bool:
    """Tell whether a process of this place still runs; True where that can't be asked. A zombie doesn't run.

    start: when it started, as its mark says; another that has its number by now isn't it. 0: unknown.
    """
    if os.name != "posix":  # os.kill(pid, 0) asks on posix, and kills on Windows
        return True
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass
    is_there, began = _look(pid)
    return is_there and (not start or not began or began == start)


def began() -> int:
    """Say when this process started, in the system's ticks; 0 if unknown. With its number it is like no other here."""
    return _began(os.getpid())


@cache
def _began(own: int) -> int:
    return _look(own)[1]  # a child that was forked asks with its own number


def marked(name: str) -> str:
    """Mark a name as this process's, for what is on its way: no two are the same."""
    return f"{name}.{place()}-{os.getpid()}-{began()}.{secrets.token_hex(4)}"


def beside(path: Path) -> Path:
    """Name what is to become `path` by one rename: hidden, in the same directory, marked as ours."""
    return path.with_name(f".{marked(path.name[:_MOST_LETTERS])}.tmp")


def is_marked(name: str) -> bool:
    """Tell whether a name is one that `marked` made, here or elsewhere."""
    return _MARK.search(name) is not None


def is_abandoned(path: Path) -> bool:
    """Tell whether who was writing this is gone: dead as seen from here, or elsewhere and silent for a day.

    Raises FileNotFoundError if it is gone itself.
    """
    found = _MARK.search(path.name)
    if found and found[1] == place() and os.name == "posix":
        return not is_running(int(found[2]), int(found[3]))
    return time.time() - path.lstat().st_mtime > SAFE_AGE_S


def collect_beside(directory: Path) -> list[str]:
    """Delete what writers that are gone left beside what they wrote in a directory; say the names, sorted.

    Never follows a link, and never fails: it is done by the way.
    """
    done = []
    with contextlib.suppress(OSError):
        names = [name for name in os.listdir(directory) if name.startswith(".") and is_marked(name)]
        for path in (directory / name for name in sorted(names)):
            with contextlib.suppress(OSError):
                if is_abandoned(path) and _deleted(path):
                    done.append(path.name)
    return done


@contextlib.contextmanager
def scratch() -> Iterator[Path]:
    """Give a directory for a `with` block, where the system keeps such; take what killed processes left there.

    Raises OSError.
    """
    home = Path(tempfile.gettempdir())
    collect_beside(home)
    folder = beside(home / "lorary")
    folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _deleted(path: Path) -> bool:
    if stat.S_ISDIR(path.lstat().st_mode):
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink()
    return not os.path.lexists(path)


def _look(pid: int) -> tuple[bool, int]:
    """Look whether a process isn't a zombie, and when it started, in the system's ticks; True and 0 if unknown."""
    fields = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    started = fields[19] if len(fields) > 19 else ""
    return fields[:1] not in (["Z"], ["X"]), int(started) if started.isdigit() else 0


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
