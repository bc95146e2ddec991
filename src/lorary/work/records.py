"""What workers tell each other in files, read as strictly as if a stranger had written it: libraries are passed on."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from lorary.disk.reading import read_capped
from lorary.disk.strict_json import parse_array, parse_object
from lorary.errors import LibraryError

MAX_BYTES = 64_000_000
_LAST_SECOND = 1e11  # some three thousand years after 1970: what calendars can still say
T = TypeVar("T")


def read_record(path: Path, kind: Callable[..., T], fields: Mapping[str, Callable[[Any], bool]]) -> T | None:
    """Read a JSON object into a dataclass; None if it isn't there, or isn't whole and sound.

    fields: which values each may have. Those that the file leaves out have their defaults.
    """
    try:
        found = parse_object(read_capped(path, MAX_BYTES, "E-FILE"), path.name, "E-FILE")
        return kind(**found) if all(fields[name](value) for name, value in found.items()) else None
    except (OSError, LibraryError, KeyError, TypeError):
        return None


def read_records(path: Path) -> list[Any]:
    """Read a JSON array; empty if it isn't there, or isn't whole."""
    try:
        return parse_array(read_capped(path, MAX_BYTES, "E-FILE"), path.name, "E-FILE")
    except (OSError, LibraryError):
        return []


def is_text(value: object) -> bool:
    """Accept a string."""
    return isinstance(value, str)


def are_texts(value: object) -> bool:
    """Accept a list of strings."""
    return isinstance(value, list) and all(map(is_text, value))


def is_count(value: object) -> bool:
    """Accept a whole number that a float can hold."""
    return type(value) is int and 0 <= value < 2**53


def is_time(value: Any) -> bool:
    """Accept seconds since 1970, or of a span."""
    return type(value) in (int, float) and 0 <= value <= _LAST_SECOND


def is_flag(value: object) -> bool:
    """Accept true and false."""
    return isinstance(value, bool)


def are_losses(value: object) -> bool:
    """Accept a finite number, or null, for each name."""
    return isinstance(value, dict) and all(
        loss is None or (type(loss) in (int, float) and abs(loss) < math.inf) for loss in value.values()
    )
