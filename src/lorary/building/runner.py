"""A worker of a build: runs a builder's packs on a loaded base, and commits their experts to the library."""

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorary import __version__
from lorary.building.contract import Builder, Made, other_settings, settings_of
from lorary.building.contract import Job as BuildersJob
from lorary.building.estimate import remember_rate
from lorary.errors import BuildError, LibraryError, quote
from lorary.hashing import hash_file
from lorary.library import derived
from lorary.library.adapter.provenance import Provenance, read_provenance, write_provenance
from lorary.library.layout import WEIGHTS
from lorary.library.library import Library
from lorary.model.base.base_model import BaseModel
from lorary.model.ensemble.learned import seal_learned
from lorary.work.claims import Claim
from lorary.work.jobs import Job, JobStep, Report, Runner


class BuildRunner(Runner):
    """Jobs of a builder, each known to work/ by the paths of its experts. Raises E-EXISTS as `build`."""

    def __init__(self, builder: Builder, planned: Sequence[BuildersJob], base: BaseModel, library: Library) -> None:
        self.builder, self.base, self.library = builder, base, library
        self.planned = {job.name: job for job in planned}
        self.keys = {job.name: job.key(base.identity) for job in planned}
        self.check_standing(library)
        self.jobs = [
            Job(job.name, self.keys[job.name], tuple(self._path(name) for name in job.experts), job.n_steps)
            for job in planned
        ]

    def _path(self, expert: str) -> str:
        return self.library.layout.expert(expert).relative_to(self.library.path).as_posix()

    def group(self) -> list[list[Job]]:
        """Group as the builder does."""
        mine = {job.name: job for job in self.jobs}
        packs = self.builder.packs(list(self.planned.values()), self.base)
        return [[mine[job.name] for job in pack] for pack in packs]

    def run(self, jobs: Sequence[Job], mine: Claim, report: Report) -> Made:
        """Let the builder make the experts; what was measured of its speed is remembered."""
        planned, pace = [self.planned[job.name] for job in jobs], _Pace(report)
        made = self.builder.run(planned, self.base, mine.directory, pace.report)
        n_steps = max(job.n_steps for job in jobs)
        if not made.failed and (tokens := pace.share(n_steps) * sum(job.n_tokens(self.base) or 0 for job in planned)):
            remember_rate(self.base.name, round(tokens), pace.seconds)
        return made

    def commit(self, job: Job, product: Made) -> None:
        """Keep what a job learned, then its experts, which only make sense with it."""
        for (name, kind), write in product.learned.items():
            if name == job.name:
                derived.put(self.library, kind, job.key, "safetensors", _sealing(write, kind, job.key), learned=True)
        for expert in self.planned[job.name].experts:
            if not self.library.layout.expert(expert).is_dir():
                self._commit_expert(expert, job.key, product)

    def _commit_expert(self, name: str, key: str, made: Made) -> None:
        try:
            with self.library.stage(name) as stage:
                facts = made.experts[name](stage)
                provenance = Provenance(
                    **facts,
                    weights_sha256=hash_file(stage / WEIGHTS),
                    base_fingerprint=self.base.fingerprint,
                    created_by=f"lorary {__version__}",
                    extra={"job": key, **settings_of(self.base)},
                )
                write_provenance(stage, provenance)
        except LibraryError as error:
            if error.code != "E-EXISTS" or built_by(self.library, name) != key:
                raise  # else a worker that thought us dead was first, with the same bytes

    def at_work(self) -> AbstractContextManager[None]:
        """Write the library's notes once at the end."""
        return self.library.noted_once()

    def tidy(self) -> None:
        """Delete what is no longer needed; the notes are then written with what all workers built."""
        self.library.gc()

    def check_made(self) -> None:
        """Raise E-JOBS if experts are missing, and E-EXISTS if another build made them of other data meanwhile."""
        made = Library.open(self.library.path)
        self.check_standing(made)
        missing = [job.name for job in self.planned.values() if not all(name in made for name in job.experts)]
        if missing:
            what = f"library {str(made.path)!r}: {quote(missing[0])} is missing though it was built"
            more = f", and {len(missing) - 1} more" if len(missing) > 1 else ""
            hint = "The same command builds what is missing."
            raise BuildError("E-JOBS", f"{what}{more}: somebody removed it.", hint)

    def check_standing(self, library: Library) -> None:
        """Raise E-EXISTS if the library holds an expert of a planned name that was built otherwise."""
        for job in self.planned.values():
            for name in (name for name in job.experts if name in library):
                found = library[name].provenance.extra
                if found.get("job") != self.keys[job.name]:
                    how, remedy = other_settings(job, found.get("job"), found, self.base.identity)
                    raise LibraryError(
                        "E-EXISTS",
                        f"library {str(library.path)!r} holds an expert {name!r} that was built "
                        f"{how or 'with other options or data'}.",
                        f"{remedy}Give another --into, or remove the expert: `lorary remove {library.path} {name}`.",
                    )


def built_by(library: Library, name: str) -> Any:
    """Give the key of the job that built an expert; None if it wasn't built here."""
    return read_provenance(library.layout.expert(name)).extra.get("job")


def _sealing(write: Callable[[Path], None], kind: str, key: str) -> Callable[[Path], None]:
    def sealed(path: Path) -> None:
        write(path)
        seal_learned(path, kind, key)

    return sealed


@dataclass
class _Pace:
    """Passes reports on and times the steps, without the first, whose beginning isn't known."""

    pass_on: Report
    first: tuple[int, float] | None = None
    last: tuple[int, float] | None = None

    def report(self, step: JobStep) -> None:
        self.last = (step.step, time.monotonic())
        self.first = self.first or self.last
        self.pass_on(step)

    def share(self, n_steps: int) -> float:
        """Give the share of all steps that was measured."""
        return (self.last[0] - self.first[0]) / n_steps if self.first and self.last and n_steps else 0.0

    @property
    def seconds(self) -> float:
        return self.last[1] - self.first[1] if self.first and self.last else 0.0
