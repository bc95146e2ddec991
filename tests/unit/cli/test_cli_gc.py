"""`lorary gc` collects what killed processes left, and nothing else."""

import json
import os
import time

import pytest

from lorary.cli.main import main
from lorary.cli.printing.reading_lines import ReadingLines
from lorary.disk.processes import SAFE_AGE_S, marked, place
from lorary.tasks import on_disk
from lorary.tasks.read import read_tasks
from lorary.tasks.telling import telling
from lorary.testing.pico import random_library

LIVING, DEAD = marked("e8"), f"e9.{place()}-999999999-1.0123abcd"


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as ended:
        main(["gc", *map(str, arguments)])
    return ended.value.code or 0, capsys.readouterr().out


@pytest.fixture
def littered(base, tmp_path):
    library = random_library(tmp_path / "lib", base, 2)
    dead = library.layout.staging / DEAD
    dead.mkdir(parents=True)
    (dead / "adapter_config.json").write_text("{}")
    living = library.layout.staging / LIVING
    living.mkdir()
    for folder in (library.layout.derived, library.layout.learned):
        folder.mkdir()
        for name in (".arrow-old.1234.safetensors", ".arrow-new.1234.safetensors", "arrow-0123.safetensors"):
            (folder / name).write_bytes(b"x")
        os.utime(folder / ".arrow-old.1234.safetensors", (0, time.time() - SAFE_AGE_S - 60))
    return library


def left(library):
    folders = (library.layout.staging, library.layout.derived, library.layout.learned)
    return [f"{folder.name}/{path.name}" for folder in folders for path in sorted(folder.iterdir())]


def test_what_the_dead_left_goes(littered, capsys):
    code, out = run(capsys, littered.path, "--json")
    assert code == 0
    old = "removed .arrow-old.1234.safetensors"
    assert json.loads(out)["done"] == [f"removed {DEAD}", old, old]
    assert left(littered) == [
        f".staging/{LIVING}",
        "derived/.arrow-new.1234.safetensors", "derived/arrow-0123.safetensors",
        "learned/.arrow-new.1234.safetensors", "learned/arrow-0123.safetensors",
    ]  # fmt: skip
    assert run(capsys, littered.path) == (0, f"{littered.path}: nothing to collect\n")


def test_states_go_if_that_is_wanted_and_what_was_learned_stays(littered, capsys):
    assert "removed arrow-0123.safetensors" in run(capsys, littered.path, "--states")[1]
    assert [path for path in left(littered) if "0123" in path] == ["learned/arrow-0123.safetensors"]


def test_tasks_in_the_cache_go_when_they_are_old_or_that_is_wanted(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("LORARY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(on_disk, "LARGE_BYTES", 1)
    monkeypatch.setattr(on_disk, "_TELL_EVERY", 1)
    (tmp_path / "words.jsonl").write_text('{"prompt": "p", "completion": "c"}\n' * 20)
    with telling(ReadingLines()):
        read_tasks(tmp_path)
    assert "reading tasks, MB: 0/1\n" in capsys.readouterr().err
    home = tmp_path / "cache" / "tasks"
    assert run(capsys) == (0, f"{home.parent}: nothing to collect\n")
    code, out = run(capsys, "--tasks", "--json")
    assert code == 0 and json.loads(out)["library"] is None
    assert [name.startswith("removed tasks ") for name in json.loads(out)["done"]] == [True, True]
    assert list(home.iterdir()) == []
