"""Rows of Parquet files and of `datasets` objects, which are tables of Arrow."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from lorary.errors import TaskError
from lorary.extras import require_extra
from lorary.tasks.example import short
from lorary.tasks.rows.fields import Placed, Row
from lorary.tasks.rows.names import part_of_split
from lorary.tasks.rows.parquet_limits import batches_within_limits


class Dataset(Protocol):
    """What is needed of a Hugging Face dataset, so that nothing has to be imported."""

    @property
    def column_names(self) -> Any:
        """Present in every dataset; its value isn't looked at."""

    def __iter__(self) -> Iterator[Any]:
        """Go through the rows, each a mapping."""


def parquet_rows(path: Path) -> Placed:
    """Go through the rows of a Parquet file, each with its place. Raises E-DATA, and E-EXTRA without pyarrow."""
    require_extra("data", f"{path}: reading Parquet")
    import pyarrow
    import pyarrow.parquet

    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            if twice := sorted({name for name in names if names.count(name) > 1}):
                raise TaskError("E-DATA", f"{path}: column {twice[0]!r} comes twice.", "Rename one of them.")
            for batch in batches_within_limits(file, path):
                for values in _plain_rows(batch, path):
                    number += 1
                    yield f"{path}:{number}", values
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise TaskError("E-DATA", f"{path}: damaged Parquet file ({reason}).", "Copy or write it again.") from None


def _plain_rows(batch: Any, path: Path) -> Iterator[Mapping[str, Any]]:
    columns = {}
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        try:
            columns[name] = [without_gaps(value) for value in column.to_pylist()]
        except (
            ArithmeticError,
            LookupError,
            NotImplementedError,
            ValueError,
        ) as error:  # a date after 9999, a time zone that is none
            what = f"{path}: column {name!r} holds values that Python can't represent: {' '.join(str(error).split())}."
            raise TaskError("E-DATA", what, "Convert it to text, or leave the column out.") from None
    for values in zip(*columns.values(), strict=True):
        yield dict(zip(columns, values, strict=True))


def dataset_rows(dataset: Dataset, split: str, task: str = "") -> Iterator[Row]:
    """Go through the rows of a `datasets` object. `task`: its name, if it doesn't say so itself. Raises E-DATA."""
    task = task or str(getattr(dataset, "builder_name", None) or "dataset")
    where = f"{task}[{split}]" if split else task
    part, number = part_of_split(split), 0
    for values in dataset:
        number += 1
        if not isinstance(values, Mapping):
            what = f"{where}:{number}: expected a mapping, found {type(values).__name__} {short(values)}."
            raise TaskError("E-DATA", what, "Give rows with named fields.")
        plain = {key: without_gaps(value) for key, value in values.items()}
        yield Row(plain, f"{where}:{number}", task, part)
    if not number:
        raise TaskError("E-DATA", f"{where}: the data set holds no rows.", "Fill it, or leave it out.")


def without_gaps(value: object) -> Any:
    """Drop the nulls inside a value: Arrow gives every mapping of a column all the keys that any of them has."""
    if isinstance(value, Mapping):
        return {key: without_gaps(inner) for key, inner in value.items() if inner is not None}
    if isinstance(value, list):
        return [without_gaps(inner) for inner in value]
    return value
