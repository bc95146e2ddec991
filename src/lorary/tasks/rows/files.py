"""Where rows come from: files of several formats and `datasets` objects, one row at a time, each with its place."""

import glob
import gzip
import os
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO, TypeAlias, cast

from lorary.disk.reading import near_path, open_file
from lorary.errors import TaskError
from lorary.tasks.example import short
from lorary.tasks.rows.arrow_rows import Dataset, dataset_rows, parquet_rows
from lorary.tasks.rows.csv_rows import csv_rows, tsv_rows
from lorary.tasks.rows.fields import Placed, Row
from lorary.tasks.rows.hub_rows import SCHEME, hub_rows
from lorary.tasks.rows.json_rows import holds_rows, json_line_rows, json_rows
from lorary.tasks.rows.names import name_and_part

Source: TypeAlias = "str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | Dataset | Mapping[str, Dataset]"

_FORMATS: dict[str, Callable[[BinaryIO, Path], Placed]] = {
    ".jsonl": json_line_rows, ".json": json_rows, ".csv": csv_rows, ".tsv": tsv_rows,
}  # fmt: skip
"""Formats that are read from a stream of bytes, which may be gzipped."""
Opened: TypeAlias = Callable[[BinaryIO], None]

SUFFIXES = (*_FORMATS, *(f"{suffix}.gz" for suffix in _FORMATS), ".parquet")


EXPECTED = f"{', '.join(_FORMATS)} (each also with .gz) or .parquet"


def rows_of(source: Source) -> Iterator[Row]:
    """Go through all rows of a source, in order of files and lines. Raises E-DATA for what isn't a row."""
    if is_dataset(source):
        if isinstance(source, Mapping):
            for split in source:
                yield from dataset_rows(source[split], str(split))
        else:
            dataset = cast(Dataset, source)
            yield from dataset_rows(dataset, str(getattr(dataset, "split", None) or ""))
        return
    yield from rows_at(places_of(source))


def is_dataset(source: Source) -> bool:
    """Tell a `datasets` object from what names files."""
    return hasattr(source, "column_names")


def rows_at(places: Sequence[Path | str], opened: Opened | None = None) -> Iterator[Row]:
    """Go through all rows of files and of names of the Hub; `opened` hears of each file that is begun."""
    for place in places:
        yield from hub_rows(place, SUFFIXES) if isinstance(place, str) else _file_rows(place, opened)


def _file_rows(path: Path, opened: Opened | None) -> Iterator[Row]:
    task, part = name_and_part(path, SUFFIXES)
    empty = True
    for place, values in parquet_rows(path) if path.name.endswith(".parquet") else _streamed_rows(path, opened):
        empty = False
        yield Row(values, place, task, part)
    if empty:
        raise TaskError("E-DATA", f"{path}: the file holds no rows.", "Fill it, or leave it out.")


def _streamed_rows(path: Path, opened: Opened | None) -> Placed:
    read = _FORMATS[Path(path.name.removesuffix(".gz")).suffix]
    try:
        with open_file(path) as plain, gzip.open(plain) if path.name.endswith(".gz") else plain as file:
            if opened is not None:
                opened(plain)
            yield from read(cast(BinaryIO, file), path)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise TaskError("E-DATA", f"{path}: damaged gzip file ({error}).", "Copy or compress it again.") from None
    except OSError as error:
        raise TaskError("E-DATA", f"{path}: can't be read ({error.strerror or error}).") from None


def places_of(source: object) -> list[Path | str]:
    """List the files of a path, a directory, a glob, and names of the Hub, or a list of those.

    Raises E-DATA if there are none.
    """
    if isinstance(source, (list, tuple)):
        if not source:
            raise TaskError("E-DATA", "the list of files is empty.", "Name at least one file.")
        return [path for part in source for path in places_of(part)]
    if not isinstance(source, (str, os.PathLike)):
        what = f"can't read tasks from {type(source).__name__}."
        raise TaskError(
            "E-DATA", what, "Give a path, a glob, hf://datasets/USER/NAME, a list of these, or a datasets object."
        )
    if str(source).startswith(SCHEME):
        return [str(source)]
    try:
        return _files_at(Path(source), str(source))
    except OSError as error:
        where = short(str(source))
        raise TaskError("E-DATA", f"{where}: can't be read ({error.strerror or error}).", "Check the path.") from None


def _files_at(path: Path, given: str) -> list[Path | str]:
    if path.is_dir():
        names = [p for p in sorted(path.iterdir()) if p.name.endswith(SUFFIXES) and not p.name.startswith(".")]
        found: list[Path | str] = [file for file in map(_checked, names) if not _is_beside(file)]
        if not found:
            raise TaskError("E-DATA", f"{path}: no task files in this directory.", f"Expected {EXPECTED}.")
        return found
    if not path.exists() and glob.has_magic(given):
        matches = sorted(glob.glob(given, recursive=True))
        if not matches:
            raise TaskError("E-DATA", f"{path}: no files match.", "Check the pattern.")
        return [path for match in matches for path in places_of(match)]
    return [_checked(path)]


def _is_beside(file: Path) -> bool:
    """Say whether a file describes the data of its folder, as the Hub's dataset_infos.json, and holds none itself."""
    return file.name.endswith(".json") and not holds_rows(file)


def _checked(path: Path) -> Path:
    if not path.exists():
        raise TaskError("E-DATA", f"{path}: no such file or directory.", near_path(Path(path)) or "Check the path.")
    if not path.is_file():  # reading a pipe or a device would hang
        raise TaskError("E-DATA", f"{path}: not a regular file.", f"Expected {EXPECTED}.")
    if not path.name.endswith(SUFFIXES):
        raise TaskError("E-DATA", f"{path}: unknown format.", f"Expected {EXPECTED}.")
    return path
