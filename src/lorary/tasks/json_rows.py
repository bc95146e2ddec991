"""Rows of JSON lines, gzipped or not."""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from lorary.errors import TaskError

MAX_LINE_BYTES = 4 << 20  # a longer line is a wrong file, and would fill the memory


def json_line_rows(file: BinaryIO, path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Go through the objects of a file of JSON lines, each with its place. Raises E-DATA for what is none."""
    for number, line in lines(file, path, "Write one JSON object a line."):
        if line.strip():  # an empty line holds no row, so nothing is lost
            yield f"{path}:{number}", _parse(line, f"{path}:{number}")


def lines(file: BinaryIO, path: Path, hint: str) -> Iterator[tuple[int, str]]:
    """Go through the lines of a file as text, with their numbers. Raises E-DATA for too long ones, and for no UTF-8."""
    number = 0
    while line := file.readline(MAX_LINE_BYTES + 1):
        number += 1
        if len(line) > MAX_LINE_BYTES:
            what = f"{path}:{number}: the line is longer than {MAX_LINE_BYTES:,} bytes."
            raise TaskError("E-DATA", what, hint)
        try:
            yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            what = f"{path}:{number}: not UTF-8 (byte {error.start + 1} of the line is 0x{line[error.start]:02x})."
            raise TaskError("E-DATA", what, "Save the file as UTF-8.") from None


def _parse(line: str, place: str) -> Mapping[str, Any]:
    try:
        values = json.loads(line, object_pairs_hook=_unique)
    except json.JSONDecodeError as error:
        hint = "Write one JSON object a line."
        raise TaskError("E-DATA", f"{place}: not JSON: {error.msg} at column {error.colno}.", hint) from None
    except RecursionError:
        raise TaskError("E-DATA", f"{place}: not a row: nested too deeply.", "Write one flat object a line.") from None
    except ValueError as error:  # a key that comes twice, or a number of thousands of digits
        raise TaskError("E-DATA", f"{place}: not a row: {error}.") from None
    if not isinstance(values, dict):
        found = type(values).__name__
        raise TaskError("E-DATA", f"{place}: expected a JSON object, found {found}.", "Write one JSON object a line.")
    return values


def _unique(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, value in pairs:
        if key in values:
            raise ValueError(f"key {key!r} comes twice")
        values[key] = value
    return values
