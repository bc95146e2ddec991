"""Fields that benchmarks' rows have: options, and which of them is right."""

from collections.abc import Mapping
from typing import Any

from lorary.errors import TaskError
from lorary.tasks.example import short
from lorary.tasks.rows.fields import Row, needed, row_error, text, wrong_type

_LETTERS = {"1": "A", "2": "B", "3": "C", "4": "D", "5": "E"}


def filled(row: Row, key: str) -> str:
    """Give a field that must be a text with more than blanks. Raises E-DATA."""
    return text(row, key, needed(row, key))


def options_of(row: Row, key: str) -> tuple[str, ...]:
    """Give a field that must be a list of two texts or more. Raises E-DATA."""
    value = needed(row, key)
    if not isinstance(value, list) or len(value) < 2:
        raise wrong_type(row, key, "a list of at least two texts", value)
    return tuple(text(row, key, option) for option in value)


def index_of(row: Row, key: str, n: int, *, first: int = 0) -> int:
    """Give the place, from 0, of the right one of n options; the field counts from `first`, and may be a text.

    Raises E-DATA for what is no such number, as the -1 or the empty text of a part whose answers are kept back.
    """
    value = needed(row, key)
    known = list(range(first, first + n))
    if isinstance(value, str) and value.strip() in map(str, known):
        value = int(value)
    if isinstance(value, bool) or value not in known:
        raise _no_answer(row, key, f"a number from {first} to {known[-1]}", value)
    return known.index(value)


def lettered(row: Row) -> tuple[tuple[str, ...], int]:
    """Give options and the right one's place: `choices` a list and `label`, or {text, label} and `answerKey`.

    The letters of options may be written as numbers: 1 is A. Raises E-DATA.
    """
    if not isinstance(row.values.get("choices"), Mapping):
        choices = options_of(row, "choices")
        return choices, index_of(row, "label", len(choices))
    found: Mapping[str, Any] = row.values["choices"]
    inner = Row(found, row.place, row.task, row.part)
    choices = options_of(inner, "text")
    letters = [_letter(letter) for letter in options_of(inner, "label")]
    key = row.values.get("answerKey")
    if len(letters) != len(choices):
        what = f"'choices' has {len(choices)} texts and {len(letters)} labels."
        raise row_error(row, what, "Give each option one letter.")
    if not isinstance(key, str) or _letter(key) not in letters:
        raise _no_answer(row, "answerKey", f"one of {', '.join(letters)}", key)
    return choices, letters.index(_letter(key))


def _letter(text: str) -> str:
    plain = text.strip()
    return _LETTERS.get(plain, plain)


def _no_answer(row: Row, key: str, expected: str, value: Any) -> TaskError:
    hint = "The answers of some test parts aren't public: use the part that benchmark scores."
    return row_error(row, f"{key!r} is {short(value)}, expected {expected}.", hint)
