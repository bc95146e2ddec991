"""Share a machine out: threads follow from the packs, workers from what the machine has left beside them.

Sums of other numbers of threads differ in their last bits. So a pack's threads hang neither on how many workers there
are nor on what is done already, and any number of workers make the same.
"""

import contextlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

_STEP_BYTES = 2 << 30
"""Room for a worker beside what it holds. A margin, no fit: long runs of wide steps take more (docs/log.md)."""


@dataclass(frozen=True)
class Needs:
    """How many packs there are in all and how many of them are missing; the bytes that each worker holds."""

    n_packs: int
    n_missing: int
    held_bytes: int


def threads_for(n_packs: int) -> int:
    """Give each of the packs, those that are done included, an equal part of the cores; at least one.

    Cores: what torch would use here, so that OMP_NUM_THREADS and `torch.set_num_threads` are a bound.
    """
    return max(1, torch.get_num_threads() // max(1, n_packs))


@contextlib.contextmanager
def torch_threads(n: int) -> Iterator[None]:
    """Let torch use n threads in the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def workers_for(needs: Callable[[], Needs], *, threads: int | None = None, n_gpus: int = 0) -> int:
    """Say how many workers there may be here: as cores, GPUs and memory allow, at most one per missing pack.

    needs: asked only where there may be several. threads: per worker, if they don't follow from the packs.
    """
    if not n_gpus and torch.get_num_threads() <= (threads or 1):
        return 1
    found = needs()
    places = n_gpus or torch.get_num_threads() // (threads or threads_for(found.n_packs))
    return max(1, min(places, found.n_missing, _fitting(found.held_bytes)))


def _fitting(held_bytes: int) -> int:
    """Say how many workers memory has room for; where it can't be asked, it is no bound."""
    room = free_bytes()
    return room // (held_bytes + _STEP_BYTES) if room is not None else 1 << 30


def free_bytes() -> int | None:
    """Give the memory that is left on this machine or to this container; None where that can't be asked."""
    free = re.search(r"^MemAvailable:\s+(\d+) kB", _read("/proc/meminfo"), re.MULTILINE)
    limit = _read("/sys/fs/cgroup/memory.max").strip()
    found = ([int(free[1]) * 1024] if free else []) + ([int(limit)] if limit.isdigit() else [])
    return min(found, default=None)


def _read(path: str) -> str:
    with contextlib.suppress(OSError):  # not Linux
        return Path(path).read_text(encoding="utf-8")
    return ""
