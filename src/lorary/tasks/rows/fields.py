"""One row as it was found, and its fields: each is checked, or refused with the row's place."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from lorary.errors import TaskError
from lorary.tasks.example import require_text, short

Placed: TypeAlias = Iterator[tuple[str, Mapping[str, Any]]]
"""The rows of a file, each with its place."""


@dataclass(frozen=True)
class Row:
    """One row as it was found: its place ("x.jsonl:12"), and the task and part that the file's name suggests."""

    values: Mapping[str, Any]
    place: str
    task: str
    part: str | None

    @property
    def keys(self) -> set[str]:
        """The fields that it has; null counts as missing, since tables fill their gaps with it."""
        return {key for key, value in self.values.items() if value is not None}


def needed(row: Row, key: str) -> Any:
    """Give a field that the row must have."""
    value = row.values.get(key)
    if value is None:
        raise missing(row, key)
    return value


def missing(row: Row, key: str) -> TaskError:
    """Say that a field isn't there, or that its value isn't."""
    if key in row.values:
        return row_error(row, f"{key!r} is empty.", "Fill it, or leave the row out.")
    found = ", ".join(map(str, row.values))
    return row_error(row, f"the field {key!r} is missing, found {found}.", "Add it to the row.")


def text(row: Row, key: str, value: object, *, may_be_empty: bool = False) -> str:
    """Give a value that must be a text, with more than blanks unless it may be empty."""
    if not isinstance(value, str):
        raise wrong_type(row, key, "a text", value)
    if not may_be_empty and not value.strip():
        raise row_error(row, f"{key!r} is empty.", "Fill it, or leave the row out.")
    require_text(f"{row.place}: {key!r}", value)
    return value


def optional_text(row: Row, key: str) -> str:
    """Give a field that may be missing or blank: then it is empty."""
    value = row.values.get(key)
    found = "" if value is None else text(row, key, value, may_be_empty=True)
    return found if found.strip() else ""


def texts(row: Row, key: str) -> tuple[str, ...]:
    """Give a needed field that is a text or a list of texts."""
    value = needed(row, key)
    if isinstance(value, list) and value:
        return tuple(text(row, key, answer) for answer in value)
    if not isinstance(value, str):
        raise wrong_type(row, key, "a text or a list of texts", value)
    return (text(row, key, value),)


def json_value(row: Row, key: str, value: object) -> Any:
    """Give a value that must be one of JSON: what a chat template can be given, and a hash be made of."""
    try:
        json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise row_error(row, f"{key!r} holds half a character.", "Fix the row.") from None
    except ValueError:  # whose words differ from one Python to the next
        raise row_error(row, f"{key!r} holds NaN or an infinite number, which JSON has not.", "Fix the row.") from None
    except (TypeError, RecursionError) as error:
        raise row_error(row, f"{key!r} holds no JSON value ({error}).", "Fix the row.") from None
    return value


def wrong_type(row: Row, key: str, expected: str, value: object) -> TaskError:
    """Say that a field is of another type than expected."""
    return row_error(row, f"{key!r} must be {expected}, found {type(value).__name__} {short(value)}.", "Fix the row.")


def row_error(row: Row, what: str, hint: str) -> TaskError:
    """Say what is wrong with a row, and where it is."""
    return TaskError("E-DATA", f"{row.place}: {what}", hint)
