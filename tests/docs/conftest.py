"""A directory with what the pages speak of: flan/, heldout/ and tasks/."""

import dataclasses
import json
from pathlib import Path

import pytest

from lorary.tasks.toy import toy_tasks


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for folder in ("flan", "heldout", "tasks", "my_tasks"):
        (tmp_path / folder).mkdir()
        for name, task in toy_tasks(8, 2, 2).items():
            for part, examples in (("train", task.train), ("valid", task.valid), ("test", task.test)):
                rows = [{k: v for k, v in dataclasses.asdict(e).items() if k != "task" and v} for e in examples]
                path = tmp_path / folder / f"{name}.{part}.jsonl"
                path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return tmp_path
