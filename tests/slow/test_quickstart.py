"""The quickstart as a user runs it: a process of its own, the real base, killed on the way."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

LORARY = Path(sys.executable).with_name("lorary")
# A third of the built-in tasks, so that it takes a third of the time: of each kind one, and one that is held out.
TASKS = (
    "answer_capital", "classify_sentiment", "convert_iso_date", "rewrite_past", "classify_request",
)  # fmt: skip


@pytest.mark.slow
def test_quickstart_survives_a_kill_and_leaves_a_report(tmp_path):
    environment = {**os.environ, "NO_COLOR": "1", "HF_HUB_OFFLINE": "1"}
    for name in ("LORARY_CACHE", "OMP_NUM_THREADS"):  # the other tests': here the user's own cache and all cores
        environment.pop(name, None)
    command = [str(LORARY), "quickstart", "--into", str(tmp_path), "--json", "--clusters", "2", "--max-new-tokens", "8"]
    for task in TASKS:
        command += ["--only", task]
    first = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 600
    while not list(tmp_path.glob("libs/private/experts/*")) and time.monotonic() < deadline:
        time.sleep(0.5)
    first.send_signal(signal.SIGKILL)
    first.wait()
    done = {path: path.stat().st_mtime_ns for path in tmp_path.glob("libs/private/experts/*/adapter_model.safetensors")}
    assert done, "no expert was there after ten minutes"

    run = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=3000
    )  # beside other tests, on slow cores
    assert run.returncode == 0, run.stderr[-3000:]
    assert {path: path.stat().st_mtime_ns for path in done} == done, "finished experts are trained once"

    table = json.loads(run.stdout)
    loss = {row["name"]: row["cells"][0]["mean"] for row in table["rows"]}
    # What holds with a wide margin on any machine: experts help, and Arrow finds some of them.
    assert loss["private-oracle"] < loss["private-arrow"] < loss["private-uniform"] < loss["base"]
    assert loss["private-compass"] < loss["private-arrow"]
    assert loss["mbc-oracle"] < loss["mbc-uniform"]
    assert loss["shared"] < loss["base"]
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "private-arrow" in page
    links = re.findall(r"https?://(?!www\.w3\.org/)[^\s\"'<>]*", page)
    assert not links, "the page needs no network"

    started = time.monotonic()
    again = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
    assert json.loads(again.stdout) == table
    assert time.monotonic() - started < 240, "a second run reuses what is finished"
