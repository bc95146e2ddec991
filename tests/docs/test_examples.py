"""The examples run as they stand, on a pico base."""

import os
import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_the_examples_run_one_after_the_other(base, tmp_path):
    base.hf.save_pretrained(tmp_path / "base")
    base.tokenizer.save_pretrained(tmp_path / "base")
    for example in sorted(EXAMPLES.glob("*.py")):
        run = subprocess.run(
            [sys.executable, str(example), str(tmp_path / "base")],
            cwd=tmp_path, env={**os.environ, "PYTHONWARNINGS": "default"}, capture_output=True, text=True,
        )  # fmt: skip
        assert run.returncode == 0, run.stderr
        assert run.stdout.strip(), f"{example.name} says nothing"


def test_examples_are_short():
    for example in EXAMPLES.glob("*.py"):
        assert len(example.read_text(encoding="utf-8").splitlines()) <= 40, example.name
