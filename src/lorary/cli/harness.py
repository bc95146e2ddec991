"""Evaluating by lm-evaluation-harness: several routers, one load of the base."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from lorary.cli.evaluating import print_runs
from lorary.cli.models import BARE, choose
from lorary.cli.options.loading import Loading, Reading
from lorary.cli.printing.console import print_rich, say

if TYPE_CHECKING:
    from lorary.evaluation.scores import Scores

LM_EVAL = "lm-eval"


def check_harness(harness: str, refused: dict[str, Any]) -> None:
    """Refuse another harness, options that this one has no use for, and a package that isn't there. Raises E-EXTRA."""
    from lorary.extras import require_extra

    if harness != LM_EVAL:
        raise typer.BadParameter(f"{harness!r} is unknown; known: {LM_EVAL}.", param_hint="--harness")
    for option, given in refused.items():
        if given:
            what = "the harness's tasks name their data and metrics, and it runs in one process."
            raise typer.BadParameter(what, param_hint=option)
    require_extra("eval", "lorary eval --harness")


def require_tasks(tasks: str | None, of_harness: Sequence[str] | None) -> str:
    """Give the tasks to score without a harness; refuse none, and those of one."""
    if of_harness:
        raise typer.BadParameter("this names tasks of a harness: --harness lm-eval.", param_hint="--tasks")
    if tasks is None:
        raise typer.BadParameter("the tasks to score are missing.", param_hint="TASKS")
    return tasks


def evaluate_by_harness(
    library: str,
    routers: Sequence[str],
    tasks: Sequence[str],
    into: Path,
    limit: int | None,
    routing: dict[str, Any],
    how: Loading,
    reading: Reading,
) -> "list[tuple[Path, Scores]]":
    """Let the harness evaluate each router; its results go into a directory, our scores of each metric beside them."""
    if into.suffix and not into.is_dir():
        raise typer.BadParameter("the harness writes several files, so it needs a directory.", param_hint="--into")
    if not tasks:
        raise typer.BadParameter(
            "name the harness's tasks: --tasks FILE, a YAML file of its own.", param_hint="--tasks"
        )
    asked: Sequence[str | None] = routers or (None,)
    chosen = [choose(library, reading, router=router, **routing, tasks_option="--train-tasks") for router in asked]
    from lorary.grid.setup import Setup, file_part
    from lorary.harness.run_harness import check_tasks, run_harness, write_scores

    check_tasks(tasks)
    named = None if library == BARE else library
    base, written = None, []
    for choice, router in zip(chosen, asked, strict=True):
        name = Setup(named, router).label
        model = choice.open(base=base, tell=say, **how.options)
        base = model.base
        with model:
            for scores in run_harness(model, tasks, name=name, into=into, limit=limit):
                file = into / f"{file_part(name)}.{file_part(scores.metric)}.jsonl"
                write_scores(scores, file)
                written.append((file, scores))
    return written


def print_harness(runs: "Sequence[tuple[Path, Scores]]", *, json: bool) -> None:
    """Print the table of several models, a column for each metric of each task."""
    if json:
        return print_runs(runs, json=True)
    from lorary.reporting.table import make_table

    return print_rich(make_table({"lm-evaluation-harness": [scores for _, scores in runs]}).to_rich())
