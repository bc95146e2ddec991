"""`lorary eval`: a library, or the bare base, on held-out tasks or on benchmarks."""

from pathlib import Path
from typing import Annotated

import typer

from lorary.cli.evaluating import Asked, evaluate_many, evaluate_one, exams_of, print_run, print_runs
from lorary.cli.harness import check_harness, evaluate_by_harness, print_harness, require_tasks
from lorary.cli.models import LibraryOrBase
from lorary.cli.options.loading import Loading, Reading
from lorary.cli.options.parameters import (
    BaseOfLibrary,
    HowToMix,
    Json,
    MaxShare,
    OnlyTasks,
    count_option,
    method_option,
)
from lorary.cli.options.workers import Workers
from lorary.cli.printing.benchmarks import print_benchmarks

_ROUTER = "How to route, e.g. arrow:top_k=4 (`list` shows all); compass by default; repeatable."
_METRIC = "How to score, e.g. choice:normalise=byte (`list` shows all); rouge_l by default; repeatable."
_BENCHMARK = (
    "Score a benchmark instead, e.g. piqa, or all that TASKS has (`list` shows them); repeatable. "
    "TASKS is then their directory, or hf://datasets."
)


def evaluate(
    library: LibraryOrBase,
    tasks: Annotated[
        str | None,
        typer.Argument(
            metavar="TASKS",
            help="Directory, glob or file of tasks, save with --harness; their test examples are scored.",
        ),
    ] = None,
    router: Annotated[list[str] | None, method_option("--router", "ROUTERS", _ROUTER)] = None,
    metric: Annotated[list[str] | None, method_option("--metric", "EVALUATORS", _METRIC)] = None,
    benchmark: Annotated[list[str] | None, method_option("--benchmark", "BENCHMARKS", _BENCHMARK)] = None,
    only: OnlyTasks = None,
    into: Annotated[
        Path,
        typer.Option(metavar="FILE|DIR", help="File for the scores, a directory for several pairs; see `report`."),
    ] = ...,  # type: ignore[assignment]
    mix: HowToMix = None,
    max_share: MaxShare = None,
    base: BaseOfLibrary = None,
    train_tasks: Annotated[
        str | None,
        typer.Option(metavar="TASKS", help="The tasks that the library was built from; some routers need them."),
    ] = None,
    limit: Annotated[int | None, count_option("Score at most N examples of each task.")] = None,
    harness: Annotated[
        str | None, typer.Option(metavar="lm-eval", help="Let lm-evaluation-harness evaluate its own tasks instead.")
    ] = None,
    harness_tasks: Annotated[
        list[str] | None,
        typer.Option("--tasks", metavar="FILE|NAME", help="YAML file or name of a task of the harness; repeatable."),
    ] = None,
    *,
    workers: Workers,
    how: Loading,
    reading: Reading,
    json: Json = False,
) -> None:
    """Score a library on held-out tasks or benchmarks. Interrupted, the same command resumes.

    Several routers, metrics or benchmarks make one file for each pair; workers share them.
    """
    routing = {"mix": mix, "max_share": max_share, "base": base, "tasks": train_tasks}
    if harness is not None:
        several = {
            "--metric": metric,
            "--benchmark": benchmark,
            "--only": only,
            "--backend, --workers, --threads": workers.is_given,
        }
        check_harness(harness, {"TASKS": tasks, **several})
        given = (library, router or [], harness_tasks or [], into, limit, routing, how, reading)
        return print_harness(evaluate_by_harness(*given), json=json)
    place = require_tasks(tasks, harness_tasks)
    routers, exams = router or [], exams_of(place, metric or [], benchmark or [], only or [], reading.options)
    asked = Asked(library, routers, exams, into, limit, routing)
    if len(routers) < 2 and len(exams) < 2 and not workers.is_given:
        return print_run(into, evaluate_one(asked, how, reading), json=json)
    runs = evaluate_many(asked, how, reading, workers)
    return print_benchmarks(runs, exams, place, json=json) if benchmark else print_runs(runs, json=json)
