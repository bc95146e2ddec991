"""Workers on this machine."""

import contextlib
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from lorary.disk.processes import WORK
from lorary.errors import BuildError
from lorary.options import check_positive
from lorary.work.backend import Backend, Order
from lorary.work.claims import HANG_S
from lorary.work.follower import Follower
from lorary.work.share import workers_for
from lorary.work.survey import survey
from lorary.work.waiting import short_waits
from lorary.work.worker import jobs_failed, work_here
from lorary.work.worklist import check_work, clear, failures_of, open_log

_MOST_DEATHS = 3  # of workers, one after the other, while nothing got further
_PATIENCE_S = 10.0  # for workers that are asked to stop


@dataclass(frozen=True, kw_only=True)
class Local(Backend):
    """Run workers on this machine: this process alone, or several beside it.

    One worker, without gpus, is this process; by default there is at most one for each pack that is missing. GPUs are
    shared out by CUDA_VISIBLE_DEVICES. The default of threads follows from the packs, whatever the number of workers,
    so that what is made is the same for any. OMP_NUM_THREADS says how many cores may be used.
    A worker that dies, or whose job makes no step for hang_s seconds, is replaced, unless it is this process; logs:
    .work/logs in the directory.
    """

    workers: int | None = None
    """Processes; by default as many as cores (or GPUs) and memory allow."""
    gpus: tuple[str, ...] = ()
    """Device ids to share out; by default all that are visible."""
    threads: int | None = None
    """Threads of each worker; by default the cores are shared out among all packs."""
    hang_s: float = HANG_S
    """Seconds without a step after which a job's worker is given up."""

    def __post_init__(self) -> None:
        """Refuse options that have no meaning."""
        super().__post_init__()
        check_positive(self, "workers", "threads", "hang_s")

    def work(self, order: Order) -> None:
        """Work here, or look after others that do."""
        order = replace(order, threads=self.threads, hang_s=self.hang_s)
        workers = self.workers or self._workers(order)
        if workers == 1 and not self.gpus:
            return work_here(order)
        order.listener.tell(f"starting {workers} workers, logs in {order.work.root / WORK / 'logs'} ...")
        with _Crew(replace(self, workers=workers), order).at_work() as crew:
            crew.look_after()
        return crew.judge()

    def _workers(self, order: Order) -> int:
        if order.work.only_here:
            return 1
        n_gpus = torch.accelerator.device_count() if order.work.device != "cpu" else 0
        return workers_for(lambda: order.work.needs, threads=self.threads, n_gpus=len(self.gpus) or n_gpus)

    def environment(self, number: int) -> dict[str, str]:
        """Say what the n-th worker finds in its environment, beside what is in ours: its GPU, and how threads wait."""
        gpus = self.gpus or _visible_gpus()
        shared_out = {"CUDA_VISIBLE_DEVICES": gpus[number % len(gpus)]} if gpus else {}
        return {**short_waits(os.environ), **shared_out}


def _visible_gpus() -> tuple[str, ...]:
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return tuple(gpu.strip() for gpu in named.split(",") if gpu.strip())
    return tuple(map(str, range(torch.cuda.device_count())))


@dataclass
class _Crew:
    """The worker processes of one order, by number, and how those ended that did."""

    options: Local
    order: Order
    living: dict[int, "subprocess.Popen[bytes]"] = field(default_factory=dict)
    ends: dict[int, int] = field(default_factory=dict)
    deaths: int = 0
    progress: Any = None

    @property
    def root(self) -> Path:
        return self.order.work.root

    def log(self, number: int) -> Path:
        return self.root / WORK / "logs" / f"worker-{number}-{self.order.run}.log"

    @contextlib.contextmanager
    def at_work(self) -> Iterator["_Crew"]:
        """Start all; whatever happens, none is left behind."""
        check_work(self.root)
        try:
            for number in range(self.options.workers or 1):
                self.start(number)
            yield self
        finally:
            _stop(list(self.living.values()))

    def start(self, number: int) -> None:
        command = [sys.executable, "-m", "lorary.work.process"]
        with open_log(self.log(number)) as log:
            worker = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True,
                env={**os.environ, **self.options.environment(number)},
            )  # fmt: skip
        self.living[number] = worker
        assert worker.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # dead already: its end is looked at later
            # The pipe stays open: when it closes, the worker knows that nobody looks after it any more.
            pickle.dump((self.order.for_others(), torch.get_num_threads()), worker.stdin)
            worker.stdin.flush()

    def look_after(self) -> None:
        """Replace workers that die, tell progress, until all have come to an end."""
        followers = [Follower(root, self.order.listener) for root in self.order.work.roots]
        while self.living:
            time.sleep(0.2)
            _look(followers)
            for number, worker in list(self.living.items()):
                if worker.poll() is not None:
                    self.ended(number, worker.returncode)
        _look(followers)

    def ended(self, number: int, code: int) -> None:
        _close(self.living.pop(number))
        self.ends[number] = code
        if code in (0, 1):  # all is done, or an error that another would meet as well
            return
        progress = [_progress(root) for root in self.order.work.roots]
        self.deaths = self.deaths + 1 if progress == self.progress else 1
        self.progress = progress
        if self.deaths <= _MOST_DEATHS:
            self.start(number)

    def judge(self) -> None:
        """Raise what went wrong, unless a worker saw that all is done."""
        if 0 in self.ends.values():
            return clear(self.root)
        for root in self.order.work.roots:
            if failures := failures_of(root, self.order.run):
                raise jobs_failed(failures)
        number, code = next(iter(self.ends.items()))
        if not self.log(number).exists():
            self.order.work.require_root()
        reason = _last_line(self.log(number)) if code == 1 else f"ended by {_name(code)}"
        raise BuildError("E-WORKER", f"worker {number}: {reason}", f"Its log: {self.log(number)}.")


def _look(followers: Sequence[Follower]) -> None:
    for follower in followers:
        follower.look()


def _progress(root: Path) -> Any:
    """Make something that differs once the work gets further."""
    return [(job.name, job.state in ("done", "failed"), job.step) for job in survey(root).jobs]


def _last_line(log: Path) -> str:
    lines: list[str] = []
    with contextlib.suppress(FileNotFoundError):
        lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
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
