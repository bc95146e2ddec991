"""Workers on this machine."""

import contextlib
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from lorary.building.base import check_positive
from lorary.building.work.backend import Backend, Order, build_here
from lorary.building.work.claims import HANG_S
from lorary.building.work.follower import Follower
from lorary.building.work.survey import survey
from lorary.building.work.worker import jobs_failed
from lorary.building.work.worklist import WORK, clear, failures_of
from lorary.errors import BuildError, LibraryError
from lorary.library.layout import Layout

_MOST_DEATHS = 3  # of workers, one after the other, while nothing got further
_PATIENCE_S = 10.0  # for workers that are asked to stop


@dataclass(frozen=True, kw_only=True)
class Local(Backend):
    """Run workers on this machine: this process alone, or several beside it.

    workers: processes; 1, without gpus and threads, is this one. gpus: device ids that are shared out by
    CUDA_VISIBLE_DEVICES; by default all that are visible. threads: per worker, as OMP_NUM_THREADS; by default what
    OMP_NUM_THREADS says, else the cores shared out. A worker that dies, or whose job makes no step for hang_s seconds,
    is replaced, unless it is this process; logs: .work/logs in the library.
    The library is the same for any number of workers as long as each has the same number of threads.
    """

    workers: int = 1
    gpus: tuple[str, ...] = ()
    threads: int | None = None
    hang_s: float = HANG_S

    def __post_init__(self) -> None:
        """Refuse options that have no meaning."""
        check_positive(self, "workers", "threads", "hang_s")

    def work(self, order: Order) -> None:
        """Work here, or look after others that do."""
        if self == Local():
            return build_here(order)
        order.tell(f"starting {self.workers} workers, logs in {order.recipe.into / WORK / 'logs'} ...")
        with _Crew(self, order).at_work() as crew:
            crew.look_after()
        return crew.judge()

    def environment(self, number: int) -> dict[str, str]:
        """Share out this machine: what the n-th worker finds in its environment, beside what is in ours."""
        gpus = self.gpus or _visible_gpus()
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        threads = self.threads or os.environ.get("OMP_NUM_THREADS") or max(1, cores // self.workers)
        shared = {"OMP_NUM_THREADS": str(threads)}
        return shared | ({"CUDA_VISIBLE_DEVICES": gpus[number % len(gpus)]} if gpus else {})


def _visible_gpus() -> tuple[str, ...]:
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return tuple(gpu.strip() for gpu in named.split(",") if gpu.strip())
    return tuple(map(str, range(torch.cuda.device_count())))


@dataclass
class _Crew:
    """The worker processes of one build, by number, and how those ended that did."""

    options: Local
    order: Order
    living: dict[int, "subprocess.Popen[bytes]"] = field(default_factory=dict)
    ends: dict[int, int] = field(default_factory=dict)
    deaths: int = 0
    progress: Any = None

    @property
    def library(self) -> Path:
        return self.order.recipe.into

    def log(self, number: int) -> Path:
        return self.library / WORK / "logs" / f"worker-{number}-{self.order.run}.log"

    @contextlib.contextmanager
    def at_work(self) -> Iterator["_Crew"]:
        """Start all; whatever happens, none is left behind."""
        try:
            for number in range(self.options.workers):
                self.start(number)
            yield self
        finally:
            _stop(list(self.living.values()))

    def start(self, number: int) -> None:
        self.log(number).parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "lorary.building.work.process"]
        with self.log(number).open("ab") as log:
            worker = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True,
                env={**os.environ, **self.options.environment(number)},
            )  # fmt: skip
        self.living[number] = worker
        assert worker.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # dead already: its end is looked at later
            # The pipe stays open: when it closes, the worker knows that nobody looks after it any more.
            pickle.dump((self.order.recipe, self.order.run, self.options.hang_s), worker.stdin)
            worker.stdin.flush()

    def look_after(self) -> None:
        """Replace workers that die, tell progress, until all have come to an end."""
        follower = Follower(self.library, self.order.report, self.order.on_plan)
        while self.living:
            time.sleep(0.2)
            follower.look()
            for number, worker in list(self.living.items()):
                if worker.poll() is not None:
                    self.ended(number, worker.returncode)
        follower.look()

    def ended(self, number: int, code: int) -> None:
        _close(self.living.pop(number))
        self.ends[number] = code
        if code in (0, 1):  # all is done, or an error that another would meet as well
            return
        progress = _progress(self.library)
        self.deaths = self.deaths + 1 if progress == self.progress else 1
        self.progress = progress
        if self.deaths <= _MOST_DEATHS:
            self.start(number)

    def judge(self) -> None:
        """Raise what went wrong, unless a worker saw that all is done."""
        if 0 in self.ends.values():
            return clear(Layout(self.library))
        if failures := failures_of(Layout(self.library), self.order.run):
            raise jobs_failed(failures)
        number, code = next(iter(self.ends.items()))
        reason = _last_line(self.log(number)) if code == 1 else f"ended by {_name(code)}"
        raise BuildError("E-WORKER", f"worker {number}: {reason}", f"Its log: {self.log(number)}.")


def _progress(library: Path) -> Any:
    """Make something that differs once a build gets further."""
    with contextlib.suppress(LibraryError):
        return [(job.name, job.state in ("done", "failed"), job.step) for job in survey(library).jobs]
    return None


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n") if log.exists() else []
    return next((line.strip() for line in reversed(lines) if line.strip()), "ended without a word.")


def _name(code: int) -> str:
    with contextlib.suppress(ValueError):
        return f"{signal.Signals(-code).name}."
    return f"exit code {code}."


def _close(worker: "subprocess.Popen[bytes]") -> None:
    with contextlib.suppress(OSError):
        if worker.stdin:
            worker.stdin.close()


def _stop(workers: Sequence["subprocess.Popen[bytes]"]) -> None:
    """Ask all to stop, which leaves their packs to others; kill who doesn't."""
    for worker in workers:
        _close(worker)
        worker.terminate()
    deadline = time.monotonic() + _PATIENCE_S
    for worker in workers:
        try:
            worker.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            worker.kill()
            worker.wait()
