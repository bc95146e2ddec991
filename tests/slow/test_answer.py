"""A file of prompts whose run is killed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lorary.testing.pico import pico_base, random_library

N_ROWS = 256


@pytest.mark.slow
def test_a_killed_run_ends_in_the_bytes_of_an_undisturbed_one(tmp_path: Path) -> None:
    base = pico_base()
    base.write(tmp_path / "pico")
    random_library(tmp_path / "lib", base, 3)
    rows = [{"prompt": "copy: " + "ab " * (i % 13), "id": i} for i in range(N_ROWS)]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert _start(tmp_path, "whole.jsonl").wait(timeout=300) == 0
    part, run, deadline = tmp_path / "a.jsonl.part", _start(tmp_path, "a.jsonl"), time.monotonic() + 120
    while run.poll() is None and time.monotonic() < deadline:
        if part.exists() and part.read_bytes().count(b"\n") > 1:
            os.kill(run.pid, signal.SIGKILL)
        time.sleep(0.005)
    assert run.wait(timeout=120) == -signal.SIGKILL
    assert not (tmp_path / "a.jsonl").exists()
    assert _start(tmp_path, "a.jsonl").wait(timeout=300) == 0
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert not part.exists()


def _start(place: Path, into: str) -> subprocess.Popen[bytes]:
    line = "answer lib p.jsonl --base pico --router arrow --max-new-tokens 24 --temperature 1 --into"
    command = [sys.executable, "-m", "lorary.cli.main", *line.split(), into]
    return subprocess.Popen(command, cwd=place, stderr=subprocess.DEVNULL)
