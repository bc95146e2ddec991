"""A file of prompts whose run is killed."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from lorary.testing.pico import pico_base, random_library
from lorary.work.claims import read_lease

N_ROWS = 192


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library, prompts, and the answers of one process that nobody disturbs."""
    place = tmp_path_factory.mktemp("world")
    base = pico_base()
    base.write(place / "pico")
    random_library(place / "lib", base, 3)
    rows = [{"prompt": "copy: " + "ab " * (i % 13), "id": i} for i in range(N_ROWS)]
    (place / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert _start(place, "whole.jsonl").wait(timeout=300) == 0
    return place


@pytest.mark.slow
def test_a_killed_run_ends_in_the_bytes_of_an_undisturbed_one(world: Path) -> None:
    part, run, deadline = world / "a.jsonl.part", _start(world, "a.jsonl"), time.monotonic() + 120
    while run.poll() is None and time.monotonic() < deadline:
        if part.exists() and part.read_bytes().count(b"\n") > 1:
            os.kill(run.pid, signal.SIGKILL)
        time.sleep(0.005)
    assert run.wait(timeout=120) == -signal.SIGKILL
    assert not (world / "a.jsonl").exists()
    assert _start(world, "a.jsonl").wait(timeout=300) == 0
    assert (world / "a.jsonl").read_bytes() == (world / "whole.jsonl").read_bytes()
    assert not part.exists()


@pytest.mark.slow
def test_workers_that_were_killed_end_in_the_bytes_of_one_process(world: Path) -> None:
    workers = ("--workers", "2", "--threads", "1")
    parts, run, deadline = world / "b.jsonl.parts", _start(world, "b.jsonl", *workers), time.monotonic() + 120
    while run.poll() is None and time.monotonic() < deadline:
        leases = [read_lease(path) for path in (parts / ".work").glob("*") if path.is_dir()]
        if any(parts.glob("rows-*.jsonl")) and (busy := [one for one in leases if one and not one.is_free]):
            run.kill()
            with suppress(ProcessLookupError):
                os.kill(busy[0].pid, signal.SIGKILL)
        time.sleep(0.005)
    assert run.wait(timeout=5) == -signal.SIGKILL
    assert not (world / "b.jsonl").exists()
    assert _start(world, "b.jsonl", *workers).wait(timeout=300) == 0
    assert (world / "b.jsonl").read_bytes() == (world / "whole.jsonl").read_bytes()
    assert not parts.exists()


def _start(place: Path, into: str, *more: str) -> subprocess.Popen[bytes]:
    line = "answer lib p.jsonl --base pico --router arrow --max-new-tokens 24 --temperature 1 --into"
    command = [sys.executable, "-m", "lorary.cli.main", *line.split(), into, *more]
    return subprocess.Popen(command, cwd=place, stderr=subprocess.DEVNULL)
