"""What killed writers left goes when somebody opens the library to write, and nothing else does."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from library_pico import write_adapter

from lorary.disk import processes
from lorary.disk.processes import SAFE_AGE_S, is_running, marked, place, scratch
from lorary.disk.writing import write_whole
from lorary.library import derived, staging
from lorary.library import library as module
from lorary.library.library import Library

DEAD = f"{place()}-999999999-1.0123abcd"
ELSEWHERE = "0123456789abcdef-1-1.0123abcd"

RACES = """
import os, signal, sys, time
from lorary.errors import LoraryError
from lorary.library.library import Library

def replace_and_remove(library):
    while True:
        for name in [f"e{i}" for i in range(4)]:
            for change in (library.replace, library.add):
                try:
                    change(sys.argv[2], name)
                except LoraryError as error:
                    if error.code not in ("E-NAME", "E-EXISTS"):
                        raise
            try:
                library.remove(name)
            except LoraryError as error:
                if error.code != "E-NAME":
                    raise

def racer():
    if child := os.fork():
        return child
    try:
        replace_and_remove(Library.open(sys.argv[1]))
    finally:
        os._exit(1)

print("ready", flush=True)
for turn in range(6):
    racers = [racer() for _ in range(2)]
    time.sleep(0.05 + 0.013 * turn)
    for one in racers:
        os.kill(one, signal.SIGKILL)
    ends = [os.waitpid(one, 0)[1] for one in racers]
    assert ends == [signal.SIGKILL] * 2, ends
"""
SAVE_AND_HANG = """
import sys, time
from lorary.disk.arrival import arriving
with arriving(sys.argv[1]) as stage:
    (stage / "model.safetensors").write_bytes(b"x" * 1000)
    print("ready", flush=True)
    time.sleep(60)
"""

SCRATCH_AND_HANG = """
import sys, tempfile, time
from lorary.disk.processes import scratch
tempfile.tempdir = sys.argv[1]
with scratch() as folder:
    (folder / "0").mkdir()
    (folder / "0" / "adapter_model.safetensors").write_bytes(b"x" * 1000)
    print("ready", flush=True)
    time.sleep(60)
