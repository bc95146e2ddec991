"""The script that measures a GPU runs through on a CPU, with tiny shapes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu.sh"
PARTS = ["correctness", "layers", "models", "training", "opening"]


def run(into, *more):
    command = [str(SCRIPT), "--dry-run", "--into", str(into), *more]
    environment = {**os.environ, "PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return json.loads(into.read_text())


@pytest.mark.slow
def test_every_part_of_it_runs(tmp_path):
    found = run(tmp_path / "gpu.json")
    assert list(found["parts"]) == PARTS and found["dry_run"]
    assert {part["state"] for part in found["parts"].values()} == {"done"}
    rows = {name: part["rows"] for name, part in found["parts"].items()}
    assert all(row["right"] for row in rows["correctness"] if "right" in row)
    assert [(row["experts"], row["tokens"]) for row in rows["layers"]] == [(8, 1), (8, 8), (64, 1), (64, 8)]
    assert all(row["peft_over_best"] > 0 for row in rows["models"] if row["batch"] == 1)
    assert [row["experts"] for row in rows["training"]] == [2, 8]
    assert "goals" not in found


@pytest.mark.slow
def test_what_finds_no_time_is_left_out_and_said_so(tmp_path):
    found = run(tmp_path / "gpu.json", "--seconds", "0")
    assert [part["state"] for part in found["parts"].values()] == ["left out: no time"] * len(PARTS)
