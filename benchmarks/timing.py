"""Time variants side by side: CPU time of one thread, in interleaved rounds, as ratios to the first variant.

Other work on the machine slows all variants of a round alike, and time that a thread waits isn't counted.
With several threads it is the clock on the wall, which wants a machine with nothing else on it.
"""

import json
import platform
import time
from collections.abc import Callable, Mapping
from datetime import date
from pathlib import Path
from statistics import median
from typing import Any

import torch

RESULTS = Path(__file__).parent / "results"
ENOUGH_SECONDS = 0.005
WARMED_SECONDS = 0.1

Variants = Mapping[str, Callable[[], Any]]


def one_thread() -> None:
    torch.set_num_threads(1)


def measure(variants: Variants, *, rounds: int = 11) -> dict[str, Any]:
    """Time each variant in every round; give the median seconds and the median ratio to the first, with quartiles."""
    repeats = {name: _repeats(run) for name, run in variants.items()}
    warmed = {name for name, run in variants.items() if _seconds(run, 1) < WARMED_SECONDS}
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(rounds):
        for name, run in variants.items():
            if name in warmed:
                run()  # caches and heap are as the variant before left them
            seconds[name].append(_seconds(run, repeats[name]))
    base = next(iter(seconds.values()))
    return {name: _summary(found, base) for name, found in seconds.items()}


def _repeats(run: Callable[[], Any]) -> int:
    run()
    return max(1, round(ENOUGH_SECONDS / max(_seconds(run, 1), 1e-6)))


def _seconds(run: Callable[[], Any], repeats: int) -> float:
    clock = time.thread_time if torch.get_num_threads() == 1 else time.perf_counter
    start = clock()
    for _ in range(repeats):
        run()
    return (clock() - start) / repeats


def _summary(seconds: list[float], base: list[float]) -> dict[str, float]:
    ratios = sorted(s / b for s, b in zip(seconds, base, strict=True))
    n = len(ratios)
    return {
        "seconds": median(seconds),
        "ratio": median(ratios),
        "low": ratios[n // 4],
        "high": ratios[-1 - n // 4],
    }


def save(name: str, rows: list[dict[str, Any]], **facts: Any) -> Path:
    """Write rows and what they were measured on to results/<name>.json."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps({"machine": machine(), **facts, "rows": rows}, indent=1) + "\n", "utf-8")
    return path


def machine() -> dict[str, Any]:
    """Tell when and on what is measured."""
    return {
        "date": str(date.today()),
        "cpu": _cpu_name(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
    }


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def table(rows: list[dict[str, Any]]) -> str:
    """Align rows of equal keys as text."""
    texts = [[_text(value) for value in row.values()] for row in rows]
    head = list(rows[0])
    widths = [max(len(line[i]) for line in [head, *texts]) for i in range(len(head))]
    return "\n".join("  ".join(cell.rjust(w) for cell, w in zip(line, widths, strict=True)) for line in [head, *texts])


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.2f}"
    return "-" if value is None else str(value)
