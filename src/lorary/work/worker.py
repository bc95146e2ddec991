"""One process's part in work: claim a pack, run it, commit what it made, until none is left."""

import contextlib
import faulthandler
import os
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NoReturn

from lorary.disk.writing import disk_errors, is_disk_error
from lorary.errors import BuildError, LibraryError, LoraryError
from lorary.work.backend import Order
from lorary.work.claims import Claim, LeaseLostError, Watch, claim
from lorary.work.jobs import Failures, JobStep, Pack, Report, Runner, failing_alone, pack_jobs
from lorary.work.share import threads_for, torch_threads
from lorary.work.worklist import Failure, Worklist, clear, failures_of, plan_key

_SHOWN = 4  # of failures, so that a message stays readable
HUNG = 75  # exit code: "try again" (EX_TEMPFAIL)
MOST_TRIES = 3
"""A pack that killed so many workers of one run without getting further is given up."""


@dataclass
class Worker:
    """One process at work on an order, with what it has loaded for it."""

    runner: Runner
    order: Order
    watch: Watch = field(default_factory=Watch)
    _errors: dict[str, Exception] = field(default_factory=dict)
    _listeners_error: Exception | None = None

    def __post_init__(self) -> None:
        """Agree with the others on the packs."""
        self.jobs = {job.name: job for job in self.runner.jobs}
        self.root = self.order.work.root
        self.worklist = Worklist(self.root, plan_key({name: job.key for name, job in self.jobs.items()}))
        with disk_errors(self.order.work.called):
            made = {name: job.made for name, job in self.jobs.items()}
            found = self.worklist.agree(made, lambda: [pack_jobs(jobs) for jobs in self.runner.group()])
        # Longest first, so that no worker is left with the longest at the end.
        self.packs = sorted(found, key=lambda pack: -pack.n_steps * len(pack.names))

    def finish(self) -> None:
        """Work until all packs are settled, then clean up. Raises what failed, and what `check_made` raises."""
        with self.runner.at_work():
            self.settle()
            self.order.work.require_root()
            self.runner.tidy()
        clear(self.root)
        self.raise_failures()
        self.runner.check_made()

    def settle(self, only: str | None = None) -> None:
        """Run packs until all are done or have failed, others' packs included; `only`: until that one is."""
        left = [pack for pack in self.packs if only in (None, pack.key)]
        while left:
            if (pack := self._settle_one(left)) is not None:
                left.remove(pack)
            else:
                time.sleep(min(1.0, self.order.lease_s / 10))

    def _settle_one(self, left: list[Pack]) -> Pack | None:
        """Try packs until one of them is settled; None if others work on all of them."""
        taken: list[Pack] = []
        while untried := [pack for pack in left if pack not in taken]:
            pack = self.runner.choose(untried, taken)
            if self.try_pack(pack):
                return pack
            taken.append(pack)
        return None

    def try_pack(self, pack: Pack) -> bool:
        """Run a pack if it is free. True if it is done or failed by now, False if another works on it."""
        self.order.work.require_root()
        if self._is_settled(pack):
            return True
        with disk_errors(self.order.work.called):
            directory, order = self.worklist.pack_directory(pack), self.order
            mine = claim(directory, self.watch, run=order.run, lease_s=order.lease_s)
            if mine is None:
                return False
            # Of work without steps nobody can say how long it takes.
            hang_s = order.hang_s if pack.n_steps else None
            with contextlib.suppress(LeaseLostError), mine.held(hang_s, end_hung if order.ends_hung else None):
                self._run(pack, mine)
                return True
        return False

    def raise_failures(self) -> None:
        """Raise the one error there was; E-JOBS for several, for another worker's, or for one that isn't ours."""
        failures = failures_of(self.root, self.order.run)
        own = list(self._errors.values())
        if len(failures) == len(own) == 1 and isinstance(own[0], LoraryError):
            raise own[0]
        if failures:
            raise jobs_failed(failures) from (own[0] if own else None)

    # ---- one pack -------------------------------------------------------------------------------

    def _is_settled(self, pack: Pack) -> bool:
        if not pack.missing(self.root):
            return True
        failure = self.worklist.failure(pack)
        return failure is not None and failure.run == self.order.run

    def _run(self, pack: Pack, mine: Claim) -> None:
        if self._is_settled(pack):  # by another, between our look and our claim
            return mine.finish() if not pack.missing(self.root) else None
        if mine.lease.tries > MOST_TRIES:
            last, hang_s = f"the last after step {mine.lease.step}", self.order.hang_s
            reason = f"{MOST_TRIES} workers died at it, {last}: killed, out of memory, or hung for {hang_s:.0f} s"
            self.worklist.fail(pack, f"error[E-WORKER] {reason}.", reason, self.order.run)
            return None
        try:
            self._make(pack, mine)
        except LeaseLostError:
            raise
        except Exception as error:
            if error is self._listeners_error or _is_hopeless(error):
                raise
            self.order.work.require_root()
            mine.confirm()  # who took the pack over took our files away, which says nothing of its jobs
            self._errors[pack.key] = error
            self.worklist.fail(pack, _one_line(error), traceback.format_exc(), self.order.run)
            return None
        self.worklist.forget_failure(pack)
        return mine.finish()

    def _make(self, pack: Pack, mine: Claim) -> None:
        """Run a pack as a whole, even if some of it stands, so that the rest comes out the same; commit each job.

        Raises what went wrong with some of its jobs once the others are committed.
        """
        jobs = [self.jobs[name] for name in pack.names]
        product = self.runner.run(jobs, mine, self._report_to(mine))
        if self._listeners_error:
            raise self._listeners_error
        mine.check()
        self.order.work.require_root()
        failed = dict(product.failed)
        for job in [job for job in jobs if job.name not in failed and not job.stands(self.root)]:
            with failing_alone(job.name, failed):
                self.runner.commit(job, product)
            mine.moved()
        if failed:
            raise _as_one(failed)

    def _report_to(self, mine: Claim) -> Report:
        def report(step: JobStep) -> None:
            mine.reached(step.step, {} if step.loss is None else {step.job: step.loss})
            try:
                self.order.listener.on_step(step)
            except Exception as error:
                self._listeners_error = error  # not the job's
                raise
            self.order.work.require_root()  # before a checkpoint makes its directory anew

        return report


