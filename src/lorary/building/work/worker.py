"""One process's part in a build: claim a pack, run it, keep its experts, until none is left."""

import contextlib
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lorary import __version__
from lorary.building.contract import Builder, Failures, Job, JobStep, Made, Report, failing_alone, settings_of
from lorary.building.estimate import n_tokens, remember_rate
from lorary.building.work.claims import HANG_S, Claim, LeaseLostError, Watch, claim
from lorary.building.work.worklist import Failure, Pack, Worklist, failures_of
from lorary.disk.writing import disk_errors, is_disk_error
from lorary.errors import BuildError, LibraryError, LoraryError, quote
from lorary.hashing import hash_file, short_key
from lorary.library import derived
from lorary.library.adapter.provenance import Provenance, read_provenance, write_provenance
from lorary.library.layout import WEIGHTS, Layout
from lorary.library.library import Library
from lorary.model.base.base_model import BaseModel
from lorary.model.ensemble.learned import seal_learned

_SHOWN = 4  # of failures, so that a message stays readable
MOST_TRIES = 3
"""A pack that killed so many workers of one run without getting further is given up."""


@dataclass
class Worker:
    """What one process knows of a build. `run` names the workers that were started together: they try a pack once.

    on_hang: hears of a job that made no step for `hang_s`, in another thread: the job's own may never come back.
    """

    builder: Builder
    jobs: Mapping[str, Job]
    keys: Mapping[str, str]
    base: BaseModel
    library: Library
    worklist: Worklist
    run: str
    lease_s: float
    report: Report | None = None
    hang_s: float = HANG_S
    on_hang: Callable[[], None] | None = None
    watch: Watch = field(default_factory=Watch)
    _errors: dict[str, Exception] = field(default_factory=dict)
    _heard: Exception | None = None

    def __post_init__(self) -> None:
        """Agree with the others on the packs."""
        with disk_errors(self._where):
            found = self.worklist.agree({name: job.experts for name, job in self.jobs.items()}, self._group)
        # Longest first, so that no worker is left with the longest at the end.
        self.packs = sorted(found, key=lambda pack: -pack.n_steps * len(pack.names))

    def _group(self) -> list[Pack]:
        grouped = self.builder.packs(list(self.jobs.values()), self.base)
        return [
            Pack(
                short_key(sorted((job.name, self.keys[job.name]) for job in pack)),
                tuple(job.name for job in pack),
                tuple(tuple(job.experts) for job in pack),
                max(job.n_steps for job in pack),
            )
            for pack in grouped
        ]

    @property
    def _where(self) -> str:
        return f"library {quote(self.library.path.name)}"

    def work(self, only: str | None = None) -> None:
        """Run packs until all are done or have failed, others' packs included; `only`: until that one is."""
        packs = [pack for pack in self.packs if only in (None, pack.key)]
        while packs := [pack for pack in packs if not self.attend(pack)]:
            time.sleep(min(1.0, self.lease_s / 10))

    def attend(self, pack: Pack) -> bool:
        """Run a pack if it is free. True if it is done or failed by now, False if another works on it."""
        require_library(self.library.layout)
        if self._is_settled(pack):
            return True
        with disk_errors(self._where):
            mine = claim(self.worklist.pack_directory(pack), self.watch, run=self.run, lease_s=self.lease_s)
            if mine is None:
                return False
            # Of a merge, which has no steps, nobody can say how long it takes.
            hang_s = self.hang_s if pack.n_steps else None
            with contextlib.suppress(LeaseLostError), mine.held(hang_s, self.on_hang):
                self._run(pack, mine)
                return True
        return False

    def raise_failures(self) -> None:
        """Raise the one error there was; E-JOBS for several, for another worker's, or for one that isn't ours."""
        failures = failures_of(self.library.layout, self.run)
        own = list(self._errors.values())
        if len(failures) == len(own) == 1 and isinstance(own[0], LoraryError):
            raise own[0]
        if failures:
            raise jobs_failed(failures) from (own[0] if own else None)

    # ---- one pack -------------------------------------------------------------------------------

    def _is_settled(self, pack: Pack) -> bool:
        if not pack.missing(self.library.layout):
            return True
        failure = self.worklist.failure(pack)
        return failure is not None and failure.run == self.run

    def _run(self, pack: Pack, mine: Claim) -> None:
        if self._is_settled(pack):  # by another, between our look and our claim
            return mine.finish() if not pack.missing(self.library.layout) else None
        if mine.lease.tries > MOST_TRIES:
            last = f"the last after step {mine.lease.step}"
            reason = f"{MOST_TRIES} workers died at it, {last}: killed, out of memory, or hung for {self.hang_s:.0f} s"
            self.worklist.fail(pack, f"error[E-WORKER] {reason}.", reason, self.run)
            return None
        try:
            self._make(pack, mine)
        except LeaseLostError:
            raise
        except Exception as error:
            if error is self._heard or _is_hopeless(error):
                raise
            require_library(self.library.layout)
            mine.confirm()  # who took the pack over took our files away, which says nothing of its jobs
            self._errors[pack.key] = error
            self.worklist.fail(pack, _one_line(error), traceback.format_exc(), self.run)
            return None
        self.worklist.forget_failure(pack)
        return mine.finish()

    def _make(self, pack: Pack, mine: Claim) -> None:
        """Run a pack as a whole, even if some experts stand, so that the others come out the same; keep each.

        Raises what went wrong with some of its jobs once the others are kept.
        """
        jobs = [self.jobs[name] for name in pack.names]
        pace = _Pace()
        made = self.builder.run(jobs, self.base, mine.directory, self._listen(mine, pace))
        if self._heard:
            raise self._heard
        mine.check()
        failed = dict(made.failed)
        self._keep(pack, made, mine, failed)
        if failed:
            raise _as_one(failed)
        if tokens := pace.share(pack.n_steps) * sum(n_tokens(job, self.base) or 0 for job in jobs):
            remember_rate(self.base.name, round(tokens), pace.seconds)

    def _listen(self, mine: Claim, pace: "_Pace") -> Report:
        def hear(step: JobStep) -> None:
            mine.reached(step.step, {} if step.loss is None else {step.job: step.loss})
            pace.hear(step.step)
            try:
                if self.report:
                    self.report(step)
            except Exception as error:
                self._heard = error  # the listener's fault, not the job's
                raise
            require_library(self.library.layout)  # before a checkpoint makes its directory anew

        return hear

    def _keep(self, pack: Pack, made: Made, mine: Claim, failed: Failures) -> None:
        require_library(self.library.layout)
        missing = [name for name in pack.missing(self.library.layout) if name not in failed]
        for (name, kind), write in made.learned.items():
            if name in missing:
                key = self.keys[name]
                derived.put(self.library, kind, key, "safetensors", _sealing(write, kind, key), learned=True)
        for job in (self.jobs[name] for name in missing):
            for name in job.experts:
                if not self.library.layout.expert(name).is_dir():
                    with failing_alone(job.name, failed):
                        self._keep_expert(name, self.keys[job.name], made)
                    mine.moved()

    def _keep_expert(self, name: str, key: str, made: Made) -> None:
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


