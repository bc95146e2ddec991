"""Workers in a Ray cluster."""

import atexit
import contextlib
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from lorary.building.limits import check_positive
from lorary.building.work.backend import Backend, Order, enlist_here
from lorary.building.work.claims import HANG_S
from lorary.building.work.enlist import see_through
from lorary.building.work.follower import Follower
from lorary.building.work.process import end_hung
from lorary.building.work.share import torch_threads
from lorary.building.work.worker import Worker
from lorary.building.work.worklist import Pack
from lorary.errors import BuildError, OptionError
from lorary.extras import require_extra

_NOTES = contextlib.ExitStack()
atexit.register(_NOTES.close)
_STORE_BYTES = 100 << 20  # nothing large travels: all data is on disk


@dataclass(frozen=True, kw_only=True)
class Ray(Backend):
    """Run one task per pack in a Ray cluster; needs the package ray, here and on every node, and one shared disk.

    A job that fails by an error is tried once. Dashboard and usage statistics are off.
    """

    address: str | None = None
    """The cluster, as "auto" or "ray://head:10001"; by default one is started here, and ended."""
    cpus: float = 1.0
    """Cores, and threads, of each task."""
    gpus: float = 0.0
    """GPUs of each task; 0.25 puts four tasks on one."""
    retries: int = 3
    """How often a pack is tried again whose node or worker died or hung."""
    hang_s: float = HANG_S
    """Seconds without a step after which a job's worker is given up."""

    def __post_init__(self) -> None:
        """Refuse options that have no meaning."""
        super().__post_init__()
        check_positive(self, "cpus", "hang_s")
        if self.gpus < 0 or self.retries < 0:
            raise OptionError("E-OPTION", f"ray: gpus={self.gpus}, retries={self.retries}, expected 0 or more.")

    def work(self, order: Order) -> None:
        """Hand out a task per pack; the cluster finds places for them, and new ones when nodes die."""
        order.say(f"connecting to Ray at {self.address} ..." if self.address else "starting Ray on this machine ...")
        with _cluster(self.address) as ray:
            remote = ray.remote(num_cpus=self.cpus, num_gpus=self.gpus, max_retries=self.retries)
            follower = Follower(order.recipe.into, order.report, order.on_plan)
            theirs = replace(order.for_others(), threads=max(1, int(self.cpus)), hang_s=self.hang_s, on_hang=end_hung)
            (packs,) = _results(ray, follower, [remote(_plan).remote(theirs)])
            run_pack = remote(_run_pack)
            _results(ray, follower, [run_pack.remote(theirs, pack) for pack in packs])
            _results(ray, follower, [remote(_finish).remote(theirs)])


def _results(ray: Any, follower: Follower, tasks: list[Any]) -> list[Any]:
    """Wait for tasks, telling progress; a task that is interrupted takes the others along."""
    waiting = tasks
    try:
        while waiting:
            _, waiting = ray.wait(waiting, num_returns=len(waiting), timeout=0.5)
            follower.look()
        return [_result(ray, task) for task in tasks]
    except BaseException:
        for task in waiting:
            ray.cancel(task)
        raise


def _result(ray: Any, task: Any) -> Any:
    try:
        return ray.get(task)
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        raise (cause if isinstance(cause, Exception) else error) from error
    except ray.exceptions.RayError as error:
        reason = " ".join(str(error).split())
        raise BuildError("E-WORKER", f"Ray gave a task up: {reason}", "The same command goes on.") from error


@contextlib.contextmanager
def _cluster(address: str | None) -> Iterator[Any]:
    """Connect to a cluster, or start one for this machine; one that this process is connected to stays so."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    require_extra("ray", "backend ray", BuildError)
    import ray

    if ray.is_initialized():
        yield ray
        return
    ours: dict[str, Any] = {
        "include_dashboard": False,
        "_node_ip_address": "127.0.0.1",
        "object_store_memory": _STORE_BYTES,
    }
    try:
        ray.init(
            address=address or "local", log_to_driver=False, logging_level=logging.WARNING, **({} if address else ours)
        )
    except (ConnectionError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise BuildError("E-WORKER", f"no Ray cluster at {address or 'this machine'}: {reason}") from error
    try:
        yield ray
    finally:
        ray.shutdown()


# ---- what runs on the nodes ---------------------------------------------------------------------


@lru_cache(maxsize=1)
def _worker(order: Order) -> Worker | None:
    """Load a base once per process: Ray gives a process many tasks; `_finish` notes what all have built."""
    worker = enlist_here(order)
    if worker is not None:
        _NOTES.enter_context(worker.library.noted_once())
    return worker


def _plan(order: Order) -> list[Pack]:
    worker = _worker(order)
    return worker.packs if worker else []


def _run_pack(order: Order, pack: Pack) -> None:
    if worker := _worker(order):
        with torch_threads(order.threads or 1):
            worker.work(only=pack.key)


def _finish(order: Order) -> None:
    if worker := _worker(order):
        with torch_threads(order.threads or 1):
            see_through(worker)  # with what tasks that were lost have left
