"""`lorary build`: tasks, and perhaps a library -> a library."""

from pathlib import Path
from typing import Annotated

import typer

from lorary.cli.application import or_list, resumable
from lorary.cli.console import print_json, progress, say
from lorary.cli.parameters import TASKS, Ignore, Json, WhichAnswers
from lorary.cli.plan import print_plan
from lorary.cli.recipe import check_backend, choose_backend, gather
from lorary.cli.work import Work


def build(
    tasks: Annotated[
        str | None,
        typer.Argument(metavar="TASKS", help=TASKS),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(metavar="SPEC", is_eager=True, callback=or_list("BUILDERS"), help="As private:rank=4; or: list."),
    ] = None,
    into: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="The library's directory; experts that are there already are kept."),
    ] = None,
    recipe: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A TOML file that says all this; what stands here wins.")
    ] = None,
    source: Annotated[
        Path | None, typer.Option("--from", metavar="LIBRARY", help="What merges and adaptations start from.")
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Base model; by default that of --from, else the embedded one."),
    ] = None,
    only: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Only this task; may be repeated.")] = None,
    ignore: Ignore = None,
    answers: WhichAnswers = None,
    backend: Annotated[
        str,
        typer.Option(metavar="SPEC", is_eager=True, callback=or_list("BACKENDS"), help="As ray:gpus=0.25; or: list."),
    ] = "local",
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Processes on this machine; by default as cores and memory allow."),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Of each; by default the cores shared out to all packs of jobs.")
    ] = None,
    run: Annotated[
        str | None,
        typer.Option(envvar="SLURM_ARRAY_JOB_ID", help="Names workers that belong together: they try a job once."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print plan and cost; train and write nothing.")] = False,
    device: Annotated[str | None, typer.Option(help="Where to compute: auto (the default), cpu, cuda, mps.")] = None,
    dtype: Annotated[str | None, typer.Option(help="auto (the default), float32, bfloat16 or float16.")] = None,
    json: Json = False,
) -> None:
    """Build a library of experts. Stopped anywhere, the same command goes on where it was."""
    given = {
        "tasks": tasks, "builder": method, "into": into, "source": source, "base": base, "only": tuple(only or ()),
        "ignore": tuple(ignore or ()), "answers": answers and answers.value, "device": device, "dtype": dtype,
    }  # fmt: skip
    if not dry_run:
        check_backend(backend)
    made = gather(recipe, {key: value for key, value in given.items() if value}, to_load=not dry_run)
    place = choose_backend(backend, workers=workers, threads=threads)
    if dry_run:
        return print_plan(made, json)

    from lorary.building.work.backend import build_recipe

    with progress("training steps") as tell, Work(tell, made.into).watched() as work, resumable():
        library = build_recipe(made, backend=place, run=run, report=work.on_step, on_plan=work.on_plan, tell=say)
    if json:
        return print_json({"library": str(made.into), "experts": list(library)})
    print(f"{made.into}: {len(library)} experts")
    return None
