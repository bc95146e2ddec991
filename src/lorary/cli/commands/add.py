"""`lorary add`: adapters that others trained -> experts of a library."""

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from lorary.cli.adding import Arrivals, find_adapters
from lorary.cli.application import resumable
from lorary.cli.console import print_json
from lorary.cli.exit_codes import FAILED
from lorary.cli.parameters import Json


def add(
    library: Annotated[Path, typer.Argument(metavar="LIBRARY", help="The library; made if there is none.")],
    source: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE",
            help="PEFT adapter directories, folders of them, or hf://user/repo[/folder][@revision].",
        ),
    ],
    name: Annotated[
        str | None, typer.Option("--as", metavar="NAME", help="What to call one adapter; by default as its directory.")
    ] = None,
    task: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A task it was trained on; may be repeated. {name}: the expert's own name."),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The base they were trained on, whatever they call it themselves."),
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Put them in the place of experts of their names.")
    ] = False,
    json: Json = False,
) -> int | None:
    """Check adapters and copy them in. Settings and every number are checked, and sizes if the base is on this machine.

    What is refused leaves the library as it was. Of a folder, all that pass are added; exit code 1: some did not.
    """
    with tempfile.TemporaryDirectory(prefix="lorary-") as folder:
        found = find_adapters(source, Path(folder))
        if name is not None and (len(source) > 1 or found[0].is_one_of_many):
            raise typer.BadParameter("it is for one adapter; many are called as their directories.", param_hint="--as")
        arrivals = Arrivals(library, tasks=task or [], base=base, replace=replace)
        if len(source) == 1 and not found[0].is_one_of_many:
            added = arrivals.take(found[0], name)
            lines = [f"{library}/{added.expert}: {added.about}"]
        else:
            with resumable():
                arrivals.take_all(found)
            lines = [arrivals.summary]
    print_json(arrivals.as_json()) if json else print("\n".join(lines))
    return FAILED if arrivals.refused else None
