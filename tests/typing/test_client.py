"""The front door is typed: a client's program passes mypy --strict, and mistakes in it are found."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CLIENT = Path(__file__).with_name("client.py")


@pytest.mark.slow  # a minute where mypy has no cache yet; `make check` runs it behind mypy
def test_a_strict_client_is_typed_and_its_mistakes_are_found() -> None:
    pytest.importorskip("mypy")
    command = [sys.executable, "-m", "mypy", "--no-error-summary", "--hide-error-context", str(CLIENT)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    found = {int(n): message for n, message in re.findall(r"client\.py:(\d+): error: (.*)", done.stdout)}
    lines = CLIENT.read_text(encoding="utf-8").splitlines()
    expected = {n: line.partition("# E: ")[2] for n, line in enumerate(lines, start=1) if "# E: " in line}
    assert len(expected) > 3
    assert found.keys() == expected.keys(), done.stdout + done.stderr
    wrong = [message for n, message in found.items() if not message.startswith(expected[n])]
    assert not wrong
