"""Files and data sets -> Tasks."""

import hashlib
from collections.abc import Iterable

from lorary.tasks.example import Example
from lorary.tasks.files import Source, rows_of
from lorary.tasks.rows import example_of, part_of
from lorary.tasks.task import Task, Tasks


def read_tasks(source: Source, *, only: Iterable[str] | None = None) -> Tasks:
    """Read tasks from a directory, a glob, a file, a list of those, or a `datasets` object.

    Rows: see `lorary.tasks.rows`. A row's task is its `task` or `task_name`, else the file's name; its part is its
    `split`, else the end of the file's name ("race.train.jsonl"), else goes by a hash of the prompt (80/10/10), so that
    one prompt never stands in two parts. `only`: keep these tasks. No row is ever left out: the first that can't be
    read raises E-DATA with file and line. Parquet without pyarrow raises E-EXTRA; an unknown name in `only` E-TASK.
    """
    found: dict[str, dict[str, list[Example]]] = {}
    for row in rows_of(source):
        example = example_of(row)
        part = part_of(row) or split_by_hash(example)
        found.setdefault(example.task, {}).setdefault(part, []).append(example)
    tasks = Tasks(Task(name, **{part: tuple(rows) for part, rows in parts.items()}) for name, parts in found.items())
    return tasks if only is None else tasks.only(only)


def split_by_hash(example: Example) -> str:
    """Say which part an example goes to, by its whole prompt alone: 80 % train, 10 % valid, 10 % test."""
    share = int.from_bytes(hashlib.sha256(example.whole_prompt.encode()).digest()[:4]) / 2**32
    return "train" if share < 0.8 else "valid" if share < 0.9 else "test"
