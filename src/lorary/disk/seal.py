"""Seals that only this user's own lorary can set, so that files of other origin are recognised.

The key is 32 random bytes in a file of the user's own that nobody else may read: lorary/key in $XDG_CONFIG_HOME (or
~/.config), else in lorary's cache. It never leaves this machine and its user. If it is lost, a new one is made; what
was sealed before then counts as a stranger's, and is made again. Where no such file can be, a process has a key of its
own.
"""

import contextlib
import hashlib
import hmac
import os
import secrets
from functools import cache
from pathlib import Path

from lorary.disk.processes import beside, collect_beside
from lorary.disk.reading import NOT_REGULAR, cache_directory, open_file
from lorary.hashing import hash_json

_BYTES = 32
_NOBODY_ELSE = 0o600


def seal(*about: object) -> str:
    """Seal facts (what `hash_json` takes) with this user's key: hex."""
    return hmac.new(_key(_places()), hash_json(list(about)).encode(), hashlib.sha256).hexdigest()


def is_sealed(told: str | None, *about: object) -> bool:
    """Tell whether `told` is this user's seal of these facts."""
    return told is not None and hmac.compare_digest(told.encode("utf-8", "replace"), seal(*about).encode())


def sealer() -> str:
    """Name this user's key, in 8 hex digits that tell nothing of it."""
    return hashlib.sha256(b"lorary sealer" + _key(_places())).hexdigest()[:8]


def has_lasting_key() -> bool:
    """Tell whether this user's key is in a file, so that other processes have the same one."""
    key = _key(_places())
    for place in _places():
        with contextlib.suppress(OSError):
            if _read(place) == key:
                return True
    return False


def _places() -> tuple[Path, ...]:
    """List where the key may be, the best place first. In a cache that users share, each has a file of their own."""
    mine = f"key-{os.geteuid()}" if hasattr(os, "geteuid") else "key"
    found = [cache_directory() / mine]
    with contextlib.suppress(RuntimeError):  # nobody's home
        home = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
        found.insert(0, Path(home) / "lorary" / "key")
    return tuple(found)


@cache
def _key(places: tuple[Path, ...]) -> bytes:
    for place in places:
        with contextlib.suppress(OSError):
            if key := _read(place):
                return key
    for place in places:
        with contextlib.suppress(OSError):
            _make(place)
            if key := _read(place):
                return key
    return secrets.token_bytes(_BYTES)


def _read(place: Path) -> bytes | None:
    """Read a key that is private: a plain file of this user's that nobody else can read; None for anything else."""
    try:
        file = open_file(place, through_links=False)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno == NOT_REGULAR:
            return None
        raise
    with file:
        found = os.fstat(file.fileno())
        is_private = os.name != "posix" or (found.st_uid == os.geteuid() and not found.st_mode & 0o077)
        if not is_private:
            return None
        key = file.read(_BYTES + 1)
    return key if len(key) == _BYTES else None


def _make(place: Path) -> None:
    """Put a key there, in the place of what isn't one. Of processes that do so at once, one is first."""
    place.parent.mkdir(parents=True, exist_ok=True)
    arriving = beside(place)
    descriptor = os.open(arriving, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), _NOBODY_ELSE)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(_BYTES))
            file.flush()
            os.fsync(file.fileno())
        if os.path.lexists(place) and _read(place) is None:
            os.replace(arriving, place)
        else:
            _put(arriving, place)
    finally:
        arriving.unlink(missing_ok=True)
    collect_beside(place.parent)


def _put(arriving: Path, place: Path) -> None:
    try:
        os.link(arriving, place)  # unlike a rename, it never takes the place of another process's
    except FileExistsError:
        pass
    except OSError:  # a disk without hard links
        os.replace(arriving, place)
