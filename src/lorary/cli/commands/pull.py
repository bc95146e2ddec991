"""`lorary pull`: a repository on the Hub -> a library."""

from pathlib import Path
from typing import Annotated

import typer

from lorary.cli.application import resumable
from lorary.cli.options.parameters import Json
from lorary.cli.printing.console import print_json


def pull(
    place: Annotated[str, typer.Argument(metavar="PLACE", help="hf://user/repo[/folder][@revision].")],
    library: Annotated[Path, typer.Argument(metavar="LIBRARY", help="Directory for it; must not exist yet.")],
    json: Json = False,
) -> None:
    """Fetch a library from the Hub and check every expert. If it fails, no library is left behind.

    library.json records the commit. To take single adapters or whatever passes, use `add`.
    """
    from lorary.using.hub import pull as run

    with resumable():
        found = run(place, library)
    if json:
        return print_json({"library": str(library), "source": found.source, "experts": list(found)})
    print(f"{library}: {len(found)} experts of {found.source or place}")
    return None
