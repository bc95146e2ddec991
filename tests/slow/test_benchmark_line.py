"""All benchmarks but code through the command line, on a tiny base, killed in the middle."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmark_rows import CODE, HUB, OURS
from lorary.testing.contracts import files_of
from lorary.testing.pico import pico_base, random_library
from recipe_files import write_base

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def line(tmp_path_factory):
    """A command that scores eight benchmarks of two routers, but for --into."""
    place = tmp_path_factory.mktemp("line")
    base = pico_base()
    write_base(place / "pico", base)
    random_library(place / "lib", base, ["copy", "swap"], seed=3)
    for name, shape in ((name, (OURS, HUB)[number % 2]) for number, name in enumerate(sorted(set(OURS) - CODE))):
        folder = place / "zeroshot" / name
        folder.mkdir(parents=True)
        (folder / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in shape[name]), encoding="utf-8")
    return [
        sys.executable, "-m", "lorary.cli.entry", "eval", str(place / "lib"), str(place / "zeroshot"),
        "--base", str(place / "pico"), "--benchmark", "all:max_new_tokens=4", "--router", "uniform",
        "--router", "arrow:top_k=1", "--threads", "1",
    ]  # fmt: skip


def run(line, *more):
    done = subprocess.run([*line, *map(str, more)], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout, done.stderr


def test_a_killed_command_resumes(line, tmp_path: Path) -> None:
    table, told = run(line, "--into", tmp_path / "one", "--workers", "1")
    head, *rows = table.splitlines()
    assert re.fullmatch(r" +ARC-C +ARC-E +BBH +BoolQ +HSwag +OQA +PIQA +WG +mean of 8", head)
    assert [row.split()[0] for row in rows] == ["lib-uniform", "lib-arrow:top_k=1"]
    for row in rows:
        numbers = [float(number) for number in re.findall(r"[\d.]+", row.split(maxsplit=1)[1])]
        assert numbers[8] == pytest.approx(sum(numbers[:8]) / 8, abs=0.06)
    assert (told.count("loading base"), told.count("routing lib")) == (1, 2)
    expected = files_of(tmp_path / "one")
    assert len(expected) == 16

    killed = subprocess.Popen(
        [*line, "--into", str(tmp_path / "cut"), "--workers", "1"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    deadline = time.monotonic() + 120
    while len(list((tmp_path / "cut").glob("*.jsonl"))) < 2 and killed.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "cut").glob("*.jsonl")}
    again, _ = run(line, "--into", tmp_path / "cut", "--workers", "1")
    assert again == table
    assert files_of(tmp_path / "cut") == expected
    assert {name: (tmp_path / "cut" / name).stat().st_mtime_ns for name in before} == before, "what stood was kept"
