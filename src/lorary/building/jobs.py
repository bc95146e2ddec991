"""Many jobs: run what is missing, alone or with others, and finish each by one rename."""

import secrets
from collections.abc import Callable, Sequence
from pathlib import Path

from lorary.building.base import Builder, Job, Report
from lorary.building.claims import LEASE_S
from lorary.building.worker import Worker, built_by
from lorary.building.worklist import Worklist, clear, plan_key
from lorary.errors import BuildError
from lorary.folder import BUILDERS
from lorary.library.library import Library
from lorary.model.base_model import BaseModel
from lorary.tasks.task import Tasks

OnPlan = Callable[[Sequence[Job], Sequence[str]], None]


def build(
    builder: Builder | str,
    tasks: Tasks,
    base: BaseModel,
    *,
    into: Path | str,
    source: Library | None = None,
    report: Report | None = None,
    on_plan: OnPlan | None = None,
    run: str | None = None,
    lease_s: float = LEASE_S,
) -> Library:
    """Build a library: plan the jobs, run those whose expert isn't there yet, pack by pack.

    Any number of processes and hosts may do this at once in one directory: each pack is run by one of them, and all
    return when all is done. Interrupted or killed, a second call goes on where the first one was; the result is the
    same to the byte. `source`: the library that merges and adaptations start from; it is not changed.
    `on_plan` hears all jobs and the names of those already done; `report` the steps of the packs that run here.
    `run` names processes that were started together: a pack that fails is tried once a run. `lease_s`: after so many
    seconds of silence another process takes a pack over.
    A pack that fails keeps no other from being built; then raises its error, or E-JOBS for several.
    Raises E-EXISTS if the library holds an expert of that name that was built otherwise, E-NAME if two jobs make an
    expert of one name, E-DISK and E-PERM.
    """
    builder = BUILDERS.parse(builder) if isinstance(builder, str) else builder
    worker = enlist(builder, tasks, base, into=into, source=source, report=report, on_plan=on_plan, run=run,
                    lease_s=lease_s)  # fmt: skip
    if worker is not None:
        worker.work()
        finish(worker)
    return Library.open(into)


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
) -> Worker | None:
    """Plan a build and make this process a worker of it; None if all is done. Arguments: see `build`."""
    jobs = builder.plan(tasks, source)
    _check_names(jobs)
    library = Library.create(Path(into), base=base.fingerprint, exist_ok=True)
    keys = {job.name: job.key(base.identity["base"]) for job in jobs}
    done = {job.name for job in jobs if _is_done(job, keys[job.name], library)}
    if on_plan:
        on_plan(jobs, sorted(done))
    if len(done) == len(jobs):
        clear(library.layout)
        return None
    worklist = Worklist(library.layout, plan_key(keys))
    named = {job.name: job for job in jobs}
    return Worker(builder, named, keys, base, library, worklist, run or secrets.token_hex(4), lease_s, report)


def finish(worker: Worker) -> None:
    """Clean up after all packs are settled. Raises what failed, and E-EXISTS as `build`."""
    worker.library.gc()  # the last word on what all workers built
    clear(worker.library.layout)
    worker.raise_failures()
    made = Library.open(worker.library.path)
    for job in worker.jobs.values():
        _is_done(job, worker.keys[job.name], made)  # another build may have been quicker with other data


def _check_names(jobs: Sequence[Job]) -> None:
    names = [name for job in jobs for name in job.experts]
    for name in names:
        if names.count(name) > 1:
            raise BuildError("E-NAME", f"two jobs make an expert {name!r}.", "Rename the task of one.")


def _is_done(job: Job, key: str, library: Library) -> bool:
    standing = [name for name in job.experts if name in library]
    for name in standing:
        if built_by(library, name) != key:
            raise BuildError(
                "E-EXISTS",
                f"library {str(library.path)!r} holds an expert {name!r} that was built with other options or data.",
                "Give another --into, or remove the expert.",
            )
    return len(standing) == len(job.experts)
