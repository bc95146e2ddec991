"""Tasks as files."""

import json

import pytest


@pytest.fixture
def data_of_three_tasks(toy, tmp_path):
    """A directory with the test parts of three toy tasks: a library needs no more to be routed."""
    (tmp_path / "tasks").mkdir()
    for name in ("copy", "swap", "upper"):
        rows = [{"prompt": e.prompt, "completion": e.completion} for e in toy[name].test]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / "tasks" / f"{name}.test.jsonl").write_text(text, encoding="utf-8")
    return tmp_path / "tasks"
