"""JSON with one meaning: UTF-8, unique keys, finite numbers, shallow."""

import json
import math
import sys
from collections import Counter
from typing import Any, NoReturn

from lorary.errors import error_of, quote

MAX_DEPTH = 32


class _RefusedError(ValueError):
    """Valid for the json module, but ambiguous or not finite."""


class DoubleKeyError(_RefusedError):
    """An object gives a key twice, so that it is anybody's guess what it says."""

    def __init__(self, key: str) -> None:
        self.key = key
        super().__init__(f"key {quote(key)} is given twice")


def parse_object(data: bytes, called: str, code: str) -> dict[str, Any]:
    """Parse bytes that must be one JSON object; `called` names the file in messages.

    Raises `code` for a BOM, bad UTF-8, bad syntax (line:column), a key given twice,
    NaN or Infinity, whole numbers that no float can hold, nesting over 32 and lone surrogates.
    """
    value = _parse_all(data, called, code)
    if not isinstance(value, dict):
        raise error_of(code, f"{called} holds a {type(value).__name__}, expected an object.")
    return value


def parse_array(data: bytes, called: str, code: str) -> list[Any]:
    """Parse bytes that must be one JSON array, as strictly as `parse_object`."""
    value = _parse_all(data, called, code)
    if not isinstance(value, list):
        raise error_of(code, f"{called} holds a {type(value).__name__}, expected an array.")
    return value


def _parse_all(data: bytes, called: str, code: str) -> Any:
    value = _parse(_decode(data, called, code), called, code)
    if is_deep(value):
        raise error_of(code, f"{called} is nested deeper than {MAX_DEPTH} levels.")
    if b"\\ud" in data.lower():
        _refuse_surrogates(value, called, code)
    return value


def _decode(data: bytes, called: str, code: str) -> str:
    if data.startswith(b"\xef\xbb\xbf"):
        raise error_of(code, f"{called} starts with a byte order mark (BOM).", "Save it as plain UTF-8.")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise error_of(code, f"{called} is not UTF-8 (byte {error.start:,}).", "Save it as UTF-8.") from None


def _parse(text: str, called: str, code: str) -> Any:
    try:
        return json.loads(
            text, object_pairs_hook=unique_keys, parse_constant=_no_constant, parse_float=_finite, parse_int=_whole
        )
    except json.JSONDecodeError as error:
        where = f"{called}:{error.lineno}:{error.colno}"
        raise error_of(code, f"{where} is not JSON: {error.msg.lower()}.") from None
    except RecursionError:
        raise error_of(code, f"{called} is nested deeper than {MAX_DEPTH} levels.") from None
    except _RefusedError as error:
        raise error_of(code, f"{called}: {error}.") from None
    except ValueError:  # Python refuses integers of over 4,300 digits
        raise error_of(code, f"{called} holds an integer with too many digits.") from None


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, object]:
    """Make an object of its pairs, for `json.loads(object_pairs_hook=...)`. Raises DoubleKeyError, a ValueError."""
    result = dict(pairs)
    if len(result) != len(pairs):
        counts = Counter(key for key, _ in pairs)
        twice = next(key for key, n in counts.items() if n > 1)
        raise DoubleKeyError(twice)
    return result


def _no_constant(name: str) -> NoReturn:
    raise _RefusedError(f"{name} is not a number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise _RefusedError(f"{quote(text)} is not a finite number")
    return value


def _whole(text: str) -> int:
    """Refuse what arithmetic with other numbers would choke on, wherever it comes to that."""
    value = int(text)
    if abs(value) > sys.float_info.max:
        raise _RefusedError(f"a number of {len(text.lstrip('-'))} digits is too large")
    return value


def is_deep(value: object) -> bool:
    """Tell whether lists and objects are nested deeper than 32 levels."""
    level = [value]
    for _ in range(MAX_DEPTH):
        parents = [item for item in level if isinstance(item, dict | list)]
        if not parents:
            return False
        level = [child for item in parents for child in (item.values() if isinstance(item, dict) else item)]
    return True


def is_texts(value: object) -> bool:
    """Tell whether a value is a list of texts."""
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _refuse_surrogates(value: Any, called: str, code: str) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise error_of(code, f"{called} holds half of a surrogate pair (\\ud800 to \\udfff).") from None
