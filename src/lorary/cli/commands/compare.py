"""`lorary compare`: two runs -> whether one is better than the other."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from lorary.cli.options.parameters import Json
from lorary.cli.printing.console import print_json, print_table


def compare(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="File written by `lorary eval`.")],
    other: Annotated[Path, typer.Argument(metavar="RUN", help="Another, on the same examples by the same metric.")],
    json: Json = False,
) -> None:
    """Compare two runs example by example: the difference, its interval, and whether they can be told apart."""
    from lorary.evaluation.compare import compare as run_compare
    from lorary.evaluation.scores import read_scores

    one, two = read_scores(run), read_scores(other)
    found = run_compare(one, two)
    means = [(task, mean, two.per_task()[task]) for task, mean in one.per_task().items()]
    if json:
        facts = {key: None if value != value else value for key, value in asdict(found).items()}  # nan is no JSON
        tasks = {task: {"a": a, "b": b} for task, a, b in means}
        return print_json({**facts, "can_be_told_apart": found.is_clear, "verdict": found.verdict, "tasks": tasks})
    print_table([("task", *_names(one.name, two.name), "difference"), *(_row(*row) for row in means)])
    print(f"{found}.")
    return print(found.verdict)


def _names(one: str, other: str) -> tuple[str, str]:
    return (one or "the first", other or "the second") if one != other else (f"{one} (first)", f"{other} (second)")


def _row(task: str, one: float, other: float) -> tuple[str, str, str, str]:
    return task, f"{one:.3f}", f"{other:.3f}", f"{one - other:+.3f}"
