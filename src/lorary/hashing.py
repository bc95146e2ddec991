"""Content hashes of files and options: the names of derived things."""

import dataclasses
import functools
import hashlib
import json
import re
import secrets
from pathlib import Path
from typing import Any, BinaryIO


def hash_file(path: Path) -> str:
    """Hash a file's bytes: sha256 in hex, read in blocks of 1 MiB."""
    with path.open("rb") as file:
        return hash_open(file)


def hash_open(file: BinaryIO) -> str:
    """Hash what is left to read of an open file, as `hash_file` does."""
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


def hash_json(value: object) -> str:
    """Hash a value by its canonical JSON (sorted keys; dataclasses by fields): sha256 in hex.

    What has `json_pieces`, since it is too large to be one text, gives its JSON itself, in pieces.
    """
    large: list[Any] = []
    text = canonical_json(value, large)
    digest = hashlib.sha256()
    for number, inner in enumerate(large):
        before, _, text = text.partition(f'"{_stand_in(number)}"')
        digest.update(before.encode("utf-8", "surrogatepass"))
        for piece in inner.json_pieces():
            digest.update(piece)
    digest.update(text.encode("utf-8", "surrogatepass"))  # paths that aren't UTF-8 hold halves
    return digest.hexdigest()


def canonical_json(value: object, large: list[Any] | None = None) -> str:
    """Write a value as JSON in the one form that is hashed; `large` receives what it can only name."""

    def plain(inner: object) -> Any:
        if large is not None and hasattr(inner, "json_pieces"):
            large.append(inner)
            return _stand_in(len(large) - 1)
        return _plain(inner)

    return json.dumps(value, sort_keys=True, separators=(",", ":"), default=plain, ensure_ascii=False)


_NO_TEXT_HAS_IT = secrets.token_hex(16)


def _stand_in(number: int) -> str:
    return f"{_NO_TEXT_HAS_IT}.{number}"


def short_key(*parts: object) -> str:
    """Name a derived thing by its origins: the first 16 hex digits of their common hash."""
    return hash_json(list(parts))[:16]


def is_short_key(text: str) -> bool:
    """Tell whether a text could be a `short_key`: letters and digits that lead nowhere as a part of a path."""
    return re.fullmatch(r"[0-9a-f]{1,16}", text) is not None


SKIP_DEFAULT = {"skip_default": True}
"""Metadata of a dataclass's field that came later: at its default, hashes are what they were before it came."""
_NEVER = object()


def hashed_fields(value: object) -> dict[str, object]:
    """Give the fields of a dataclass's instance that are hashed and stored, by name and in the order of names."""
    cls: Any = type(value)
    found = ((name, getattr(value, name), default) for name, default in _fields_of(cls))
    return {name: inner for name, inner, default in found if default is _NEVER or inner != default}


@functools.cache
def _fields_of(cls: Any) -> tuple[tuple[str, Any], ...]:
    """List the names of a dataclass's fields, each with the value at which it is left out."""
    return tuple(
        (f.name, default_of(f) if f.metadata.get("skip_default") else _NEVER)
        for f in sorted(dataclasses.fields(cls), key=lambda f: f.name)
    )


def default_of(field: "dataclasses.Field[Any]") -> Any:
    """Give a field's default; MISSING if it has none."""
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return hashed_fields(value)
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no canonical JSON")