"""


def litter(library: Library, mark: str) -> list[Path]:
    """Leave in each place what a writer of this mark would, killed at the worst instant."""
    stage = library.layout.staging / f"e.{mark}"
    stage.mkdir(parents=True)
    (stage / "adapter_config.json").write_text("{}")
    library.layout.derived.mkdir(exist_ok=True)
    files = [library.path / f".library.json.{mark}.tmp", library.layout.derived / f".arrow-01.{mark}.safetensors"]
    for file in files:
        file.write_bytes(b"x")
    return [stage, *files]


CHANGES = {
    "add": lambda library, poems: library.add(poems, "new"),
    "replace": lambda library, poems: library.replace(poems, "first"),
    "remove": lambda library, poems: library.remove("first"),
    "create": lambda library, poems: Library.create(library.path, exist_ok=True),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_what_the_dead_left_goes_before_the_first_change(library, poems, change):
    library.add(poems, "first")
    left = litter(library, DEAD)
    opened = Library.open(library.path)
    assert all(path.exists() for path in left), "who only reads changes nothing"
    change(opened, poems)
    assert not any(path.exists() for path in left)


def test_what_belongs_to_somebody_stays(library, poems):
    mine, far, hidden = litter(library, marked("x")[2:]), litter(library, ELSEWHERE), library.path / ".gitattributes"
    old = library.layout.staging / "e.another-host.1.0123abcd"
    old.mkdir()
    hidden.write_text("*.safetensors filter=lfs")
    Library.open(library.path).add(poems, "new")
    assert all(path.exists() for path in [*mine, *far, hidden, old])
    for path in [*far, old]:
        os.utime(path, (0, time.time() - SAFE_AGE_S - 60))
    Library.open(library.path).add(poems, "newer")
    assert not any(path.exists() for path in [*far, old]) and all(path.exists() for path in [*mine, hidden])


def test_a_namesake_of_this_host_is_no_proof_of_death(library, poems, monkeypatch):
    """Two containers may have one host's name; neither sees the other's processes."""
    stage = staging.new_stage(library.layout.staging, "e")
    processes.place.cache_clear()
    monkeypatch.setattr(processes, "_link", lambda path: "another container")
    try:
        Library.open(library.path).add(poems, "new")
    finally:
        processes.place.cache_clear()
    assert stage.exists()


def test_a_number_that_another_process_has_by_now_is_no_sign_of_life(library, poems):
    begun = processes._look(os.getpid())[1]
    if not begun:
        pytest.skip("this system doesn't say when a process started")
    assert is_running(os.getpid(), begun) and not is_running(os.getpid(), begun - 1)
    left = litter(library, f"{place()}-{os.getpid()}-{begun - 1}.0123abcd")
    Library.open(library.path).add(poems, "new")
    assert not any(path.exists() for path in left)


def test_racing_removers_leave_none(library, poems):
    """Two replace, add and remove the same experts and are killed in the middle, again and again."""
    races = start(RACES, library.path, poems)
    assert races.wait(timeout=120) == 0
    races.stdout.close()
    Library.open(library.path).add(poems, "last")
    assert sorted(os.listdir(library.path)) == [".staging", "README.md", "experts", "library.json"]
    assert os.listdir(library.layout.staging) == []
    standing = sorted(os.listdir(library.layout.experts))
    assert list(Library.open(library.path)) == standing == noted(library)


def test_notes_tell_of_what_another_changed_meanwhile(library, poems, monkeypatch):
    library.add(poems, "first")
    other = Library.open(library.path)

    def slow(layout, manifest, experts):
        told = list(experts)
        if "first" in other:
            other.remove("first")
        write_manifest(layout, manifest, told)

    write_manifest = module.write_manifest
    monkeypatch.setattr(module, "write_manifest", slow)
    library.add(poems, "second")
    assert noted(library) == ["second"]


def test_a_replacement_that_lost_a_race_keeps_nothing(library, poems, monkeypatch):
    """Without an exchange by the system another may come between the two renames."""
    library.add(poems, "first")
    monkeypatch.setattr(staging, "_exchange", lambda one, other: False)
    rename, turns = os.rename, []

    def racing(source, target):
        turns.append(target)
        rename(source, target)
        if len(turns) == 1:
            write_adapter(library.path / "experts" / "first", seed=3)

    monkeypatch.setattr(os, "rename", racing)
    with pytest.raises(OSError, match="not empty"):
        library.replace(poems, "first")
    assert os.listdir(library.layout.staging) == []


def test_an_artefact_that_is_kept_takes_what_the_dead_left_with_it(library):
    left = litter(library, DEAD)[-1]
    derived.put(library, "arrow", "02", "json", lambda path: path.write_text("{}"))
    assert not left.exists()


def test_a_saved_directory_takes_the_place_of_what_a_killed_one_left(tmp_path):
    first = start(SAVE_AND_HANG, tmp_path / "model")
    first.send_signal(signal.SIGKILL)
    first.wait(timeout=120)
    first.stdout.close()
    assert len(os.listdir(tmp_path)) == 1
    second = start(SAVE_AND_HANG, tmp_path / "model")
    assert len(os.listdir(tmp_path)) == 1 and str(second.pid) in os.listdir(tmp_path)[0]
    second.send_signal(signal.SIGKILL)
    second.wait(timeout=120)
    second.stdout.close()


def test_a_place_for_downloads_takes_what_a_killed_process_left(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    others = [tmp_path / "lorary-mine", tmp_path / ".X11-unix"]
    for path in others:
        path.mkdir()
    first = start(SCRATCH_AND_HANG, tmp_path)
    (left,) = set(tmp_path.iterdir()) - set(others)
    with scratch() as folder:
        assert left.exists(), "who lives keeps his"
        assert folder.parent == tmp_path and os.stat(folder).st_mode & 0o077 == 0
    first.send_signal(signal.SIGKILL)
    first.wait(timeout=120)
    first.stdout.close()
    with scratch() as folder:
        assert sorted(tmp_path.iterdir()) == sorted([*others, folder])
    assert sorted(tmp_path.iterdir()) == sorted(others)


def test_a_file_takes_what_a_killed_writer_left_beside_it_however_long_its_name(tmp_path):
    left, others = tmp_path / f".report.html.{DEAD}.tmp", tmp_path / ".report.html.0123abcd.tmp"
    left.touch()
    others.touch()  # not ours by its name
    write_whole(tmp_path / ("x" * 250), b"told")
    assert sorted(path.name for path in tmp_path.iterdir()) == [others.name, "x" * 250]


def noted(library: Library) -> list[str]:
    return sorted(json.loads(library.layout.manifest.read_text())["experts"])


def start(code: str, *arguments: object) -> "subprocess.Popen[str]":
    process = subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    return process
