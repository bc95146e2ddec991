"""What must not leave this machine with a library: paths of its disks, and secrets."""

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_PLACE = re.compile(r"(/|~/|[A-Za-z]:[\\/]|\\\\|file:)[^\s]")
"""How a text begins that is a path of somebody's disk."""
_SECRET = re.compile(r"hf_[A-Za-z0-9]{16,}|://[^/\s:@]+:[^/\s@]+@|-----BEGIN [A-Z ]*PRIVATE KEY-----")
_SECRETS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HUGGINGFACEHUB_API_TOKEN")


def what_is_private(text: str) -> str | None:
    """Say what in a text must not leave: a secret, or this user's home directory; None if nothing."""
    given = [value for name in _SECRETS if len(value := os.environ.get(name, "")) > 7]
    if _SECRET.search(text) or any(value in text for value in given):
        return "a password or token"
    return "the path of your home directory" if _home() in text else None


def cleaned(value: Any) -> Any:
    """Copy parsed JSON without entries that are paths of a disk, or hold what is private."""
    if isinstance(value, dict):
        return {key: cleaned(inner) for key, inner in value.items() if not _is_private(inner) and not _is_private(key)}
    if isinstance(value, list):
        return [cleaned(inner) for inner in value if not _is_private(inner)]
    return value


def left_out(value: Any, where: str = "") -> Iterator[str]:
    """Name the entries that `cleaned` leaves out, as in builder.options.path."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in inner:
        name = f"{where}.{key}" if where else str(key)
        if _is_private(one) or _is_private(key):
            yield where or "an entry" if _is_private(key) else name
        else:
            yield from left_out(one, name)


def _is_private(value: Any) -> bool:
    return isinstance(value, str) and (_PLACE.match(value) is not None or what_is_private(value) is not None)


def _home() -> str:
    try:
        home = str(Path.home())
    except RuntimeError:  # nobody's
        return "\0"
    return home if len(home) > 3 else "\0"  # of "/" all would be private
