"""What large task data cost: the first reading, opening them again, and the memory of a worker that trains on them.

    python benchmarks/task_data.py [--tasks 256] [--rows 10000] [--letters 500] [--experts 3] [--in-memory] [--data DIR]

Writes synthetic rows, one file for each task (--data: where they stay; by default they are deleted), in a cache of
its own. Each measurement is a process of its own: reading everything into memory, as small files are read; the first
reading, which keeps the tasks on disk; opening them again; and a real worker of `lorary build`, private experts of all
tasks, until --experts of them stand. Prints wall and CPU seconds and the peak of resident memory, beside what the
imports alone take. --base: as `lorary build`; by default a tiny one, so that what is measured is the data's. Linux.
"""

import argparse
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from lorary.testing.pico import pico_base

WORDS = """
the of and to in a is that for it was on are as with at by an be this from have or one had not but what all were
question answer passage sentence title review summary premise hypothesis context following options paragraph
city river history science music language theory market season player number country children water
""".split()  # noqa: SIM905 - it reads better

OPEN = """
import sys, time
import lorary.tasks.read
began, cpu = time.perf_counter(), time.process_time()
tasks = lorary.tasks.read.read_tasks(sys.argv[1])
n = sum(len(task.train) for task in tasks.values())
print(f"{len(tasks)} tasks, {n:,} training examples: {time.perf_counter() - began:.1f} s wall, "
      f"{time.process_time() - cpu:.1f} s CPU")
"""
HASH = (
    OPEN
    + """
began, cpu = time.perf_counter(), time.process_time()
for task in tasks.values():
    task.hash
print(f"their hashes: {time.perf_counter() - began:.1f} s wall, {time.process_time() - cpu:.1f} s CPU")
"""
)
IMPORTS = "import lorary.work.process, lorary.building.build_work, lorary.building.builders.private"


def write_rows(folder: Path, n_tasks: int, n_rows: int, n_letters: int) -> None:
    """Write one file for each task; the same rows at every call."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(n_tasks):
        path, drawn = folder / f"task{number:03}.jsonl", random.Random(number)
        if path.exists():
            continue
        text = " ".join(drawn.choices(WORDS, k=20_000))  # rows are cut out of it: quickly made, and no two alike
        with path.open("w", encoding="utf-8") as file:
            for row in range(n_rows):
                start, n = drawn.randrange(100_000), drawn.randint(n_letters // 3, 5 * n_letters // 3)
                answer = text[start + 2000 : start + 2000 + drawn.randint(4, 60)]
                file.write(json.dumps({"prompt": f"{row}: {text[start : start + n]}?", "completion": answer}) + "\n")


def measured(label: str, code: str, *arguments: str, cache: str) -> None:
    """Run a program in a process of its own; print what it says, and its peak of memory."""
    more = "\nprint(next(line.strip() for line in open('/proc/self/status') if line.startswith('VmHWM')))"
    environment = {**os.environ, "LORARY_CACHE": cache}
    command = [sys.executable, "-W", "ignore", "-c", code + more, *arguments]
    ended = subprocess.run(command, check=True, env=environment, stdout=subprocess.PIPE, text=True)
    *said, peak = ended.stdout.strip().splitlines()
    told = "".join(f"{line}; " for line in said)
    print(f"{label}: {told}peak {int(peak.split()[1]) / 1024:.0f} MiB", flush=True)


def peak_mib(pid: int, field: str = "VmHWM") -> float:
    return int(re.search(rf"{field}:\s+(\d+)", Path(f"/proc/{pid}/status").read_text(encoding="utf-8"))[1]) / 1024


def workers_of(pid: int) -> list[int]:
    """Find the worker processes that a build started."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                line = (process / "cmdline").read_bytes()
                parent = int((process / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
            if parent == pid and b"lorary.work.process" in line:
                found.append(int(process.name))
    return found


def measure_worker(data: Path, n_experts: int, base: str | None, cache: str, place: Path) -> None:
    """Let two workers build private experts of all tasks; print what the hungriest took once some stand."""
    if base is None:
        base = str(place / "base")
        pico_base().write(Path(base))
    command = [
        sys.executable, "-m", "lorary.cli.main", "build", str(data), "--method", "private:steps=8", "--into",
        str(place / "lib"), "--workers", "2", "--threads", "1", "--base", base,
    ]  # fmt: skip
    began, environment = time.perf_counter(), {**os.environ, "LORARY_CACHE": cache}
    with (place / "said").open("wb") as said:
        build = subprocess.Popen(command, env=environment, stdout=said, stderr=said)
    first, peaks, experts = None, dict[int, float](), place / "lib" / "experts"
    while build.poll() is None and (n := len(list(experts.glob("*"))) if experts.is_dir() else 0) < n_experts:
        if first is None and any((place / "lib" / ".work").glob("*/checkpoint*")):
            first = time.perf_counter() - began
        for worker in workers_of(build.pid):
            try:
                peaks[worker] = peak_mib(worker)
            except (OSError, TypeError):
                continue
        time.sleep(0.2)
    build.send_signal(signal.SIGTERM)
    build.wait()
    seen = f"first checkpoint after {first:.0f} s, " if first else ""
    print(f"workers of a build: {seen}{n} experts after {time.perf_counter() - began:.0f} s; "
          f"peaks {', '.join(f'{peak:.0f}' for peak in peaks.values())} MiB")  # fmt: skip
    if n < n_experts:
        print((place / "said").read_text(encoding="utf-8"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=256)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--letters", type=int, default=500)
    parser.add_argument("--experts", type=int, default=3)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--base")
    parser.add_argument("--in-memory", action="store_true", help="measure reading into memory too, which takes GBs")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        data, cache = given.data or place / "data", str(place / "cache")
        write_rows(data, given.tasks, given.rows, given.letters)
        size = sum(path.stat().st_size for path in data.iterdir())
        print(f"{given.tasks} files, {given.tasks * given.rows:,} rows, {size / 2**20:,.0f} MiB", flush=True)
        measured("imports of a worker", IMPORTS, cache=cache)
        if given.in_memory:
            os.environ["LORARY_TASK_CACHE"] = "off"
            measured("into memory", HASH, str(data), cache=cache)
            del os.environ["LORARY_TASK_CACHE"]
        measured("first reading", OPEN, str(data), cache=cache)
        measured("opened again", HASH, str(data), cache=cache)
        kept = sum(path.stat().st_size for path in Path(cache).rglob("*") if path.is_file())
        print(f"on disk: {kept / 2**20:,.0f} MiB", flush=True)
        measure_worker(data, given.experts, given.base, cache, place)
        shutil.rmtree(cache)


if __name__ == "__main__":
    main()
