"""All studies of the paper at the tiny scale, by two workers, killed in the middle and resumed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lorary.studies.sharing.cpu_time import TIMES
from lorary.tasks.toy import toy_tasks
from lorary.testing.contracts import files_of
from lorary.testing.pico import pico_base
from recipe_files import write_base, write_tasks

pytestmark = pytest.mark.slow

STUDIES = "paper:studies=(upstream,sni),libraries=(mbc,)"


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A base and tasks on disk."""
    place = tmp_path_factory.mktemp("world")
    return str(write_base(place / "pico", pico_base())), write_tasks(place / "tasks", toy_tasks(12, 4, 4))


def command(world, into, workers):
    base, tasks = world
    line = ["study", STUDIES, str(tasks), "--base", base, "--scale", "tiny", "--heldout", "last", "--into", str(into)]
    return [sys.executable, "-m", "lorary.cli.entry", *line, "--workers", str(workers), "--threads", "1"]


def run(line):
    done = subprocess.run(line, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr
    return done


def made_in(into):
    """Hash all that is no note of how long things took, and no page that says so."""
    pages = (TIMES, "report.html", "paper.md")
    return {path: found for path, found in files_of(into).items() if Path(path).name not in pages}


def test_two_workers_that_were_killed_and_resume_leave_what_one_leaves(world, tmp_path):
    one = run(command(world, tmp_path / "one", 1))
    assert "| C3: " in one.stdout and "## sni" in one.stdout
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    cut = subprocess.Popen(command(world, tmp_path / "two", 2), env=environment, start_new_session=True)
    try:
        while not list((tmp_path / "two").rglob("experts/*/adapter_model.safetensors")) and cut.poll() is None:
            time.sleep(0.2)
    finally:
        os.killpg(cut.pid, signal.SIGKILL)
        cut.wait()
    assert not (tmp_path / "two" / "report.html").exists()
    run(command(world, tmp_path / "two", 2))
    assert made_in(tmp_path / "two") == made_in(tmp_path / "one")
