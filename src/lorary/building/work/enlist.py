"""Join a build: plan it, see what is missing, and be a worker until all of it is done."""

import secrets
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lorary.building.contract import Builder, Job, Report, other_settings, plan_jobs
from lorary.building.work.claims import HANG_S, LEASE_S
from lorary.building.work.follower import OnPlan
from lorary.building.work.worker import Worker, require_library
from lorary.building.work.worklist import Worklist, clear, plan_key
from lorary.errors import BuildError, quote
from lorary.library.layout import check_name
from lorary.library.library import Library, standing
from lorary.model.base.base_model import BaseModel
from lorary.model.base.named_bases import remember_fit
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
    _check_names(jobs)
    require("base", base, BaseModel, "a base model", "Load one: load_base().")
    builder.check_base(base)
    library = Library.create(Path(into), base=base.fingerprint, exist_ok=True)
    remember_fit(base)
    _check_names(jobs, library)
    facts = base.identity
    keys = {job.name: job.key(facts) for job in jobs}
    done = {job.name for job in jobs if _is_done(job, keys[job.name], library, facts)}
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


def look_ahead(builder: Builder, tasks: Tasks, *, into: Path | str, source: Library | None) -> None:
    """Refuse a build that no base would make right, so that it is told before one is loaded. Raises as `enlist`."""
    jobs = plan_jobs(builder, tasks, source)
    _check_names(jobs)
    _check_names(jobs, standing(into) or ())


def see_through(worker: Worker) -> None:
    """Work until all packs are settled, then clean up. Raises what failed, and E-EXISTS as `build`."""
    with worker.library.noted_once():
        worker.work()
        require_library(worker.library.layout)
        worker.library.gc()  # the last word on what all workers built
    clear(worker.library.layout)
    worker.raise_failures()
    made, facts = Library.open(worker.library.path), worker.base.identity
    # Another build may have been quicker with other data, and somebody may have removed what was done.
    missing = [job.name for job in worker.jobs.values() if not _is_done(job, worker.keys[job.name], made, facts)]
    if missing:
        what = f"library {str(made.path)!r}: {quote(missing[0])} is missing though it was built"
        more = f", and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise BuildError("E-JOBS", f"{what}{more}: somebody removed it.", "The same command builds what is missing.")


def _check_names(jobs: Sequence[Job], taken: Iterable[str] = ()) -> None:
    """Refuse now what a library would refuse when all is trained; `taken` are the experts that it holds."""
    counts = Counter(name for job in jobs for name in job.experts)
    twins = {name.lower(): name for name in taken}
    for name, n in counts.items():
        if n > 1:
            raise BuildError("E-NAME", f"two jobs make an expert {name!r}.", "Rename the task of one.")
        check_name(name)
        twin = twins.setdefault(name.lower(), name)
        if twin != name:
            what = f"experts {twin!r} and {name!r} differ only by case, which some disks can't tell apart."
            raise BuildError("E-NAME", what, "Rename the task of one.")


def _is_done(job: Job, key: str, library: Library, facts: Mapping[str, Any]) -> bool:
    standing = [name for name in job.experts if name in library]
    for name in standing:
        found = library[name].provenance.extra
        if found.get("job") != key:
            how, remedy = other_settings(job, found.get("job"), found, facts)
            how = how or "with other options or data"
            raise BuildError(
                "E-EXISTS",
                f"library {str(library.path)!r} holds an expert {name!r} that was built {how}.",
                f"{remedy}Give another --into, or remove the expert: `lorary remove {library.path} {name}`.",
            )
    return len(standing) == len(job.experts)
