"""Where rows come from: JSONL, gzip JSONL, Parquet and `datasets` objects, one row at a time, each with its place."""

import glob
import gzip
import json
import os
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol, TypeAlias, cast

from lorary.disk import open_regular
from lorary.errors import TaskError
from lorary.tasks.example import short
from lorary.tasks.parquet_limits import batches_within_limits

MAX_LINE_BYTES = 4 << 20  # a longer line is a wrong file, and would fill the memory
SUFFIXES = (".jsonl", ".jsonl.gz", ".parquet")
PARTS = {
    "train": "train",
    "valid": "valid",
    "validation": "valid",
    "val": "valid",
    "dev": "valid",
    "test": "test",
}
# "race.train", "train", and the Hub's "train-00000-of-00002"
_PART_SUFFIX = re.compile(rf"^(?:(?P<name>.*)\.)?(?P<part>{'|'.join(PARTS)})(?:-\d+-of-\d+)?$")


class Dataset(Protocol):
    """What is asked of a Hugging Face dataset, so that nothing needs to be imported."""

    @property
    def column_names(self) -> Any:
        """Present in every dataset; its value isn't looked at."""

    def __iter__(self) -> Iterator[Any]:
        """Go through the rows, each a mapping."""


Source: TypeAlias = "str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | Dataset | Mapping[str, Dataset]"


@dataclass(frozen=True)
class Row:
    """One row as it was found: its place ("x.jsonl:12"), and the task and part that the file's name suggests."""

    values: Mapping[str, Any]
    place: str
    task: str
    part: str | None


def rows_of(source: Source) -> Iterator[Row]:
    """Go through all rows of a source, in order of files and lines. Raises E-DATA for what isn't a row."""
    if hasattr(source, "column_names"):
        if isinstance(source, Mapping):
            for split in source:
                yield from _dataset_rows(source[split], str(split))
        else:
            dataset = cast(Dataset, source)
            yield from _dataset_rows(dataset, str(getattr(dataset, "split", None) or ""))
        return
    for path in files_of(source):
        task, part = _name_and_part(path)
        lines = _parquet_rows(path) if path.name.endswith(".parquet") else _json_rows(path)
        empty = True
        for number, values in lines:
            empty = False
            yield Row(values, f"{path}:{number}", task, part)
        if empty:
            raise TaskError("E-DATA", f"{path}: the file holds no rows.", "Fill it, or leave it out.")


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
        found = [p for p in sorted(path.iterdir()) if p.name.endswith(SUFFIXES) and not p.name.startswith(".")]
        if not found:
            raise TaskError("E-DATA", f"{path}: no task files in this directory.", f"Expected {_one_of(SUFFIXES)}.")
        return [_checked(file) for file in found]
    if not path.exists() and glob.has_magic(given):
        matches = sorted(glob.glob(given, recursive=True))
        if not matches:
            raise TaskError("E-DATA", f"{path}: no files match.", "Check the pattern.")
        return [path for match in matches for path in files_of(match)]
    return [_checked(path)]


def _checked(path: Path) -> Path:
    if not path.exists():
        raise TaskError("E-DATA", f"{path}: no such file or directory.", "Check the path.")
    if not path.is_file():  # reading a pipe or a device would hang
        raise TaskError("E-DATA", f"{path}: not a regular file.", f"Expected {_one_of(SUFFIXES)}.")
    if not path.name.endswith(SUFFIXES):
        raise TaskError("E-DATA", f"{path}: unknown format.", f"Expected {_one_of(SUFFIXES)}.")
    return path


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
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        what = f"{path}: reading Parquet needs pyarrow, which isn't installed."
        raise TaskError("E-EXTRA", what, "Run: pip install 'lorary[data]'.") from None
    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            if twice := sorted({name for name in names if names.count(name) > 1}):
                raise TaskError("E-DATA", f"{path}: column {twice[0]!r} comes twice.", "Rename one of them.")
            for batch in batches_within_limits(file, path):
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
