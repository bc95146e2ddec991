"""A directory with what the pages speak of: flan/, heldout/, tasks/ and zeroshot/."""

import dataclasses
import json
from pathlib import Path

import pytest

from benchmark_rows import HUB, OURS
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
    (tmp_path / "zeroshot").mkdir()
    for name, found in (("piqa", OURS), ("winogrande", HUB)):
        text = "".join(json.dumps(row) + "\n" for row in found[name])
        (tmp_path / "zeroshot" / f"{name}.jsonl").write_text(text, encoding="utf-8")
    return tmp_path
