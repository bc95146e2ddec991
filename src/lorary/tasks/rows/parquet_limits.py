"""How large a Parquet file may be when unpacked: a few kilobytes can encode gigabytes of repeating rows."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lorary.errors import LibraryError

SPARE_BYTES = 1 << 26
MOST_TIMES = 100  # what text that people wrote unfolds to is 3 to 20 times as large
_VALUE_BYTES, _ROW_BYTES = 16, 100  # what each takes as it is handed on, whatever is in it
_MOST_ROWS = 1024


def batches_within_limits(file: Any, path: Path) -> Iterator[Any]:
    """Give the batches of an opened Parquet file, none larger than all of them may be. Raises E-LIMIT.

    First by what the file claims, before anything is unpacked, then by what came out so far.
    """
    limit = SPARE_BYTES + MOST_TIMES * path.stat().st_size
    told = file.metadata
    groups = [told.row_group(number) for number in range(told.num_row_groups)]
    chunks = [group.column(number) for group in groups for number in range(told.num_columns)]
    sizes = [chunk.total_uncompressed_size for chunk in chunks]
    least = sum(sizes) + _VALUE_BYTES * sum(chunk.num_values for chunk in chunks) + _ROW_BYTES * told.num_rows
    _require(least, limit, path)
    # No value is larger than the chunk that it stands in, and each row of a batch may repeat it.
    rows = max(1, min(_MOST_ROWS, limit // max([*sizes, 1])))
    unfolded = 0
    for batch in file.iter_batches(batch_size=rows):
        unfolded += batch.nbytes + _ROW_BYTES * batch.num_rows
        _require(unfolded, limit, path)
        yield batch


def _require(size: int, limit: int, path: Path) -> None:
    if size > limit:
        what = f"{path}: {path.stat().st_size:,} bytes unfold to over {limit:,}, more than human text ever does."
        raise LibraryError("E-LIMIT", what, "Leave out what repeats, or write it as .jsonl.gz.")
