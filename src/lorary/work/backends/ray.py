"""Workers in a Ray cluster."""

import atexit
import contextlib
import logging
import os
import pickle
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from lorary.errors import BuildError, OptionError
from lorary.extras import require_extra
from lorary.options import check_positive
from lorary.work.backend import Backend, Order
from lorary.work.claims import HANG_S
from lorary.work.follower import Follower
from lorary.work.jobs import Pack
from lorary.work.share import torch_threads
from lorary.work.worker import Worker, join

_AT_WORK = contextlib.ExitStack()
atexit.register(_AT_WORK.close)
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
        order.listener.tell(
            f"connecting to Ray at {self.address} ..." if self.address else "starting Ray on this machine ..."
        )
        with cluster(self.address) as ray:
            remote = ray.remote(num_cpus=self.cpus, num_gpus=self.gpus, max_retries=self.retries)
            follower = Follower(order.work.root, order.listener)
            theirs = replace(order.for_others(), threads=max(1, int(self.cpus)), hang_s=self.hang_s, ends_hung=True)
            sent = pickle.dumps(theirs)
            (packs,) = _results(ray, follower, [remote(_plan).remote(sent)])
            run_pack = remote(_run_pack)
            _results(ray, follower, [run_pack.remote(sent, pack) for pack in packs])
            _results(ray, follower, [remote(_finish).remote(sent)])


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
def cluster(address: str | None) -> Iterator[Any]:
    """Connect to a cluster, or start one for this machine; one that this process is connected to stays so."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    require_extra("ray", "backend ray")
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
def _worker(sent: bytes) -> Worker | None:
    """Join once per process, which loads much: Ray gives a process many tasks. `_finish` tidies up."""
    worker = join(pickle.loads(sent))
    if worker is not None:
        _AT_WORK.enter_context(worker.runner.at_work())
    return worker


def _plan(sent: bytes) -> list[Pack]:
    worker = _worker(sent)
    return worker.packs if worker else []


def _run_pack(sent: bytes, pack: Pack) -> None:
    if worker := _worker(sent):
        with torch_threads(worker.order.threads or 1):
            worker.settle(only=pack.key)


def _finish(sent: bytes) -> None:
    if worker := _worker(sent):
        with torch_threads(worker.order.threads or 1):
            worker.finish()  # with what tasks that were lost have left
