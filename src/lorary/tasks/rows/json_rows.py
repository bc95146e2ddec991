"""Rows of JSON lines, and of JSON files that are one list of rows."""

import codecs
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from lorary.disk.strict_json import DoubleKeyError, unique_keys
from lorary.errors import TaskError
from lorary.tasks.rows import natural_instructions
from lorary.tasks.rows.fields import Placed
from lorary.tasks.rows.shapes import is_row

MAX_LINE_BYTES = 4 << 20  # a longer line is a wrong file, and would fill the memory
MAX_JSON_BYTES = 1 << 30  # a whole file of JSON is several times as big in memory


def json_line_rows(file: BinaryIO, path: Path) -> Placed:
    """Go through the objects of a file of JSON lines, each with its place. Raises E-DATA for what is none."""
    hint = "Write one JSON object a line."
    for number, line in lines(file, path, hint):
        if line.strip():  # an empty line holds no row, so nothing is lost
            place = f"{path}:{number}"
            yield place, _as_row(_parse(line, place, hint), place, hint)


def json_rows(file: BinaryIO, path: Path) -> Placed:
    """Go through the rows of a file of JSON: a list of rows, an object that holds one list of them, or JSON lines.

    A table may also be written column by column.
    What an object says beside its list, it says of each row. A list is read whole. Raises E-DATA for anything else, and
    for more than 1 GiB.
    """
    first, second = _filled_line(file), _filled_line(file)
    file.seek(0)
    if second and _is_whole_object(first):
        yield from json_line_rows(file, path)
        return
    data = file.read(MAX_JSON_BYTES + 1)
    if len(data) > MAX_JSON_BYTES:
        what = f"{path}: the file has more than {MAX_JSON_BYTES:,} bytes."
        raise TaskError("E-DATA", what, "Write it as JSON lines (.jsonl), which are read one by one.")
    hint = "Write a list of objects, or JSON lines."
    if not data.strip():
        return
    content = _parse(decoded(data, str(path)), str(path), hint)
    for number, values in enumerate(_rows_in(content, str(path)), start=1):
        place = f"{path}[{number}]"
        yield place, _as_row(values, place, hint)


def _filled_line(file: BinaryIO) -> bytes:
    while line := file.readline(MAX_LINE_BYTES):
        if line.removeprefix(codecs.BOM_UTF8).strip():
            break
    return line


def _is_whole_object(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line.decode("utf-8-sig")), dict)
    except (ValueError, RecursionError):
        return False


def _rows_in(content: Any, where: str) -> list[Any]:
    if isinstance(content, list):
        return content
    if not isinstance(content, Mapping):
        found = type(content).__name__
        raise TaskError("E-DATA", f"{where}: expected a list of rows, found {found}.", "Write a list of objects.")
    if is_row(content):
        return _by_columns(content) or [content]
    if natural_instructions.is_task(content):
        beside = natural_instructions.said_of_all(content, where)
        return [_with_fields(row, beside) for row in content[natural_instructions.ROWS]]
    lists = [key for key, value in content.items() if isinstance(value, list) and value and _are_objects(value)]
    if len(lists) != 1:
        found = f"{len(lists)} of them ({', '.join(map(repr, lists))})" if lists else "none"
        what = f"{where}: expected an object that holds one list of rows, found {found}."
        raise TaskError("E-DATA", what, "Write the list alone.")
    beside = {key: value for key, value in content.items() if key != lists[0]}
    return [_with_fields(row, beside) for row in content[lists[0]]]


def _by_columns(content: Mapping[str, Any]) -> list[Any]:
    """Turn a table that is written column by column, as pandas does it, into rows; nothing of what is one row."""
    columns = list(content.values())
    if all(isinstance(column, Mapping) for column in columns):  # {"prompt": {"0": ...}, ...}
        same = all(column.keys() == columns[0].keys() for column in columns)
        return [{name: content[name][key] for name in content} for key in columns[0]] if same else []
    if not all(
        isinstance(column, list) and not any(isinstance(cell, Mapping) for cell in column) for column in columns
    ):
        return []
    same = len({len(column) for column in columns}) == 1
    return [dict(zip(content, cells, strict=True)) for cells in zip(*columns, strict=True)] if same else []


def _with_fields(row: Any, beside: Mapping[str, Any]) -> Any:
    """Give a row what its file says beside the list of rows; of a field that both have, neither is lost."""
    if not beside or not isinstance(row, Mapping):  # what is no row is refused with its place
        return row
    return {**{f"{key} of the file" if key in row else key: value for key, value in beside.items()}, **row}


def _are_objects(values: list[Any]) -> bool:
    return all(isinstance(value, Mapping) for value in values)


def holds_rows(path: Path) -> bool:
    """Tell whether a JSON file in a folder of tasks is meant to be read: not one object of settings.

    What can't be read is meant to be: its reader says what is wrong.
    """
    try:
        if path.stat().st_size > MAX_JSON_BYTES:
            return True
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return True
    return (
        not isinstance(content, Mapping)
        or is_row(content)
        or any(isinstance(value, list) and value and _are_objects(value) for value in content.values())
    )


def lines(file: BinaryIO, path: Path, hint: str) -> Iterator[tuple[int, str]]:
    """Go through the lines of a file as text, with their numbers. Raises E-DATA for too long ones, and for no UTF-8."""
    number = 0
    while line := file.readline(MAX_LINE_BYTES + 1):
        number += 1
        if len(line) > MAX_LINE_BYTES:
            what = f"{path}:{number}: the line is longer than {MAX_LINE_BYTES:,} bytes."
            raise TaskError("E-DATA", what, hint)
        yield number, decoded(line, f"{path}:{number}", "line", is_first=number == 1)


def decoded(data: bytes, place: str, of: str = "file", *, is_first: bool = True) -> str:
    """Read bytes as UTF-8, a byte order mark left out. Raises E-DATA with the place of the first that isn't."""
    try:
        return data.decode("utf-8-sig" if is_first else "utf-8")
    except UnicodeDecodeError as error:
        what = f"{place}: not UTF-8 (byte {error.start + 1} of the {of} is 0x{data[error.start]:02x})."
        raise TaskError("E-DATA", what, "Save the file as UTF-8.") from None


def _parse(text: str, place: str, hint: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=unique_keys)
    except json.JSONDecodeError as error:
        line = f"line {error.lineno}, " if error.lineno > 1 else ""
        raise TaskError("E-DATA", f"{place}: not JSON: {error.msg} at {line}column {error.colno}.", hint) from None
    except RecursionError:
        raise TaskError("E-DATA", f"{place}: not a row: nested too deeply.", "Write one flat object a line.") from None
    except DoubleKeyError as error:
        raise TaskError("E-DATA", f"{place}: not a row: key {error.key!r} comes twice.") from None
    except ValueError as error:  # a number of thousands of digits
        raise TaskError("E-DATA", f"{place}: not a row: {error}.") from None


def _as_row(values: Any, place: str, hint: str) -> Mapping[str, Any]:
    if not isinstance(values, dict):
        found = type(values).__name__
        raise TaskError("E-DATA", f"{place}: expected a JSON object, found {found}.", hint)
    return values
