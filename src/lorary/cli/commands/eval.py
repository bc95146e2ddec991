"""`lorary eval`: a library, or the bare base, on held-out tasks."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lorary.cli.application import resumable
from lorary.cli.models import LibraryOrBase, choose, opened
from lorary.cli.options.loading import Loading, Reading
from lorary.cli.options.parameters import BaseOfLibrary, HowToMix, Json, MaxShare, Router, count_option, method_option
from lorary.cli.printing.console import print_json, print_table, progress
from lorary.cli.work import ExampleWatcher

if TYPE_CHECKING:
    from lorary.evaluation.scores import Scores


def evaluate(
    library: LibraryOrBase,
    tasks: Annotated[
        str, typer.Argument(metavar="TASKS", help="Directory, glob or file of tasks; their test examples are scored.")
    ],
    router: Router = None,
    metric: Annotated[
        str, method_option("--metric", "EVALUATORS", "How to score, e.g. choice:normalise=byte (`list` shows all).")
    ] = "rouge_l",
    into: Annotated[Path, typer.Option(metavar="FILE", help="File for the scores; `lorary report` reads it.")] = ...,  # type: ignore[assignment]
    mix: HowToMix = None,
    max_share: MaxShare = None,
    base: BaseOfLibrary = None,
    train_tasks: Annotated[
        str | None,
        typer.Option(metavar="TASKS", help="The tasks that the library was built from; some routers need them."),
    ] = None,
    limit: Annotated[int | None, count_option("Score at most N examples of each task.")] = None,
    *,
    how: Loading,
    reading: Reading,
    json: Json = False,
) -> None:
    """Score a library on held-out tasks. Interrupted, the same command resumes."""
    from lorary.evaluation.run import check_into, check_tasks, foresee
    from lorary.evaluation.run import evaluate as run
    from lorary.folder import EVALUATORS
    from lorary.tasks.read import read_tasks

    evaluator, data = EVALUATORS.parse(metric), read_tasks(tasks, **reading.options)
    check_tasks(evaluator, data)
    routing: Any = {"router": router, "mix": mix, "base": base, "max_share": max_share}
    choice = choose(library, reading, **routing, tasks=train_tasks, tasks_option="--train-tasks")
    check_into(into, foresee(evaluator, data, into=into, limit=limit, model=choice.identity))
    with (
        opened(choice, how) as model,
        progress("examples") as tell,
        ExampleWatcher(tell).hearing(model) as watcher,
        resumable(),
    ):
        scores = run(evaluator, model, data, into=into, limit=limit, progress=watcher.on_examples)
    if json:
        return print_json({"run": str(into), **_plain(scores)})
    low, high = scores.interval()
    print_table([(task, f"{mean:.3f}") for task, mean in scores.per_task().items()])
    print(f"{scores.name}: {scores.metric} {scores.mean:.3f} [{low:.3f}, {high:.3f}] ({scores.unit})")
    return None


def _plain(scores: "Scores") -> dict[str, Any]:
    low, high = scores.interval()
    return {
        "name": scores.name,
        "metric": scores.metric,
        "unit": scores.unit,
        "mean": scores.mean,
        "low": low,
        "high": high,
        "tasks": scores.per_task(),
    }
