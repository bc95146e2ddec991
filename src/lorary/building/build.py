"""Build a library from Python: in this process, alone or with others that do the same, or with a backend's workers."""

from pathlib import Path

from lorary.building.build_work import Build, RecipeBuild
from lorary.building.contract import Builder, Report
from lorary.building.recipe import Recipe
from lorary.folder import BACKENDS, BUILDERS
from lorary.library.library import Library
from lorary.model.base.base_model import BaseModel
from lorary.model.base.embedded_needs import EMBEDDED
from lorary.model.base.named_bases import called
from lorary.progress import Tell
from lorary.tasks.task import Tasks
from lorary.work.backend import Backend, Order, new_run
from lorary.work.claims import HANG_S, LEASE_S
from lorary.work.jobs import Listener, OnPlan
from lorary.work.worker import join


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
    hang_s: float = HANG_S,
) -> Library:
    """Build a library: plan the jobs, run those whose expert isn't there yet, pack by pack.

    Any number of processes and hosts may do this at once in one directory: each pack is run by one of them, and all
    return when all is done. Interrupted or killed, a second call resumes; the result is the same to the
    byte. `source`: the library that merges and adaptations start from; it is not changed. `on_plan` is called with all
    jobs and the names of those already done, `report` with the steps of the packs that run here.
    `run` names processes that were started together: a pack that fails is tried once a run. `lease_s`: after so many
    seconds of silence another process takes a pack over; a job that makes no step for `hang_s` falls silent.
    torch keeps the threads it has in this process, while `build_recipe` and the command line set them, by default to
    max(1, cores // packs): then the last bits may differ. For the same bits give both one number: here by
    `torch.set_num_threads(n)`, there by `threads=n`.
    A job that fails keeps no other from being built, not those of its pack either; then raises its error, or E-JOBS
    for several. Raises E-EXISTS if the library holds an expert of that name that was built otherwise (other options,
    data, or a base in another precision or of another max_tokens), E-NAME for names that it can't take or that two
    jobs share, E-LIBRARY if it is moved or deleted meanwhile, E-DISK and E-PERM.
    """
    builder = BUILDERS.parse(builder) if isinstance(builder, str) else builder
    work = Build(builder, tasks, base, Path(into), source)
    order = Order(work, run or new_run(), Listener.of(on_plan, report), lease_s=lease_s, hang_s=hang_s)
    if (worker := join(order)) is not None:
        worker.finish()
    return Library.open(into)


def build_recipe(
    recipe: Recipe,
    *,
    backend: Backend | str = "local",
    run: str | None = None,
    report: Report | None = None,
    on_plan: OnPlan | None = None,
    tell: Tell | None = None,
    base_name: str | None = None,
) -> Library:
    """Build what a recipe says, with workers where the backend has them.

    base_name: what the adapters call a base that is a directory; by default as the recipe does, so that a relative
    path stays one. Other arguments and errors: see `build`.
    """
    backend = BACKENDS.parse(backend) if isinstance(backend, str) else backend
    name = base_name or (called(recipe.base) if recipe.base else None)
    is_place = recipe.base not in (None, EMBEDDED) and Path(str(recipe.base)).is_dir()
    work = RecipeBuild(recipe.absolute(), name if is_place else None)
    backend.work(Order(work, run or new_run(), Listener.of(on_plan, report, tell)))
    return Library.open(work.root)
