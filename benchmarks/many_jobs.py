"""What sharing a build costs: a claim, and a look at a build of many jobs. No model: only the disk's part.

python benchmarks/many_jobs.py [N_JOBS]
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from lorary.library.library import Library
from lorary.work.claims import Watch, claim
from lorary.work.jobs import Pack
from lorary.work.survey import survey
from lorary.work.worklist import Worklist


def main(n_jobs: int) -> None:
    with tempfile.TemporaryDirectory() as place:
        library = Library.create(Path(place) / "lib")
        worklist = Worklist(library.path, "key")
        names = [f"job{number}" for number in range(n_jobs)]
        made = {name: (f"experts/{name}",) for name in names}
        worklist.agree(made, lambda: [Pack(f"pack-{name}", (name,), (made[name],), 100) for name in names])

        spent_ms = []
        for name in names:
            started = time.perf_counter()
            mine = claim(worklist.work / f"pack-{name}", Watch())
            assert mine is not None
            mine.beat()
            mine.finish()
            spent_ms.append(1000 * (time.perf_counter() - started))
        print(f"claim, beat and finish: {statistics.median(spent_ms):.2f} ms (median of {n_jobs})")

        for name in names[: n_jobs // 4]:
            assert claim(worklist.work / f"pack-{name}", Watch())
        started = time.perf_counter()
        assert survey(library.path).counts["running"] == n_jobs // 4
        print(f"a look at {n_jobs} jobs, a quarter of them running: {1000 * (time.perf_counter() - started):.0f} ms")

        command = [sys.executable, "-m", "lorary.cli.main", "status", str(library.path), "--json"]
        status_s, bare_s = (_median_s(line) for line in (command, [sys.executable, "-c", "pass"]))
        print(f"`lorary status` as a process: {status_s:.2f} s of the processor (bare python: {bare_s:.2f} s)")


def _median_s(command: list[str]) -> float:
    return statistics.median(_time(command) for _ in range(5))


def _time(command: list[str]) -> float:
    """Run a process; give its time on the processor in seconds, which others' load doesn't change."""
    before = os.times()
    subprocess.run(command, check=True, capture_output=True)
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 256)
