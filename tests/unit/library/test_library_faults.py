"""Kill, race and fill: what section 7 of the robustness notes asks."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from library_pico import write_adapter

from lorary.errors import LibraryError
from lorary.library import library as module
from lorary.library import staging
from lorary.library.adapter import expert as expert_module
from lorary.library.library import Library

HERE = str(Path(__file__).parent)
ADD_FOR_EVER = """
import sys
from lorary.library.library import Library
library = Library.open(sys.argv[1])
print("ready", flush=True)
for i in range(10**6):
    library.add(sys.argv[2], f"{sys.argv[3]}{i}")
    if i % 3 == 2:
        library.replace(sys.argv[2], f"{sys.argv[3]}{i}")
        library.remove(f"{sys.argv[3]}{i - 1}")
"""
ADD_MANY = """
import sys
from lorary.library.library import Library
library = Library.open(sys.argv[1])
with library.noted_once():
    for i in range(10**6):
        library.add(sys.argv[2], f"e{i}")
        print(i, flush=True)
"""
ADD_SAME = """
import sys
from lorary.errors import LibraryError
from lorary.library.library import Library
library = Library.open(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
for i in range(8):
    try:
        library.add(sys.argv[2], f"same{i}")
        print("won", flush=True)
    except LibraryError as error:
        print(error.code, flush=True)
    library.add(sys.argv[2], f"own{sys.argv[3]}-{i}")
"""
ADD_WITH_SMALL_FILES = """
import resource, sys
from lorary.errors import LibraryError
from lorary.library.library import Library
library = Library.open(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (512, 512))
try:
    library.add(sys.argv[2], "poems")
except LibraryError as error:
    print(error)
"""


def start(code: str, *arguments: object) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", code, *map(str, arguments)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process


def finish(process: "subprocess.Popen[str]") -> str:
    out, _ = process.communicate("go\n", timeout=120)
    return out


@pytest.mark.slow
def test_killed_at_any_instant(library, poems):
    expected = library.add(poems, "first").hash
    for turn in range(12):
        process = start(ADD_FOR_EVER, library.path, poems, f"t{turn}x")
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.002 + 0.007 * turn)
        process.send_signal(signal.SIGKILL)
        finish_killed(process)
        again = Library.open(library.path)  # whole or absent, and no manual step
        assert {expert.hash for expert in again.values()} == {expected}
    again.gc()
    assert os.listdir(library.path / ".staging") == []
    assert {expert.hash for expert in Library.open(library.path).values()} == {expected}


def test_killed_before_its_notes_a_library_has_all_experts(library, poems):
    process = start(ADD_MANY, library.path, poems)
    for i in range(5):
        assert process.stdout.readline() == f"{i}\n"
    process.send_signal(signal.SIGKILL)
    finish_killed(process)
    manifest = library.path / "library.json"
    assert json.loads(manifest.read_text())["experts"] == {}
    again = Library.open(library.path)
    assert {f"e{i}" for i in range(5)} <= set(again)
    again.add(poems, "next")
    assert sorted(json.loads(manifest.read_text())["experts"]) == sorted(again)


def finish_killed(process: "subprocess.Popen[str]") -> None:
    process.wait(timeout=120)
    process.stdin.close()
    process.stdout.close()


@pytest.mark.slow
def test_concurrent_writers(library, poems):
    writers = [start(ADD_SAME, library.path, poems, i) for i in range(3)]
    for writer in writers:
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:  # all at once
        writer.stdin.write("go\n")
        writer.stdin.flush()
    lines = [line for writer in writers for line in finish(writer).split()]
    assert lines.count("won") == 8
    assert lines.count("E-EXISTS") == 16
    again = Library.open(library.path)
    assert len(again) == 8 + 3 * 8
    assert os.listdir(library.path / ".staging") == []


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_FSIZE"), reason="needs file size limits")
def test_full_disk_leaves_the_old_state(library, poems):
    process = start(ADD_WITH_SMALL_FILES, library.path, poems)
    assert finish(process) == (
        "error[E-DISK] expert 'poems': the disk is full (File too large). "
        "Free some space and run it again; nothing was changed.\n"
    )
    assert len(Library.open(library.path)) == 0
    assert os.listdir(library.path / ".staging") == []


def test_gc_spares_the_living(library, poems):
    with library.stage("poems") as directory:
        write_adapter(directory)
        (library.path / ".staging" / "odd").mkdir()
        assert Library.open(library.path).gc() == ["removed odd"]
    assert "poems" in library


def test_opening_does_not_import_anything_heavy(library, poems):
    library.add(poems, "poems")
    code = (
        "import sys; from lorary.library.library import Library; import lorary.library.derived; "
        f"Library.open({str(library.path)!r}); "
        "print([m for m in ('torch', 'numpy', 'transformers', 'peft', 'huggingface_hub', 'pydantic') "
        "if m in sys.modules])"
    )
    assert finish(start(code)) == "[]\n"


def test_an_expert_that_is_replaced_while_it_is_read_is_read_again(library, poems, monkeypatch):
    """Without an exchange by the system there are two renames, and an instant between them without any."""
    library.add(poems, "poems")
    expert, away, turns = library.path / "experts" / "poems", library.path / "away", []

    def interrupted(directory, name, **how):
        turns.append(name)
        if len(turns) == 1:
            directory.rename(away)
            try:
                return read(directory, name, **how)
            finally:
                shutil.copytree(away, expert)
        return read(directory, name, **how)

    read = module.read_expert
    monkeypatch.setattr(module, "read_expert", interrupted)
    assert list(Library.open(library.path)) == ["poems"] and len(turns) == 2


def test_two_that_collect_at_once_are_both_right(library, monkeypatch):
    stage = library.path / ".staging" / "odd"
    stage.mkdir(parents=True)
    monkeypatch.setattr(staging, "_is_left", lambda path: path.rmdir() is None)
    assert library.gc() == [] and not stage.exists()


def test_an_expert_that_goes_while_its_bytes_are_checked_is_told(library, poems, monkeypatch):
    expert = library.add(poems, "poems")
    expert._seen.clear()
    look = expert_module.signature

    def gone(file):
        library.remove("poems")
        return look(file)

    monkeypatch.setattr(expert_module, "signature", gone)
    expert.confirm()  # what was open is read to its end
    with pytest.raises(LibraryError, match=r"E-FILE.*is missing"):
        expert.confirm()
