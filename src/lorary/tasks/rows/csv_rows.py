"""Rows of tables as text: values separated by commas, semicolons or tabs, below a line of names."""

import csv
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from lorary.errors import TaskError
from lorary.tasks.rows.fields import Placed
from lorary.tasks.rows.json_rows import lines

_LONG_CELL = "Is a quotation mark missing before it? Cells of more than 131,072 characters belong in JSON lines."


def csv_rows(file: BinaryIO, path: Path) -> Placed:
    """Go through the rows of a .csv, each with its line; an empty cell is no field. Raises E-DATA for broken ones.

    The line of names decides between commas and semicolons, which some spreadsheets write.
    """
    return _rows(file, path, lambda names: ";" if ";" in names and "," not in names else ",")


def tsv_rows(file: BinaryIO, path: Path) -> Placed:
    """Go through the rows of a .tsv, as `csv_rows`."""
    return _rows(file, path, lambda _: "\t")


def _rows(file: BinaryIO, path: Path, separator: Callable[[str], str]) -> Placed:
    numbered = lines(file, path, _LONG_CELL)
    line, first = next(((number, text) for number, text in numbered if text.strip()), (1, ""))
    texts = itertools.chain([first], (text for _, text in numbered))
    table, above = csv.reader(texts, delimiter=separator(first), strict=True), line
    names: list[str] = []
    while True:
        place = f"{path}:{line}"
        try:
            cells = next(table, None)
        except csv.Error as error:
            hint = _LONG_CELL if "limit" in str(error) else "Put quotation marks around cells that hold any, doubled."
            raise TaskError("E-DATA", f"{place}: not a row of a table: {error}.", hint) from None
        if cells is None:
            return
        line = table.line_num + above
        if not names:
            names = _names(cells, place)
        elif cells:  # an empty line holds no row
            if len(cells) != len(names):
                what = f"{place}: {len(cells)} cells, expected {len(names)}, one for each name of the first line."
                raise TaskError("E-DATA", what, "Put quotation marks around cells that hold the separator.")
            yield place, {name: cell if cell.strip() else None for name, cell in zip(names, cells, strict=True)}


def _names(cells: list[str], place: str) -> list[str]:
    names = [cell.strip() for cell in cells]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise TaskError("E-DATA", f"{place}: column {twice[0]!r} comes twice.", "Rename one of them.")
    return names
