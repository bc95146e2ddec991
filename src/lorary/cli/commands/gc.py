"""`lorary gc`: a library -> the same without leftovers of killed processes."""

from pathlib import Path
from typing import Annotated

import typer

from lorary.cli.options.parameters import Json
from lorary.cli.printing.console import print_json, printable


def gc(
    library: Annotated[Path, typer.Argument(metavar="LIBRARY", help="The library.")],
    states: Annotated[
        bool,
        typer.Option("--states", help="Also delete the fitted states of routers; they are fitted again when needed."),
    ] = False,
    json: Json = False,
) -> None:
    """Delete what killed processes left behind, and restore an expert whose replacement was interrupted.

    What was learned with the experts is kept, and so is what an unfinished build needs to resume.
    """
    from lorary.library import derived
    from lorary.library.library import Library

    opened = Library.open(library, skip_bad=True)
    done = opened.gc() + [f"removed {name}" for name in derived.gc(opened, keep=None if not states else ())]
    if json:
        return print_json({"library": str(library), "done": done})
    print("\n".join(printable(line) for line in done) or f"{library}: nothing to collect")
    return None
