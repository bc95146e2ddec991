"""A Parquet file that unfolds to more memory than it could honestly need is refused before it does."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lorary.errors import LibraryError
from lorary.tasks.read import read_tasks

_MOST = 100 << 20
_Y = ["y"] * 200_000


def write(path, **columns):
    pq.write_table(pa.table(columns), path, compression="zstd")
    return path


BOMBS = {
    "many equal rows": lambda: {"prompt": pa.array(["x" * 1000]).take(pa.array([0] * 200_000)), "completion": _Y},
    "few large ones": lambda: {"prompt": ["x" * 500_000] * 400, "completion": _Y[:400]},
    "nothing, often": lambda: {"prompt": pa.nulls(5_000_000, pa.string())},
    "one endless list": lambda: {"messages": pa.array([[0] * 8_000_000])},
}


@pytest.mark.slow
@pytest.mark.parametrize("bomb", BOMBS)
def test_a_small_file_that_stands_for_gigabytes_is_refused(bomb, tmp_path):
    path = write(tmp_path / "task.parquet", **BOMBS[bomb]())
    assert path.stat().st_size < 200_000
    began = pa.total_allocated_bytes()
    with pytest.raises(LibraryError, match=r"^error\[E-LIMIT\] .*task\.parquet: .* bytes unfold to over"):
        read_tasks(str(path))
    assert pa.total_allocated_bytes() - began < _MOST


@pytest.mark.slow
def test_what_people_write_is_read(tmp_path):
    rows = [f"question {n}: what is {n} times {n * 7}?" for n in range(20_000)]
    path = write(tmp_path / "task.parquet", prompt=rows, completion=[str(n % 10) for n in range(20_000)])
    (task,) = read_tasks(str(path)).values()
    assert len(task.train) + len(task.valid) + len(task.test) == 20_000
