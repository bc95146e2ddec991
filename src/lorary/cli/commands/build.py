"""`lorary build`: tasks -> a library."""

from pathlib import Path
from typing import Annotated

import typer

from lorary.cli.application import or_list, resumable
from lorary.cli.console import print_json, print_table, progress, say
from lorary.cli.parameters import EMBEDDED, BaseToBuildOn, Device, Dtype, Json
from lorary.cli.work import Work


def build(
    tasks: Annotated[
        str, typer.Argument(metavar="TASKS", help="Directory, glob or file of tasks: .jsonl, .jsonl.gz, .parquet.")
    ],
    method: Annotated[
        str,
        typer.Option(metavar="SPEC", is_eager=True, callback=or_list("BUILDERS"), help="As private:rank=4; or: list."),
    ],
    into: Annotated[
        Path, typer.Option(metavar="DIR", help="The library's directory; experts that are there already are kept.")
    ],
    base: BaseToBuildOn = EMBEDDED,
    only: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Only this task; may be repeated.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan; load and write nothing.")] = False,
    device: Device = "auto",
    dtype: Dtype = "auto",
    json: Json = False,
) -> None:
    """Train a library of experts. Stopped anywhere, the same command goes on where it was."""
    from lorary.folder import BUILDERS
    from lorary.tasks.read import read_tasks

    data = read_tasks(tasks, only=only or None)
    builder = BUILDERS.parse(method)
    if dry_run:
        return _print_plan(builder, data, json)

    from lorary.building.jobs import build as run
    from lorary.cli.models import load

    loaded = load(base, device, dtype)
    with progress("training steps") as tell, Work(tell, into).watched() as work, resumable():
        library = run(builder, data, loaded, into=into, report=work.on_step, on_plan=work.on_plan)
    if json:
        return print_json({"library": str(into), "experts": list(library)})
    print(f"{into}: {len(library)} experts")
    return None


def _print_plan(builder: object, data: object, json: bool) -> None:
    from lorary.tasks.look import look

    for finding in look(data).findings:  # type: ignore[arg-type]
        say(finding)
    jobs = [job.describe() for job in builder.plan(data)]  # type: ignore[attr-defined]
    if json:
        return print_json(jobs)
    rows = [(j["expert"], j["steps"], j["examples"]["train"], j["examples"]["valid"], len(j["tasks"])) for j in jobs]
    return print_table([("expert", "steps", "train", "valid", "tasks"), *rows])