def join(order: Order) -> Worker | None:
    """Load what an order needs and make this process a worker of it; None if all is done."""
    runner, root = order.work.enter(order), order.work.root
    done = sorted(job.name for job in runner.jobs if job.stands(root))
    order.listener.on_plan(runner.jobs, done)
    if len(done) == len(runner.jobs):
        clear(root)
        return None
    return Worker(runner, order)


def work_here(order: Order) -> None:
    """Be one of the workers, in this process, until all is done."""
    worker = join(order)
    if worker is not None:
        with torch_threads(order.threads or threads_for(len(worker.packs))):
            worker.finish()


def end_hung() -> NoReturn:
    """End a process whose job hangs, as only another thread can, and say where it hung; its pack is left for others."""
    faulthandler.dump_traceback()
    print("ended, since its job made no step for too long: where it hung stands above.", flush=True)
    os._exit(HUNG)


def _is_hopeless(error: Exception) -> bool:
    """Tell whether no other pack would fare better."""
    return is_disk_error(error) or (isinstance(error, LibraryError) and error.code in ("E-DISK", "E-PERM"))


def _as_one(failed: Failures) -> LoraryError:
    """Make one error of the failures of a pack's jobs."""
    if len(failed) == 1:
        return next(iter(failed.values()))
    return BuildError("E-JOBS", " ".join(f"{name}: {error}" for name, error in failed.items()))


def jobs_failed(failures: Mapping[str, Failure]) -> BuildError:
    """Make one error of all failures; of many it names the first few."""
    lines = [f"{names}: {failure.error} (log: {failure.log})" for names, failure in failures.items()]
    many = f"{len(lines)} packs of jobs failed" if len(lines) > 1 else "a pack of jobs failed"
    more = f"; and {len(lines) - _SHOWN} more, which `lorary status` lists." if len(lines) > _SHOWN else ""
    return BuildError("E-JOBS", f"{many}: {'; '.join(lines[:_SHOWN])}{more}", "The same command tries again.")


def _one_line(error: Exception) -> str:
    text = str(error) if isinstance(error, LoraryError) else f"{type(error).__name__}: {error}"
    return " ".join(text.split())[:500]
