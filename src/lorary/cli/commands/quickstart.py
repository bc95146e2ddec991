"""`lorary quickstart`: the whole road on small built-in tasks, ending in a report."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from lorary.cli.application import resumable
from lorary.cli.console import print_json, print_rich, progress
from lorary.cli.models import check_base
from lorary.cli.parameters import (
    EMBEDDED,
    BaseToBuildOn,
    Device,
    Dtype,
    HowToMix,
    Ignore,
    Json,
    Mix,
    WhichAnswers,
    reading,
)
from lorary.cli.work import RoadWatcher

_MANY = "may be repeated."


def quickstart(
    into: Annotated[Path, typer.Option(metavar="DIR", help="For libraries, runs and the report.")] = Path("quickstart"),
    base: BaseToBuildOn = EMBEDDED,
    tasks: Annotated[str | None, typer.Option(metavar="DIR", help="Your tasks, not the built-in ones.")] = None,
    heldout: Annotated[list[str] | None, typer.Option(metavar="NAME", help=f"A task not to train on; {_MANY}")] = None,
    only: Annotated[list[str] | None, typer.Option(metavar="NAME", help=f"Only this task; {_MANY}")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Training steps of each private expert.")] = None,
    clusters: Annotated[int | None, typer.Option(min=1, help="Clusters of MBC.")] = None,
    mix: HowToMix = None,
    max_new_tokens: Annotated[int | None, typer.Option(min=1, help="Longest answer, in tokens.")] = None,
    ignore: Ignore = None,
    answers: WhichAnswers = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    json: Json = False,
) -> None:
    """Go the whole road once: build, cluster, route, report. Stopped anywhere, the same command goes on."""
    check_base(base)
    from lorary.studies.quickstart import run_quickstart
    from lorary.studies.road import Road

    given: dict[str, Any] = {"steps": steps, "n_clusters": clusters, "max_new_tokens": max_new_tokens}
    with progress("quickstart") as tell, resumable():
        done = run_quickstart(
            into=into,
            watcher=RoadWatcher(tell),
            road=Road(
                mix=(mix or Mix.FACTORS).value, **{name: value for name, value in given.items() if value is not None}
            ),
            base=base,
            tasks=tasks,
            heldout=heldout or (),
            only=only or (),
            reading=reading(ignore, answers),
            device=device,
            dtype=dtype,
        )
    if json:
        return print_json(asdict(done.table))
    print_rich(done.table.to_rich())
    return print(f"report: {done.report}")
