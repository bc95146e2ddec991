"""Where rows come from: files of several formats and `datasets` objects, one row at a time, each with its place."""

import glob
import gzip
import os
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias, cast

from lorary.disk import open_regular
from lorary.errors import TaskError
<<<<<<< HEAD
from lorary.tasks.arrow_rows import Dataset, dataset_rows, parquet_rows
from lorary.tasks.csv_rows import csv_rows, tsv_rows
=======
from lorary.extras import require_extra
>>>>>>> fresh
from lorary.tasks.example import short
from lorary.tasks.fields import Placed, Row
from lorary.tasks.json_rows import holds_rows, json_line_rows, json_rows
from lorary.tasks.names import name_and_part

Source: TypeAlias = "str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | Dataset | Mapping[str, Dataset]"

_FORMATS: dict[str, Callable[[BinaryIO, Path], Placed]] = {
    ".jsonl": json_line_rows, ".json": json_rows, ".csv": csv_rows, ".tsv": tsv_rows,
}  # fmt: skip
"""Formats that are read from a stream of bytes, which may be gzipped."""
SUFFIXES = (*_FORMATS, *(f"{suffix}.gz" for suffix in _FORMATS), ".parquet")


EXPECTED = f"{', '.join(_FORMATS)} (each also with .gz) or .parquet"


def rows_of(source: Source) -> Iterator[Row]:
    """Go through all rows of a source, in order of files and lines. Raises E-DATA for what isn't a row."""
    if hasattr(source, "column_names"):
        if isinstance(source, Mapping):
            for split in source:
                yield from dataset_rows(source[split], str(split))
        else:
            dataset = cast(Dataset, source)
            yield from dataset_rows(dataset, str(getattr(dataset, "split", None) or ""))
        return
    for path in files_of(source):
        yield from _file_rows(path)


def _file_rows(path: Path) -> Iterator[Row]:
    task, part = name_and_part(path, SUFFIXES)
    empty = True
    for place, values in parquet_rows(path) if path.name.endswith(".parquet") else _streamed_rows(path):
        empty = False
        yield Row(values, place, task, part)
    if empty:
        raise TaskError("E-DATA", f"{path}: the file holds no rows.", "Fill it, or leave it out.")


def _streamed_rows(path: Path) -> Placed:
    read = _FORMATS[Path(path.name.removesuffix(".gz")).suffix]
    try:
        with open_regular(path) as plain, gzip.open(plain) if path.name.endswith(".gz") else plain as file:
            yield from read(cast(BinaryIO, file), path)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise TaskError("E-DATA", f"{path}: damaged gzip file ({error}).", "Copy or compress it again.") from None
    except OSError as error:
        raise TaskError("E-DATA", f"{path}: can't be read ({error.strerror or error}).") from None


def files_of(source: Any) -> list[Path]:
    """List the files of a path, a directory, a glob or a list of those. Raises E-DATA if there are none."""
    if isinstance(source, (list, tuple)):
        if not source:
            raise TaskError("E-DATA", "the list of files is empty.", "Name at least one file.")
        return [path for part in source for path in files_of(part)]
    if not isinstance(source, (str, os.PathLike)):
        what = f"can't read tasks from {type(source).__name__}."
        raise TaskError("E-DATA", what, "Give a path, a glob, a list of paths, or a datasets object.")
    try:
        return _files_at(Path(source), str(source))
    except OSError as error:
        where = short(str(source))
        raise TaskError("E-DATA", f"{where}: can't be read ({error.strerror or error}).", "Check the path.") from None


def _files_at(path: Path, given: str) -> list[Path]:
    if path.is_dir():
        names = [p for p in sorted(path.iterdir()) if p.name.endswith(SUFFIXES) and not p.name.startswith(".")]
        found = [file for file in map(_checked, names) if not _is_beside(file)]
        if not found:
            raise TaskError("E-DATA", f"{path}: no task files in this directory.", f"Expected {EXPECTED}.")
        return found
    if not path.exists() and glob.has_magic(given):
        matches = sorted(glob.glob(given, recursive=True))
        if not matches:
            raise TaskError("E-DATA", f"{path}: no files match.", "Check the pattern.")
        return [path for match in matches for path in files_of(match)]
    return [_checked(path)]


