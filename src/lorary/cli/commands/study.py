"""`lorary study`: a whole experiment on a base and tasks: libraries, scores, a table, and whether a claim holds."""

from pathlib import Path
from typing import Annotated

import typer

from lorary.cli.application import or_list, resumable
from lorary.cli.models import check_base, load
from lorary.cli.options.completion import offer_methods
from lorary.cli.options.loading import Loading, Reading
from lorary.cli.options.parameters import EMBEDDED, TASKS, BaseOfLibrary, Json, OnlyTasks, numbers
from lorary.cli.printing.console import say
from lorary.cli.printing.findings import print_costs, print_findings


def study(
    name: Annotated[
        str,
        typer.Argument(
            metavar="SPEC",
            is_eager=True,
            callback=or_list("STUDIES"),
            autocompletion=offer_methods("STUDIES"),
            help="Which study, e.g. builders:steps=20 (`list` shows all).",
        ),
    ],
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
    seeds: Annotated[
        str | None, typer.Option(metavar="LIST", help="Repeat it with each of these seeds, e.g. 42,43,44.")
    ] = None,
    base: BaseOfLibrary = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print plan and cost; train and write nothing.")] = False,
    *,
    how: Loading,
    reading: Reading,
    json: Json = False,
) -> None:
    """Build, score and compare, and say whether a study's claims hold here. Interrupted, the same command resumes."""
    from lorary.disk.writing import check_writable
    from lorary.folder import STUDIES
    from lorary.library.library import Library

    library = None if source is None else Library.open(source)
    check_base(base, library)
    asked = STUDIES.parse(name)
    check_writable(into / "libs")
    from lorary.studies.cost import foresee
    from lorary.studies.run import repeated, run_study
    from lorary.studies.subject import choose_subject
    from lorary.using.base_of import base_of

    repeats = None if seeds is None else numbers(seeds)
    repeated(asked, repeats)  # what it refuses is told before anything is read
    subject = choose_subject(tasks, heldout or (), only or (), reading.options, library)
    named = base or (EMBEDDED if library is None else base_of(library))
    if dry_run:
        from lorary.model.base.outline import name_of, outline

        return print_costs(foresee(asked, subject, outline(named), name_of(named), repeats), json)
    asked.plan(subject)
    with resumable():
        done = run_study(asked, subject, load(named, how), into=into, seeds=repeats, tell=say)
    return print_findings(done, json)
