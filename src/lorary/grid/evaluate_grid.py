"""Evaluate many models by many metrics or benchmarks, with workers that share the cells."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from lorary.disk.reading import absolute_name
from lorary.errors import OptionError
from lorary.evaluation.benchmarking.contract import Exam
from lorary.evaluation.benchmarking.exams import as_exams
from lorary.evaluation.contract import Evaluator
from lorary.evaluation.scores import Scores, read_scores
from lorary.folder import BACKENDS
from lorary.grid.grid_work import GridWork
from lorary.grid.setup import Setup
from lorary.model.base.base_model import BaseModel
from lorary.progress import Tell
from lorary.tasks.task import Tasks
from lorary.work.backend import Backend, Order, new_run
from lorary.work.jobs import Listener, OnPlan, Report
from lorary.work.worker import join


def evaluate_grid(
    setups: Sequence[Setup],
    evaluators: Sequence[Evaluator | Exam | str] | Mapping[str, Exam],
    tasks: Tasks | None = None,
    *,
    base: BaseModel | str | None = None,
    into: Path | str,
    loading: Mapping[str, object] | None = None,
    train_tasks: Tasks | None = None,
    limit: int | None = None,
    backend: Backend | str | None = None,
    run: str | None = None,
    report: Report | None = None,
    on_plan: OnPlan | None = None,
    tell: Tell | None = None,
) -> dict[str, Scores]:
    """Score each setup by each metric; gives the scores by the names of their files, setup by setup.

    `evaluators`: metrics, which score `tasks`, or what `read_benchmarks` gives, which have tasks of their own.
    `into`: a directory, which gets one file per cell, named by the setup's label and the metric or benchmark. A
    finished file of the same run is kept, an unfinished one (`<file>.part`) is continued, as `evaluate` does it. Any
    number of processes and hosts may do this at once in one directory: each cell is evaluated by one of them, and a
    model is routed once for all its metrics that one worker evaluates in a row.
    `base`: a name or directory, which each worker loads with what `loading` holds of `load_base`'s arguments; None is
    the base of a saved model; or a loaded one, on which this process evaluates alone. `train_tasks`: for routers
    that need examples. `limit`: at most so many examples per task. `backend`: where workers run, as "local:workers=4"
    or "ray"; by default on this machine. `run`, `report`, `on_plan`, `tell`: see `build_recipe`; steps are examples.
    torch keeps the threads it has where the base is loaded already, else they follow from the cells, as in
    `build_recipe`: scores of other numbers of threads may differ in their last bits.
    A cell that fails keeps no other from being evaluated; then raises its error, or E-JOBS for several. Raises as
    `evaluate` and `route`, before a base is loaded where no base would make it right, E-NAME for two cells of one file,
    E-OPTION for a backend with a loaded base.
    """
    place = absolute_name(base) if isinstance(base, str) else base
    work = GridWork(
        tuple(setups), as_exams(evaluators, tasks), Path(into).absolute(), place, dict(loading or {}), train_tasks,
        limit,
    )  # fmt: skip
    cells = work.cells()
    order = Order(work, run or new_run(), Listener.of(on_plan, report, tell))
    carry_out(order, base, backend)
    return {cell.file: read_scores(work.into / cell.file) for cell in cells.values()}


def carry_out(order: Order, base: BaseModel | str | None, backend: Backend | str | None) -> None:
    """Let a backend's workers do an order, by default those of this machine; on a loaded base this process does it.

    Raises E-OPTION for a backend with a loaded base.
    """
    if not isinstance(base, BaseModel):
        chosen = backend or "local"
        found: Backend = BACKENDS.parse(chosen) if isinstance(chosen, str) else chosen
        found.work(order)
    elif backend is not None:
        raise OptionError("E-OPTION", "a backend's workers load the base themselves.", "Give base= as a name.")
    elif (worker := join(order)) is not None:
        worker.finish()