def _sealing(write: Callable[[Path], None], kind: str, key: str) -> Callable[[Path], None]:
    def sealed(path: Path) -> None:
        write(path)
        seal_learned(path, kind, key)

    return sealed


def require_library(layout: Layout) -> None:
    """Refuse to go on where a library no longer is, which would make another there. Raises E-LIBRARY."""
    if not layout.manifest.is_file():
        what = f"library {str(layout.root)!r} is gone: it was moved or deleted while it was built."
        raise LibraryError("E-LIBRARY", what, "If it was moved, go on there: the same command with that --into.")


def _is_hopeless(error: Exception) -> bool:
    """Tell whether no other pack would fare better."""
    return is_disk_error(error) or (isinstance(error, LibraryError) and error.code in ("E-DISK", "E-PERM"))


def _as_one(failed: Failures) -> LoraryError:
    """Make one error of the failures of a pack's jobs."""
    if len(failed) == 1:
        return next(iter(failed.values()))
    return BuildError("E-JOBS", " ".join(f"{name}: {error}" for name, error in failed.items()))


def built_by(library: Library, name: str) -> Any:
    """Give the key of the job that built an expert; None if it wasn't built here."""
    return read_provenance(library.layout.expert(name)).extra.get("job")


def jobs_failed(failures: Mapping[str, Failure]) -> BuildError:
    """Make one error of all failures; of many it names the first few."""
    lines = [f"{names}: {failure.error} (log: {failure.log})" for names, failure in failures.items()]
    many = f"{len(lines)} packs of jobs failed" if len(lines) > 1 else "a pack of jobs failed"
    more = f"; and {len(lines) - _SHOWN} more, which `lorary status` lists." if len(lines) > _SHOWN else ""
    return BuildError("E-JOBS", f"{many}: {'; '.join(lines[:_SHOWN])}{more}", "The same command tries again.")


def _one_line(error: Exception) -> str:
    text = str(error) if isinstance(error, LoraryError) else f"{type(error).__name__}: {error}"
    return " ".join(text.split())[:500]


@dataclass
class _Pace:
    """How long which steps of a pack took, the first one heard of left out: nobody knows when it began."""

    first: tuple[int, float] | None = None
    last: tuple[int, float] | None = None

    def hear(self, step: int) -> None:
        self.last = (step, time.monotonic())
        self.first = self.first or self.last

    def share(self, n_steps: int) -> float:
        """Say which share of all steps was measured."""
        return (self.last[0] - self.first[0]) / n_steps if self.first and self.last and n_steps else 0.0

    @property
    def seconds(self) -> float:
        return self.last[1] - self.first[1] if self.first and self.last else 0.0