def _is_beside(file: Path) -> bool:
    """Tell whether a file is about the data of its folder, as the Hub's dataset_infos.json, and holds none itself."""
    return file.name.endswith(".json") and not holds_rows(file)


def _checked(path: Path) -> Path:
    if not path.exists():
        raise TaskError("E-DATA", f"{path}: no such file or directory.", "Check the path.")
    if not path.is_file():  # reading a pipe or a device would hang
        raise TaskError("E-DATA", f"{path}: not a regular file.", f"Expected {EXPECTED}.")
    if not path.name.endswith(SUFFIXES):
        raise TaskError("E-DATA", f"{path}: unknown format.", f"Expected {EXPECTED}.")
    return path
<<<<<<< HEAD
=======


def _one_of(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}"


def _name_and_part(path: Path) -> tuple[str, str | None]:
    suffix = next(s for s in sorted(SUFFIXES, key=len, reverse=True) if path.name.endswith(s))
    stem = path.name.removesuffix(suffix)
    match = _PART_SUFFIX.match(stem)
    if match is None:
        return stem, None
    return match["name"] or path.absolute().parent.name, PARTS[match["part"]]


def _json_rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    try:
        with open_regular(path) as plain, gzip.open(plain) if path.name.endswith(".gz") else plain as file:
            for number, line in _lines(cast(BinaryIO, file), path):
                if line.strip():  # an empty line holds no row, so nothing is lost
                    yield number, _parse(line, f"{path}:{number}")
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise TaskError("E-DATA", f"{path}: damaged gzip file ({error}).", "Copy or compress it again.") from None
    except OSError as error:
        raise TaskError("E-DATA", f"{path}: can't be read ({error.strerror or error}).") from None


def _lines(file: BinaryIO, path: Path) -> Iterator[tuple[int, str]]:
    number = 0
    while line := file.readline(MAX_LINE_BYTES + 1):
        number += 1
        if len(line) > MAX_LINE_BYTES:
            what = f"{path}:{number}: the line is longer than {MAX_LINE_BYTES:,} bytes."
            raise TaskError("E-DATA", what, "Write one JSON object a line.")
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


def _parquet_rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    require_extra("data", f"{path}: reading Parquet", TaskError)
    import pyarrow
    import pyarrow.parquet

    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            if twice := sorted({name for name in names if names.count(name) > 1}):
                raise TaskError("E-DATA", f"{path}: column {twice[0]!r} comes twice.", "Rename one of them.")
            for batch in file.iter_batches():
                for values in _plain_rows(batch, path):
                    number += 1
                    yield number, values
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise TaskError("E-DATA", f"{path}: damaged Parquet file ({reason}).", "Copy or write it again.") from None


def _plain_rows(batch: Any, path: Path) -> Iterator[Mapping[str, Any]]:
    columns = {}
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        try:
            columns[name] = column.to_pylist()
        except (
            ArithmeticError,
            LookupError,
            NotImplementedError,
            ValueError,
        ) as error:  # a date after 9999, a time zone that is none
            what = f"{path}: column {name!r} holds what Python can't: {' '.join(str(error).split())}."
            raise TaskError("E-DATA", what, "Convert it to text, or leave the column out.") from None
    for values in zip(*columns.values(), strict=True):
        yield dict(zip(columns, values, strict=True))


def _dataset_rows(dataset: Dataset, split: str) -> Iterator[Row]:
    task = str(getattr(dataset, "builder_name", None) or "dataset")
    where = f"{task}[{split}]" if split else task
    number = 0
    for values in dataset:
        number += 1
        if not isinstance(values, Mapping):
            what = f"{where}:{number}: expected a mapping, found {type(values).__name__} {short(values)}."
            raise TaskError("E-DATA", what, "Give rows with named fields.")
        yield Row(values, f"{where}:{number}", task, PARTS.get(split))
    if not number:
        raise TaskError("E-DATA", f"{where}: the data set holds no rows.", "Fill it, or leave it out.")
>>>>>>> fresh
