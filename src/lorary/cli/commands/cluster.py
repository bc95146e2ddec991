"""`lorary cluster`: a library -> groups of its tasks."""

from pathlib import Path
from typing import Annotated

import typer

from lorary.cli.application import or_list
from lorary.cli.console import print_json, print_table, say
from lorary.cli.parameters import Json


def cluster(
    library: Annotated[str, typer.Argument(metavar="LIBRARY", help="A library with one expert per task.")],
    method: Annotated[
        str, typer.Option(metavar="SPEC", is_eager=True, callback=or_list("CLUSTERERS"), help="As mbc:k=10; or: list.")
    ],
    into: Annotated[Path, typer.Option(metavar="FILE", help="The file of groups.")],
    json: Json = False,
) -> None:
    """Group tasks whose experts are alike. `build --method per_cluster:clusters=FILE` trains one per group."""
    from lorary.folder import CLUSTERERS
    from lorary.library.library import Library

    opened = Library.open(library)
    clusterer = CLUSTERERS.parse(method)

    from lorary.building.cluster import cluster as run

    groups = run(clusterer, opened)
    groups.write(into)
    say(f"{len(groups)} clusters written to {into}")
    if json:
        return print_json({name: list(tasks) for name, tasks in groups.items()})
    return print_table([(name, ", ".join(tasks)) for name, tasks in groups.items()])
