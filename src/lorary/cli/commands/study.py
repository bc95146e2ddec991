"""`lorary study`: a whole experiment of docs/, run again or taken further."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from lorary.cli.application import resumable
from lorary.cli.models import check_base, load
from lorary.cli.options.loading import Loading
from lorary.cli.options.parameters import (
    EMBEDDED,
    BaseToBuildOn,
    Json,
    KnownStudy,
    count_option,
    names,
    numbers,
    refuse_given,
)
from lorary.cli.printing.console import print_json, say

_EVIDENCE_ONLY = ("data", "arms", "sizes", "others", "n_score", "n_answer")


def study(
    context: typer.Context,
    name: Annotated[KnownStudy, typer.Argument(metavar="NAME", help="Which study: builders or evidence.")],
    data: Annotated[
        Path | None, typer.Option(metavar="DIR", help="evidence: directory with its collections of tasks.")
    ] = None,
    into: Annotated[Path, typer.Option(metavar="DIR", help="For experts, libraries and runs.")] = Path("study"),
    arms: Annotated[str, typer.Option(metavar="LIST", help="evidence: what to compare.")] = "routers",
    sizes: Annotated[str, typer.Option(metavar="LIST", help="evidence: experts in a library.")] = "16",
    seeds: Annotated[str, typer.Option(metavar="LIST", help="Seeds of the training.")] = "42",
    others: Annotated[str, typer.Option(metavar="LIST", help="evidence: further libraries.")] = "",
    n_score: Annotated[int, count_option("evidence: test examples per task for the loss.")] = 16,
    n_answer: Annotated[int, count_option("evidence: test examples per task for Rouge-L.")] = 8,
    base: BaseToBuildOn = EMBEDDED,
    *,
    how: Loading,
    json: Json = False,
) -> None:
    """Run one of the documented experiments and print its tables. Interrupted, the same command resumes.

    LIST: numbers or names, separated by commas.
    """
    from lorary.disk.writing import check_writable

    check_base(base)
    check_writable(into / "libs")
    if name == KnownStudy.BUILDERS:
        refuse_given(context, _EVIDENCE_ONLY, "only the study evidence has this option")
        from lorary.studies.builders import budgets, run_seeds

        planned = budgets(numbers(seeds))
        with resumable():
            tables = run_seeds(load(base, how), into, say, planned)
        if json:
            return print_json([asdict(table) for table in tables])
        return print(*(f"### {table.title}\n\n{table.to_markdown()}" for table in tables), sep="\n")
    if data is None:
        raise typer.BadParameter("evidence needs its collections of tasks", param_hint="--data")

    from lorary.studies.evidence import Study, run_study
    from lorary.studies.evidence_table import make_lines, summarise, to_markdown
    from lorary.studies.evidence_tasks import read_study_tasks

    lists: dict[str, Any] = {"sizes": numbers(sizes), "seeds": numbers(seeds)}
    asked = Study(**lists, others=names(others), arms=names(arms), n_score=n_score, n_answer=n_answer)
    tasks = read_study_tasks(data)
    with resumable():
        results = run_study(asked, load(base, how), tasks, into, say)
    lines = make_lines(results, tasks)
    if json:
        return print_json([vars(line) for line in lines])
    return print("\n".join([to_markdown(lines), summarise(lines)]))
