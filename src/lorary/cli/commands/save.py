"""`lorary save`: a library routed into its base -> one directory that `ask` and `eval` take."""

from pathlib import Path
from typing import Annotated

import typer

from lorary.cli.models import choose, opened
from lorary.cli.options.loading import Loading, Reading
from lorary.cli.options.parameters import BaseOfLibrary, HowToMix, Json, MaxShare, Router, TasksOfLibrary
from lorary.cli.printing.console import print_json


def save(
    library: Annotated[str, typer.Argument(metavar="LIBRARY", help="A library or a saved model.")],
    into: Annotated[Path, typer.Option(metavar="DIR", help="Directory for the saved model; must not exist yet.")],
    router: Router = None,
    mix: HowToMix = None,
    max_share: MaxShare = None,
    base: BaseOfLibrary = None,
    tasks: TasksOfLibrary = None,
    refer: Annotated[
        bool, typer.Option("--refer", help="Record where the experts are instead of copying them.")
    ] = False,
    *,
    how: Loading,
    reading: Reading,
    json: Json = False,
) -> None:
    """Save a routed model: experts, router, its fitted state, mix. `ask`, `eval` and `export` take the result."""
    from lorary.disk.arrival import check_target

    check_target(into)
    choice = choose(library, reading, router=router, mix=mix, max_share=max_share, base=base, tasks=tasks)
    with opened(choice, how) as model:
        model.save(into, experts="refer" if refer else "copy")
        names, identity = model.names, model.identity
    if json:
        return print_json({"model": str(into), "experts": names, "router": identity["router"], "mix": identity["mix"]})
    print(f"{into}: {len(names)} experts, {identity['router']}, mix={identity['mix']}")
    return None
