"""`lorary serve` as a process: it says where it is, answers, and ends within ten seconds of being asked to."""

import os
import re
import signal
import subprocess
import sys
import time

import httpx
import openai
import pytest

from lorary.testing.pico import pico_base, random_library

pytestmark = pytest.mark.slow


@pytest.fixture
def served(tmp_path):
    base = pico_base()
    base.write(tmp_path / "base")
    random_library(tmp_path / "skills", base, 3)
    options = ["--base", str(tmp_path / "base"), "--router", "arrow", "--port", "0"]
    command = [sys.executable, "-m", "lorary.cli.entry", "serve", str(tmp_path / "skills"), *options]
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env={**os.environ, "LORARY_API_KEY": "secret"}
    )
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line)
        if found := re.search(r"http://\S+/v1", line):
            yield process, found[0]
            break
    else:
        pytest.fail("".join(lines))
    process.kill()
    process.communicate()


def test_it_answers_and_ends_when_it_is_asked_to(served):
    process, address = served
    client = openai.OpenAI(base_url=address, api_key="secret")
    assert client.completions.create(model="skills", prompt="x", max_tokens=4).choices
    assert httpx.get(f"{address}/models").status_code == 401
    stream = client.completions.create(model="skills", prompt="x", max_tokens=20, temperature=0, stream=True)
    next(iter(stream))
    started = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    assert time.monotonic() - started < 60
