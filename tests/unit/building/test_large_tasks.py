"""Experts that are trained on tasks on disk are those of tasks in memory, to the byte."""

import json

import pytest

from lorary.building.build import build
from lorary.building.builders.poly import Poly
from lorary.building.builders.private import Private
from lorary.model.text import encoded_rows
from lorary.tasks import on_disk
from lorary.tasks.read import read_tasks
from lorary.testing.contracts import files_of

QUICK = {"steps": 3, "batch_size": 2, "rank": 2, "n_evaluations": 1}


@pytest.fixture
def source(tmp_path):
    for name in ("ash", "birch"):
        rows = ({"prompt": f"{name * (i % 3 + 1)} {i}:", "completion": f"{i}"} for i in range(20))
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


@pytest.mark.parametrize("builder", [Private(**QUICK), Poly(n_skills=2, **QUICK)])
def test_experts_are_the_same_to_the_byte(base, source, tmp_path, monkeypatch, builder):
    known = build(builder, read_tasks(source), base, into=tmp_path / "known")
    monkeypatch.setenv("LORARY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(on_disk, "LARGE_BYTES", 1)
    monkeypatch.setattr(encoded_rows, "MOST_IN_MEMORY", 1)
    tasks = read_tasks(source)
    assert not isinstance(tasks["ash"].train, tuple)
    made = build(builder, tasks, base, into=tmp_path / "made")
    for name in known:
        assert files_of(made[name].directory) == files_of(known[name].directory)
