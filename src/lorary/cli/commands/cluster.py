"""`lorary cluster`: a library -> groups of its tasks."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lorary.cli.models import load
from lorary.cli.options.loading import Loading, Reading
from lorary.cli.options.parameters import BaseOfLibrary, Json, TasksOfLibrary, method_option
from lorary.cli.printing.console import print_json, print_table, say

if TYPE_CHECKING:
    from lorary.building.clustering.clusters import Clusters
    from lorary.library.library import Library


def cluster(
    library: Annotated[str, typer.Argument(metavar="LIBRARY", help="A library with one expert per task.")],
    into: Annotated[Path, typer.Option(metavar="FILE", help="File for the groups.")],
    method: Annotated[
        str | None, method_option("--method", "CLUSTERERS", "How to group, e.g. mbc:k=10 (`list` shows all).")
    ] = None,
    join: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Instead of --method: existing groups that the library's new experts join."),
    ] = None,
    tasks: TasksOfLibrary = None,
    report: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Also write a page with the similarity map, the tree and the choice of k."),
    ] = None,
    base: BaseOfLibrary = None,
    *,
    how: Loading,
    reading: Reading,
    json: Json = False,
) -> None:
    """Group tasks whose experts are alike. `build --method per_cluster:clusters=FILE` trains an expert per group."""
    if (method is None) == (join is None):
        raise typer.BadParameter("give either --method or --join.")
    from lorary.building.clustering.cluster import cluster as run
    from lorary.building.clustering.cluster import join as run_join
    from lorary.building.clustering.clusters import check_groups_place, read_clusters
    from lorary.folder import CLUSTERERS
    from lorary.library.library import Library
    from lorary.tasks.read import read_tasks
    from lorary.using.base_of import base_of

    opened = Library.open(library)
    check_groups_place(into)
    if report is not None:
        from lorary.pages.files import check_page_place

        check_page_place(report)
    if join is not None:
        groups = run_join(read_clusters(join), opened)
    else:
        clusterer, data = CLUSTERERS.parse(str(method)), read_tasks(tasks, **reading.options) if tasks else None
        needs_base = "examples" in clusterer.needs and data is not None
        loaded = load(base or base_of(opened), how) if needs_base else None
        groups = run(clusterer, opened, base=loaded, tasks=data)
    groups.write(into)
    say(f"{len(groups)} clusters written to {into}")
    if report is not None:
        _write_page(groups, opened, report)
    if json:
        return print_json({name: list(tasks) for name, tasks in groups.items()})
    return print_table([(name, ", ".join(tasks)) for name, tasks in groups.items()])


def _write_page(groups: "Clusters", library: "Library", into: Path) -> None:
    from lorary.building.clustering.cluster import members_of, owned_tasks
    from lorary.reporting.cluster_page import report_clusters

    facts = {"library": library.path.name, "source": groups.source, "method": groups.method}
    members = members_of(groups, owned_tasks(library))
    report_clusters(members, groups.names, groups.similarity, into, curve=groups.curve, provenance=facts)
    say(f"page written to {into}")
