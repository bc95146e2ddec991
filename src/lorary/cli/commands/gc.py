"""`lorary gc`: a library -> the same without leftovers of killed processes; the cache without what is old."""

from pathlib import Path
from typing import Annotated

import typer

from lorary.cli.options.parameters import Json
from lorary.cli.printing.console import print_json, printable


def gc(
    library: Annotated[
        Path | None, typer.Argument(metavar="LIBRARY", help="The library; without one, only the cache is collected.")
    ] = None,
    states: Annotated[
        bool,
        typer.Option("--states", help="Also delete the fitted states of routers; they are fitted again when needed."),
    ] = False,
    tasks: Annotated[
        bool,
        typer.Option(
            "--tasks", help="Also delete all tasks in the cache, not only old ones; they are read again when needed."
        ),
    ] = False,
    copies: Annotated[
        bool,
        typer.Option(
            "--copies", help="Also delete all copies of the Hub's libraries, not only old ones; they are fetched again."
        ),
    ] = False,
    json: Json = False,
) -> None:
    """Delete what killed processes left behind, and restore an expert whose replacement was interrupted.

    What was learned with the experts is kept, and so is what an unfinished build needs to resume. Tasks in the cache,
    and copies of libraries that `Library.from_pretrained` fetched, are deleted if they weren't used for 30 days.
    """
    from lorary.library import derived
    from lorary.library.library import Library
    from lorary.tasks.stored import entry
    from lorary.using import kept

    done: list[str] = []
    if library is not None:
        opened = Library.open(library, skip_bad=True)
        done = opened.gc() + [f"removed {name}" for name in derived.gc(opened, keep=None if not states else ())]
    done += [f"removed tasks {name}" for name in entry.collect(0.0 if tasks else entry.OLD_S)]
    done += kept.collect_kept(0.0 if copies else kept.OLD_S)
    if json:
        return print_json({"library": None if library is None else str(library), "done": done})
    print("\n".join(printable(line) for line in done) or f"{library or entry.home().parent}: nothing to collect")
    return None
