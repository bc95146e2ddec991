"""Work that counts: each job writes numbers up to its own into a file, one a step. It knows nothing of libraries."""

import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lorary.errors import LibraryError, LoraryError, TaskError
from lorary.work.backend import Work
from lorary.work.jobs import Job, JobStep, Runner

N_STEPS = 6


@dataclass
class Counted:
    """What a pack's run made: the text of each file."""

    texts: Mapping[str, str]
    failed: Mapping[str, LoraryError] = field(default_factory=dict)


@dataclass(frozen=True)
class Counting(Work):
    """Count for each name, in packs of two. `modules`: where a process writes what of lorary it has imported."""

    into: Path
    names: tuple[str, ...]
    pause_s: float = 0.0
    failing: str = ""
    modules: Path | None = None

    @property
    def root(self):
        return self.into

    @property
    def called(self):
        return f"counts {self.into.name!r}"

    def require_root(self):
        if not self.into.is_dir():
            raise LibraryError("E-LIBRARY", "the counts are gone.")

    def load(self, listener):
        listener.tell("learning to count ...")
        self.into.mkdir(parents=True, exist_ok=True)
        return Counter(self)


class Counter(Runner):
    def __init__(self, work):
        self.work = work
        self.jobs = [Job(name, f"count {name}", (f"counts/{name}.txt",), N_STEPS) for name in work.names]

    def group(self):
        return [self.jobs[i : i + 2] for i in range(0, len(self.jobs), 2)]

    def run(self, jobs, mine, report):
        if self.work.modules:
            self.work.modules.write_text("\n".join(sorted(name for name in sys.modules if name.startswith("lorary"))))
        kept = mine.directory / "checkpoint"
        lines = kept.read_text().splitlines() if kept.exists() else []
        for step in range(len(lines) + 1, N_STEPS + 1):
            lines.append(" ".join(f"{job.name}{step}" for job in jobs))
            beside = kept.with_name("checkpoint.tmp")
            beside.write_text("\n".join(lines))
            beside.replace(kept)
            for job in jobs:
                report(JobStep(job.name, step, N_STEPS))
            time.sleep(self.work.pause_s)
        failed = {job.name: TaskError("E-DATA", "no.") for job in jobs if job.name == self.work.failing}
        return Counted({job.name: "".join(f"{step}\n" for step in range(1, N_STEPS + 1)) for job in jobs}, failed)

    def commit(self, job, product):
        place = self.work.into / "counts"
        place.mkdir(exist_ok=True)
        beside = place / f".{job.name}.tmp"
        beside.write_text(product.texts[job.name])
        beside.replace(place / f"{job.name}.txt")

    def check_made(self):
        assert all(job.stands(self.work.into) for job in self.jobs)
