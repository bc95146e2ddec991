"""`lorary gc`: a library -> the same without what killed processes left in it."""

from pathlib import Path
from typing import Annotated

import typer

from lorary.cli.options.parameters import Json
from lorary.cli.printing.console import print_json, printable


def gc(
    library: Annotated[Path, typer.Argument(metavar="LIBRARY", help="The library.")],
    states: Annotated[
        bool, typer.Option("--states", help="Also delete what routers know of its experts, which is fitted again.")
    ] = False,
    json: Json = False,
) -> None:
    """Collect what killed processes left, and put back an expert whose replacement was cut short.

    What was learned with the experts stays, and so does what a build that isn't done needs to go on.
    """
    from lorary.library import derived
    from lorary.library.library import Library

    opened = Library.open(library, skip_bad=True)
    done = opened.gc() + [f"removed {name}" for name in derived.gc(opened, keep=None if not states else ())]
    if json:
        return print_json({"library": str(library), "done": done})
    print("\n".join(printable(line) for line in done) or f"{library}: nothing to collect")
    return None
