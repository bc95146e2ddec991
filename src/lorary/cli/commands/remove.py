"""`lorary remove`: a library -> the same without some experts."""

from pathlib import Path
from typing import Annotated

import typer

from lorary.cli.options.completion import offer_experts
from lorary.cli.options.parameters import Json
from lorary.cli.printing.console import print_json


def remove(
    library: Annotated[Path, typer.Argument(metavar="LIBRARY", help="The library.")],
    name: Annotated[
        list[str],
        typer.Argument(metavar="NAME", help="Names of experts, intact or damaged.", autocompletion=offer_experts),
    ],
    json: Json = False,
) -> None:
    """Remove experts from a library and delete their files. If a name is unknown, none is removed."""
    from lorary.library.library import Library

    opened = Library.open(library, skip_bad=True)
    names = list(dict.fromkeys(name))
    for one in names:
        if one not in opened.bad:
            opened[one]  # raises E-NAME, with the names that are near
    with opened.noted_once():
        for one in names:
            opened.remove(one)
    if json:
        return print_json({"library": str(library), "removed": names, "experts": list(opened), "bad": opened.bad})
    bad = f", {len(opened.bad)} of them bad" if opened.bad else ""
    return print(f"{library}: {len(names)} removed, {len(opened) + len(opened.bad)} left{bad}")
