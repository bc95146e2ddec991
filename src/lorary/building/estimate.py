"""What a build will cost: steps, tokens and bytes from the plan; time only from what this machine was seen to do."""

import contextlib
import json
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorary.building.contract import Builder, Job
from lorary.disk.reading import cache_directory
from lorary.disk.writing import write_whole
from lorary.hashing import short_key
from lorary.model.base.base_model import BaseModel

_LEAST_S = 5.0  # a rate from less is noise


@dataclass(frozen=True)
class Cost:
    """What one job costs.

    tokens: passed through the base while it trains, validation left out; 0 for a merge; None for what passes tokens
    through it without training. product_bytes: of its weights on disk, of a merge the most they can be; None if that
    isn't known before. pack: jobs of one number run together.
    """

    job: str
    steps: int
    tokens: int | None
    product_bytes: int | None
    pack: int | None
    facts: dict[str, Any]


@dataclass(frozen=True)
class Estimate:
    """What a build costs. seconds: for one worker, at `tokens_per_s`; None where no rate was measured.

    tokens_are_counted: by the base's tokenizer (on a sample of each job's examples), not guessed from characters.
    """

    jobs: tuple[Cost, ...]
    tokens_are_counted: bool
    tokens_per_s: float | None

    @property
    def seconds(self) -> float | None:
        """Time for one worker, nothing done yet."""
        tokens = self.tokens
        return tokens / self.tokens_per_s if tokens and self.tokens_per_s else None

    @property
    def tokens(self) -> int:
        """Tokens of all jobs."""
        return sum(cost.tokens or 0 for cost in self.jobs)

    @property
    def product_bytes(self) -> int | None:
        """Bytes of all experts, if they are known."""
        sizes = [cost.product_bytes for cost in self.jobs]
        return None if None in sizes else sum(size or 0 for size in sizes)


def estimate(builder: Builder, jobs: Sequence[Job], base: BaseModel | None, base_name: str) -> Estimate:
    """Foresee a build. `base`: real or in outline; None if it isn't at hand, which leaves bytes and packs unknown."""
    packs = builder.packs(jobs, base) if base is not None else []
    pack_of = {job.name: number for number, pack in enumerate(packs, start=1) for job in pack}
    costs = [
        Cost(
            job.name, job.n_steps, job.n_tokens(base), _n_bytes(builder, job, base), pack_of.get(job.name),
            job.describe(),
        )
        for job in jobs
    ]  # fmt: skip
    return Estimate(tuple(costs), base is not None, recall_rate(base_name))


def _n_bytes(builder: Builder, job: Job, base: BaseModel | None) -> int | None:
    n_numbers = builder.n_numbers(job, base) if base is not None else None
    return n_numbers and 4 * n_numbers  # adapters are stored in float32


# ---- measured rates -----------------------------------------------------------------------------


def remember_rate(base_name: str, tokens: int, seconds: float) -> None:
    """Keep how many tokens a second training passed through a base on this machine, for the next --dry-run."""
    if seconds < _LEAST_S or not tokens:
        return
    path = _rate_path(base_name)
    with contextlib.suppress(OSError):  # a note; no build fails for it
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps({"base": base_name, "tokens_per_s": tokens / seconds}).encode())


def recall_rate(base_name: str) -> float | None:
    """Give the rate that was last measured for a base on this machine, in tokens per second; None if none was."""
    try:
        return float(json.loads(_rate_path(base_name).read_text(encoding="utf-8"))["tokens_per_s"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _rate_path(base_name: str) -> Path:
    machine = (platform.node(), platform.machine(), os.cpu_count())
    return cache_directory() / "rates" / f"{short_key(base_name, machine)}.json"
