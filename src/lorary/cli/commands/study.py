"""`lorary study`: a whole experiment on a base and tasks: libraries, scores, a table, and whether a claim holds."""

from pathlib import Path
from typing import Annotated

import typer

from lorary.cli.application import resumable
from lorary.cli.models import check_base
from lorary.cli.options.completion import offer_words
from lorary.cli.options.loading import Loading, Reading
from lorary.cli.options.parameters import EMBEDDED, TASKS, BaseOfLibrary, Json, OnlyTasks, numbers
from lorary.cli.options.workers import Workers
from lorary.cli.studying import Asked, Benchmarks, StudySpec, print_plan, run

_SCALES = ("tiny", "mini", "paper")  # as in `lorary.studies.scales`, whose import is slow


def study(
    name: StudySpec,
    tasks: Annotated[str | None, typer.Argument(metavar="TASKS", help=f"{TASKS} By default the built-in ones.")] = None,
    into: Annotated[Path, typer.Option(metavar="DIR", help="Directory for libraries, runs and the page.")] = Path(
        "study"
    ),
    source: Annotated[
        Path | None, typer.Option("--from", metavar="LIBRARY", help="The library, for studies that start from one.")
    ] = None,
    heldout: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Task to hold out of training; repeatable.")
    ] = None,
    only: OnlyTasks = None,
    scale: Annotated[
        str | None,
        typer.Option(
            metavar="SCALE", autocompletion=offer_words(*_SCALES),
            help="Preset: tiny (minutes), mini (hours of two cores) or paper (its settings, for GPUs).",
        ),
    ] = None,
    seeds: Annotated[
        str | None, typer.Option(metavar="LIST", help="Repeat it with each of these seeds, e.g. 42,43,44.")
    ] = None,
    base: BaseOfLibrary = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print plan and cost; train and write nothing.")] = False,
    *,
    scored: Benchmarks,
    workers: Workers,
    how: Loading,
    reading: Reading,
    json: Json = False,
) -> None:  # fmt: skip
    """Build, score and compare, and say whether a study's claims hold here. Interrupted, the same command resumes.

    The study `paper` runs all of the paper's studies on the same tasks and writes an overview.
    """
    from lorary.disk.writing import check_writable
    from lorary.library.library import Library

    library = None if source is None else Library.open(source)
    check_base(base, library)
    scored.check()
    asked = Asked(name, scale, None if seeds is None else numbers(seeds))
    check_writable(into / "libs")
    from lorary.studies.subject import choose_subject
    from lorary.using.base_of import base_of

    subject = scored.on(choose_subject(tasks, heldout or (), only or (), reading.options, library))
    named = base or (EMBEDDED if library is None else base_of(library))
    if dry_run:
        return print_plan(asked, subject, named, json)
    with resumable():
        return run(asked, subject, named, into, how, workers, json)
