"""`lorary study`: a whole experiment of docs/, run again or taken further."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from lorary.cli.application import resumable
from lorary.cli.console import print_json, say
from lorary.cli.models import check_base
from lorary.cli.parameters import EMBEDDED, BaseToBuildOn, Device, Dtype, Json, names, numbers

_LIST = "numbers or names, separated by commas"


_EVIDENCE_ONLY = ("data", "arms", "sizes", "others", "n_score", "n_answer")


def study(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Which study: builders or evidence.")],
    data: Annotated[
        Path | None, typer.Option(metavar="DIR", help="evidence: where its collections of tasks are.")
    ] = None,
    into: Annotated[Path, typer.Option(metavar="DIR", help="For experts, libraries and runs.")] = Path("study"),
    arms: Annotated[str, typer.Option(help=f"evidence: what to compare, {_LIST}.")] = "routers",
    sizes: Annotated[str, typer.Option(help=f"evidence: experts in a library, {_LIST}.")] = "16",
    seeds: Annotated[str, typer.Option(help=f"Seeds of the training: {_LIST}.")] = "42",
    others: Annotated[str, typer.Option(help=f"evidence: further libraries, {_LIST}.")] = "",
    n_score: Annotated[int, typer.Option(min=1, help="evidence: test examples of a task for the loss.")] = 16,
    n_answer: Annotated[int, typer.Option(min=1, help="evidence: test examples of a task for Rouge-L.")] = 8,
    base: BaseToBuildOn = EMBEDDED,
    device: Device = "auto",
    dtype: Dtype = "auto",
    json: Json = False,
) -> None:
    """Run an experiment of the documentation, or go on with it; ends in its tables."""
    if name not in ("builders", "evidence"):
        raise typer.BadParameter(f"unknown study {name!r}; known: builders, evidence", param_hint="NAME")
    if name == "builders":
        _refuse_evidence_options(context)
    elif data is None:
        raise typer.BadParameter("evidence needs its collections of tasks", param_hint="--data")
    check_base(base)
    from lorary.model.base_model import load_base

    if data is None:
        from lorary.studies.builders import budgets, run_seeds

        planned = budgets(numbers(seeds))
        with resumable():
            tables = run_seeds(load_base(base, device=device, dtype=dtype), into, say, planned)
        if json:
            return print_json([asdict(table) for table in tables])
        return print("\n".join(f"### {table.title}\n\n{table.to_markdown()}" for table in tables))
    from lorary.studies.evidence import Study, run_study
    from lorary.studies.evidence_table import make_lines, summarise, to_markdown
    from lorary.studies.evidence_tasks import read_study_tasks

    asked = Study(
        sizes=numbers(sizes), seeds=numbers(seeds), others=names(others), arms=names(arms), n_score=n_score,
        n_answer=n_answer,
    )  # fmt: skip
    tasks = read_study_tasks(data)
    with resumable():
        results = run_study(asked, load_base(base, device=device, dtype=dtype), tasks, into, say)
    lines = make_lines(results, tasks)
    if json:
        return print_json([vars(line) for line in lines])
    return print("\n".join([to_markdown(lines), summarise(lines)]))


def _refuse_evidence_options(context: typer.Context) -> None:
    for option in _EVIDENCE_ONLY:
        source = context.get_parameter_source(option)
        if source is not None and source.name != "DEFAULT":
            flag = f"--{option.replace('_', '-')}"
            raise typer.BadParameter("only the study evidence has this option", param_hint=flag)
