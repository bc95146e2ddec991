"""`lorary build`: tasks, and perhaps a library -> a library."""

from pathlib import Path
from typing import Annotated

import typer

from lorary.cli.application import resumable
from lorary.cli.options.loading import Reading, RecipeLoading
from lorary.cli.options.parameters import TASKS, Json, OnlyTasks, TrainShare, base_option, count_option, method_option
from lorary.cli.options.recipe_options import LogTo, RunName, check_backend, choose_backend, gather
from lorary.cli.printing.console import print_json, progress, say
from lorary.cli.printing.plan import print_plan
from lorary.cli.work import Work, trackers


def build(
    tasks: Annotated[str | None, typer.Argument(metavar="TASKS", help=TASKS)] = None,
    method: Annotated[
        str | None, method_option("--method", "BUILDERS", "How to build, e.g. private:rank=4 (`list` shows all).")
    ] = None,
    into: Annotated[Path | None, typer.Option(metavar="DIR", help="The library; existing experts are kept.")] = None,
    recipe: Annotated[
        Path | None, typer.Option(metavar="FILE", help="TOML file with these settings; options override it.")
    ] = None,
    source: Annotated[
        Path | None, typer.Option("--from", metavar="LIBRARY", help="Library that merges and adaptations start from.")
    ] = None,
    base: Annotated[str | None, base_option("Base model; by default that of --into or --from, else embedded.")] = None,
    only: OnlyTasks = None,
    train_share: TrainShare = None,
    backend: Annotated[
        str, method_option("--backend", "BACKENDS", "Where workers run, e.g. ray:gpus=0.25 (`list` shows all).")
    ] = "local",
    workers: Annotated[
        int | None,
        count_option("Worker processes on this machine; by default as cores and memory allow."),
    ] = None,
    threads: Annotated[
        int | None,
        count_option("Threads of each worker; by default the cores are shared out among the jobs."),
    ] = None,
    run: RunName = None,
    log: LogTo = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print plan and cost; train and write nothing.")] = False,
    *,
    how: RecipeLoading,
    reading: Reading,
    json: Json = False,
) -> None:
    """Build a library of experts. Interrupted, the same command resumes."""
    read = {"only": tuple(only or ()), "train_share": train_share, "ignore": tuple(reading.ignore or ())}
    given = {"tasks": tasks, "builder": method, "into": into, "source": source, "base": base, **read}
    given |= {**how.options, "answers": reading.answers and reading.answers.value}
    logs = trackers(log)
    if not dry_run:
        check_backend(backend)
    made, base_name = gather(
        recipe, {key: value for key, value in given.items() if value or value == 0}, to_load=not dry_run
    )
    place = choose_backend(backend, workers=workers, threads=threads)
    if dry_run:
        return print_plan(made, json)

    from lorary.building.build import build_recipe

    with progress("training steps") as bar, Work(bar, made.into, log=logs).watched() as work, resumable():
        library = build_recipe(
            made, backend=place, run=run, report=work.on_step, on_plan=work.on_plan, tell=say, base_name=base_name
        )
    if json:
        return print_json({"library": str(made.into), "experts": list(library)})
    print(f"{made.into}: {len(library)} experts")
    return None
