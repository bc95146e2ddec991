"""`lorary eval`: a library, or the bare base, on held-out tasks."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lorary.cli.application import or_list, resumable
from lorary.cli.console import print_json, print_table, progress
from lorary.cli.models import LIBRARY, opened
from lorary.cli.parameters import BaseOfLibrary, Device, Dtype, HowToMix, Json, MaxShare

if TYPE_CHECKING:
    from lorary.evaluation.scores import Scores


def evaluate(
    library: Annotated[str, typer.Argument(metavar="LIBRARY", help=LIBRARY)],
    tasks: Annotated[
        str, typer.Argument(metavar="TASKS", help="Directory, glob or file of tasks; their test parts are scored.")
    ],
    router: Annotated[
        str | None,
        typer.Option(metavar="SPEC", is_eager=True, callback=or_list("ROUTERS"), help="As arrow:top_k=4; or: list."),
    ] = None,
    metric: Annotated[
        str, typer.Option(metavar="SPEC", is_eager=True, callback=or_list("EVALUATORS"), help="As rouge_l; or: list.")
    ] = "rouge_l",
    into: Annotated[Path, typer.Option(metavar="FILE", help="The run's file; `lorary report` reads it.")] = ...,  # type: ignore[assignment]
    mix: HowToMix = None,
    max_share: MaxShare = None,
    base: BaseOfLibrary = None,
    train_tasks: Annotated[
        str | None, typer.Option(metavar="DIR", help="What the library was built from, for routers that need it.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many examples of each task.")] = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    json: Json = False,
) -> None:
    """Score a library on held-out tasks. The router is compass unless you say otherwise."""
    from lorary.evaluation.run import check_into
    from lorary.evaluation.run import evaluate as run
    from lorary.folder import EVALUATORS
    from lorary.tasks.read import read_tasks

    evaluator, data = EVALUATORS.parse(metric), read_tasks(tasks)
    check_into(into)
    how: Any = {"router": router, "mix": mix, "base": base, "tasks": train_tasks, "device": device, "dtype": dtype}
    with (
        opened(library, **how, tasks_option="--train-tasks", max_share=max_share) as model,
        progress("examples") as tell,
        resumable(),
    ):
        scores = run(evaluator, model, data, into=into, limit=limit, progress=lambda done, total: tell(done, total, ""))
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
