"""Join a build: plan it, see what is missing, and be a worker until all of it is done."""

import secrets
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from lorary.building.base import Builder, Job, Report, plan_jobs
from lorary.building.work.claims import HANG_S, LEASE_S
from lorary.building.work.follower import OnPlan
from lorary.building.work.worker import Worker, built_by
from lorary.building.work.worklist import Worklist, clear, plan_key
from lorary.errors import BuildError
from lorary.library.library import Library
from lorary.model.base_model import BaseModel
from lorary.options import require
from lorary.tasks.task import Tasks


def enlist(
    builder: Builder,
    tasks: Tasks,
    base: BaseModel,
    *,
    into: Path | str,
    source: Library | None = None,
    report: Report | None = None,
    on_plan: OnPlan | None = None,
    run: str | None = None,
    lease_s: float = LEASE_S,
    hang_s: float = HANG_S,
    on_hang: Callable[[], None] | None = None,
) -> Worker | None:
    """Plan a build and make this process a worker of it; None if all is done. Arguments: see `build` and `Worker`."""
    jobs = plan_jobs(builder, tasks, source)
    require("base", base, BaseModel, "a base model", "Load one: load_base().")
    builder.check_base(base)
    _check_names(jobs)
    library = Library.create(Path(into), base=base.fingerprint, exist_ok=True)
    origin = base.origin
    keys = {job.name: job.key(origin) for job in jobs}
    done = {job.name for job in jobs if _is_done(job, keys[job.name], library)}
    if on_plan:
        on_plan(jobs, sorted(done))
    if len(done) == len(jobs):
        clear(library.layout)
        return None
    worklist = Worklist(library.layout, plan_key(keys))
    named = {job.name: job for job in jobs}
    return Worker(
        builder, named, keys, base, library, worklist, run or secrets.token_hex(4), lease_s, report, hang_s, on_hang
    )


def see_through(worker: Worker) -> None:
    """Work until all packs are settled, then clean up. Raises what failed, and E-EXISTS as `build`."""
    with worker.library.noted_once():
        worker.work()
        worker.library.gc()  # the last word on what all workers built
    clear(worker.library.layout)
    worker.raise_failures()
    made = Library.open(worker.library.path)
    for job in worker.jobs.values():
        _is_done(job, worker.keys[job.name], made)  # another build may have been quicker with other data


def _check_names(jobs: Sequence[Job]) -> None:
    counts = Counter(name for job in jobs for name in job.experts)
    for name, n in counts.items():
        if n > 1:
            raise BuildError("E-NAME", f"two jobs make an expert {name!r}.", "Rename the task of one.")


def _is_done(job: Job, key: str, library: Library) -> bool:
    standing = [name for name in job.experts if name in library]
    for name in standing:
        if built_by(library, name) != key:
            raise BuildError(
                "E-EXISTS",
                f"library {str(library.path)!r} holds an expert {name!r} that was built with other options or data.",
                f"Give another --into, or remove the expert: `lorary remove {library.path} {name}`.",
            )
    return len(standing) == len(job.experts)
