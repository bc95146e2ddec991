"""Share a machine out: threads follow from a build's packs, workers from what the machine has left beside them.

Sums of other numbers of threads differ in their last bits. So a pack's threads hang neither on how many workers there
are nor on what is done already, and any number of workers make the same library.
"""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

import torch

from lorary.building.recipe import Recipe
from lorary.library.layout import Layout
from lorary.model.base import base_model
from lorary.model.base.base_model import BaseModel
from lorary.model.base.embedded_needs import EMBEDDED
from lorary.model.base.outline import outline

_STEP_BYTES = 2 << 30
"""Room for a worker beside the base's weights. A margin, no fit: long runs of wide steps take more (docs/log.md)."""


def threads_for(n_packs: int) -> int:
    """Give each of a build's packs, those that are done included, an equal part of the cores; at least one.

    Cores: what torch would use here, so that OMP_NUM_THREADS and `torch.set_num_threads` bound a build.
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


def workers_for(recipe: Recipe, *, threads: int | None = None, n_gpus: int = 0) -> int:
    """Say how many workers a build may have here: as cores, GPUs and memory allow, at most one per missing pack.

    threads: per worker, if they don't follow from the packs. Raises what reading and planning a recipe raises.
    """
    if not n_gpus and torch.get_num_threads() <= (threads or 1):
        return 1
    name = recipe.base or EMBEDDED
    base = outline(name) or base_model.load_base(name, **{**recipe.loading, "device": "cpu"})
    jobs = recipe.builder.plan(recipe.read_tasks(), recipe.open_source())
    packs = [[name for job in pack for name in job.experts] for pack in recipe.builder.packs(jobs, base)]
    layout = Layout(recipe.into)
    missing = [names for names in packs if not all(layout.expert(name).is_dir() for name in names)]
    places = n_gpus or torch.get_num_threads() // (threads or threads_for(len(packs)))
    return max(1, min(places, len(missing), _fitting(base)))


def _fitting(base: BaseModel) -> int:
    """Say how many workers memory has room for; where it can't be asked, it is no bound."""
    room = free_bytes()
    # Room to read it in float32, whatever it is turned to: more than it then takes, so a part of the margin too.
    weights = sum(4 * p.numel() for p in base.hf.parameters())
    return room // (weights + _STEP_BYTES) if room is not None else 1 << 30


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
