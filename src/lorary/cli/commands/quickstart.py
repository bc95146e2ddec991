"""`lorary quickstart`: the whole pipeline on small built-in tasks, ending in a report."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from lorary.cli.application import resumable
from lorary.cli.models import check_base
from lorary.cli.options.loading import Loading, Reading
from lorary.cli.options.parameters import EMBEDDED, BaseToBuildOn, HowToMix, Json, Mix, count_option
from lorary.cli.printing.console import print_json, print_rich, progress

_MANY = "repeatable."
_THOUSAND = 1000  # of tokens; `show` prints early results beside the bar: they are no data yet


def quickstart(
    into: Annotated[Path, typer.Option(metavar="DIR", help="Directory for libraries, runs and the report.")] = Path(
        "quickstart"
    ),
    base: BaseToBuildOn = EMBEDDED,
    tasks: Annotated[
        str | None, typer.Option(metavar="TASKS", help="Your tasks, instead of the built-in ones.")
    ] = None,
    heldout: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help=f"Task to hold out of training; {_MANY}")
    ] = None,
    only: Annotated[list[str] | None, typer.Option(metavar="NAME", help=f"Use only this task; {_MANY}")] = None,
    steps: Annotated[int | None, count_option("Training steps of each private expert.")] = None,
    clusters: Annotated[int | None, count_option("How many clusters MBC makes.")] = None,
    mix: HowToMix = None,
    max_new_tokens: Annotated[int | None, count_option("Longest answer, in tokens.")] = None,
    *,
    how: Loading,
    reading: Reading,
    json: Json = False,
) -> None:
    """Run the whole pipeline once: build, cluster, route, report. Interrupted, the same command resumes."""
    from lorary.disk.writing import check_writable

    check_base(base)
    check_writable(into / "libs")
    from lorary.studies.quickstart import run_quickstart
    from lorary.studies.road import Road

    given: dict[str, Any] = {"steps": steps, "n_clusters": clusters, "max_new_tokens": max_new_tokens}
    with progress("quickstart", per=_THOUSAND) as bar, resumable():
        done = run_quickstart(
            into=into,
            progress=bar,
            tell=bar.note,
            show=lambda table: print_rich(table.to_rich(), to_stderr=True),
            road=Road(
                mix=(mix or Mix.FACTORS).value, **{name: value for name, value in given.items() if value is not None}
            ),
            base=base,
            tasks=tasks,
            heldout=heldout or (),
            only=only or (),
            reading=reading.options,
            loading=how.options,
        )
    if json:
        return print_json(asdict(done.table))
    print_rich(done.table.to_rich())
    return print(f"report: {done.report}")
