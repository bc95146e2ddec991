"""The soak itself: it counts, goes on where it was broken off, repeats a round, and notices what is lost."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
SOAK = Path(__file__).parents[1] / "soak"


def soak(place, *arguments, program=(str(SOAK / "run.py"),)):
    line = [sys.executable, *program, "--into", place / "figures.json", "--work", place / "work", *arguments]
    done = subprocess.run(
        [*map(str, line)], capture_output=True, text=True, timeout=300, check=False, env={**os.environ, **PLACES}
    )
    return done, json.loads((place / "figures.json").read_text()) if (place / "figures.json").exists() else {}


PLACES = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
ONLY = ("--only", "kill -9: remove", "--only", "fuzzed expert")


def test_it_counts_and_goes_on(tmp_path):
    done, first = soak(tmp_path, "--seconds", 5, "--seed", 11, *ONLY)
    assert done.returncode == 0, done.stdout + done.stderr
    tried = sum(counts["tried"] for counts in first["kinds"].values())
    assert tried == first["rounds"] > 1 and first["seed"] == 11 and first["lost"] == []
    assert "| all, in" in done.stdout and "seed 11" in done.stdout
    _, second = soak(tmp_path, "--seconds", 3, *ONLY)
    assert second["seed"] == 11 and second["rounds"] > first["rounds"]


@pytest.mark.parametrize("kind", ["damaged checkpoint", "disk full in a training", "driver killed"])
def test_faults_in_a_training_reach_it(kind, tmp_path):
    """They take hold of what trains from within, which goes wrong unheard when that is renamed."""
    done, figures = soak(tmp_path, "--seconds", 1, "--seed", 3, "--only", kind)
    assert done.returncode == 0, done.stdout + done.stderr
    assert figures["kinds"][kind]["survived"] == 1


FORGETFUL = """
import sys
sys.path.insert(0, {soak!r})
from unittest.mock import patch
import run
from lorary.library import staging
def forget(target, staging):
    for file in target.iterdir():
        file.unlink()
        __import__("time").sleep(0.05)
with patch.object(staging, "take_out", forget):
    sys.exit(run.main())
"""


def test_it_notices_what_is_lost(tmp_path):
    """A removal that deletes file after file leaves half an expert where it is killed."""
    program = ("-c", FORGETFUL.format(soak=str(SOAK)))
    done, figures = soak(tmp_path, "--seconds", 10, "--seed", 1, "--only", "kill -9: remove", program=program)
    assert done.returncode == 1, done.stdout + done.stderr
    assert figures["lost"] and "LOST round" in done.stdout
