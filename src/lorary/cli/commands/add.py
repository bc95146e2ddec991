"""`lorary add`: adapters that others trained -> experts of a library."""

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from lorary.cli.adding import Arrivals
from lorary.cli.application import resumable
from lorary.cli.console import print_json
from lorary.cli.exit_codes import FAILED
from lorary.cli.loading import VocabSize
from lorary.cli.parameters import Json, base_option
from lorary.cli.sources import find_adapters


def add(
    library: Annotated[
        Path, typer.Argument(metavar="LIBRARY", help="The library to add to; created if it doesn't exist.")
    ],
    source: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE",
            help="PEFT adapter directories, folders of them, or hf://user/repo[/folder][@revision].",
        ),
    ],
    name: Annotated[
        str | None,
        typer.Option("--as", metavar="NAME", help="Name for a single adapter; its directory's name by default."),
    ] = None,
    task: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Task it was trained on; repeatable. {name} stands for the expert's name."),
    ] = None,
    base: Annotated[
        str | None,
        base_option("The base the adapters were trained on, whatever name they use for it."),
    ] = None,
    vocab_size: VocabSize = None,
    replace: Annotated[bool, typer.Option("--replace", help="Replace existing experts of the same name.")] = False,
    probe: Annotated[
        bool,
        typer.Option("--probe", help="Load the base and report experts that would take most of every text (W-HIJACK)."),
    ] = False,
    json: Json = False,
) -> int | None:
    """Check adapters and copy them into a library.

    Settings and every number are checked, and sizes too if the base is on this machine. A refused adapter leaves the
    library unchanged. From a folder, all that pass are added; exit code 1 means that some did not. Adapters that would
    crowd out others are reported when a router is fitted, or here with --probe.
    """
    with tempfile.TemporaryDirectory(prefix="lorary-") as folder:
        found = find_adapters(source, Path(folder))
        if name is not None and (len(source) > 1 or found[0].is_one_of_many):
            raise typer.BadParameter(
                "it names a single adapter; several keep the names of their directories.", param_hint="--as"
            )
        arrivals = Arrivals(library, tasks=task or [], base=base, replace=replace, vocab_size=vocab_size)
        if len(source) == 1 and not found[0].is_one_of_many:
            added = arrivals.take(found[0], name)
            lines = [f"{library}/{added.expert}: {added.about}"]
        else:
            with resumable():
                arrivals.take_all(found)
            lines = [arrivals.summary]
        if probe:
            arrivals.probe()
    print_json(arrivals.as_json()) if json else print("\n".join(lines))
    return FAILED if arrivals.refused else None
