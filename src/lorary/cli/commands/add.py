"""`lorary add`: adapters that others trained -> experts of a library."""

from pathlib import Path
from typing import Annotated

import typer

from lorary.cli.application import resumable
from lorary.cli.exit_codes import FAILED
from lorary.cli.options.loading import VocabSize
from lorary.cli.options.parameters import Json, base_option
from lorary.cli.printing.console import print_json, say


def add(
    library: Annotated[
        Path, typer.Argument(metavar="LIBRARY", help="The library to add to; created if it doesn't exist.")
    ],
    source: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE",
            help="PEFT adapter directories, folders of them, hf://user/repo[/folder][@revision], "
            "hf://collections/user/slug, or libraries of mttl: directories of .ckpt and .meta files, mttl://user/repo.",
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
    from lorary.disk.processes import scratch
    from lorary.using.sources import find_sources

    with scratch() as folder:
        found = find_sources(source, folder, say)  # before anything slow is imported
        is_lone = len(found) == 1 and not found[0].is_one_of_many
        if name is not None and not is_lone:
            raise typer.BadParameter(
                "it names a single adapter; several keep the names of their directories.", param_hint="--as"
            )
        from lorary.using.add import add as run

        with resumable():
            done = run(
                library, found, name=name, tasks=task or (), base=base, vocab_size=vocab_size, replace=replace,
                probe=probe, tell=say,
            )  # fmt: skip
    if json:
        print_json(done.plain())
    else:
        print(*(f"{library}/{one.expert}: {one.about}" for one in done.added) if is_lone else (done,), sep="\n")
    return FAILED if done.refused else None
