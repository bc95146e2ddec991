"""Library -> clusters of its tasks."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from lorary.building.clustering.clusters import Clusters
from lorary.building.clustering.contract import Clusterer
from lorary.building.clustering.k_means import Points
from lorary.errors import BuildError
from lorary.folder import CLUSTERERS
from lorary.formats.peft import open_experts
from lorary.library.library import Library
from lorary.model.base.base_model import BaseModel
from lorary.model.probes.task_states import TaskStates
from lorary.options import make, require
from lorary.tasks.task import Tasks


def cluster(
    clusterer: Clusterer | str, library: Library, *, base: BaseModel | None = None, tasks: Tasks | None = None
) -> Clusters:
    """Group the tasks of a library's experts, which are streamed from their files.

    `base` and `tasks`: for methods that need examples. Raises E-CLUSTERS for an expert that names no task, E-OPTION for
    arguments of other types.
    """
    clusterer = CLUSTERERS.parse(clusterer) if isinstance(clusterer, str) else clusterer
    require("clusterer", clusterer, Clusterer, "a clusterer, as MBC(k=4)")
    require("library", library, Library, "a library", "Open it: Library.open(path).")
    probe = TaskStates(base, tasks) if base is not None and tasks is not None else None
    found = clusterer.cluster(open_experts(library), owned_tasks(library), probe)
    return replace(found, source=library.hash)


def join(clusters: Clusters, library: Library) -> Clusters:
    """Let the experts that a library has gained join clusters that were made of it, at the cost of a row each.

    Each goes where k-means would put it: to the cluster whose members' mean row of the map is nearest to its own row.
    The clusters keep their names and members. Raises E-CLUSTERS for clusters without a map, and if an expert of theirs
    is gone.
    """
    clusterer = _made_by(clusters)
    gone = [name for name in clusters.names if name not in library]
    if gone:
        raise BuildError("E-CLUSTERS", f"expert {gone[0]!r} is gone from the library.", "Cluster it again.")
    experts, tasks_of = open_experts(library), owned_tasks(library)
    for name in sorted(set(library) - set(clusters.names)):
        known = {other: experts[other] for other in (*clusters.names, name)}
        clusters = _with_row(clusters, name, clusterer.similarities(name, known), tasks_of)
    return replace(clusters, source=library.hash)


def _made_by(clusters: Clusters) -> Clusterer:
    method = dict(clusters.method)
    name = method.pop("name", None)
    if name is None or not clusters.names:
        raise BuildError("E-CLUSTERS", "these clusters have no map of experts to join.", "Cluster the library again.")
    made: Clusterer = make(CLUSTERERS.load(name), method, called=name)
    return made


def _with_row(clusters: Clusters, name: str, row: list[float], tasks_of: Mapping[str, Sequence[str]]) -> Clusters:
    names = sorted((*clusters.names, name))
    place = names.index(name)
    old = np.asarray(clusters.similarity)
    own = np.delete(np.asarray(row), place)
    home = _nearest(clusters, old, own, members_of(clusters, tasks_of))
    wider = np.insert(np.insert(old, place, own, axis=0), place, row, axis=1)
    groups = {**clusters.groups, home: tuple(sorted({*clusters.groups[home], *tasks_of[name]}))}
    return replace(clusters, groups=groups, names=tuple(names), similarity=wider.tolist())


def _nearest(clusters: Clusters, old: Points, own: Points, members: Mapping[str, Sequence[str]]) -> str:
    def distance(cluster: str) -> float:
        rows = [clusters.names.index(name) for name in members[cluster]]
        return float(np.linalg.norm(old[rows].mean(0) - own)) if rows else math.inf

    return min(clusters, key=distance)


def members_of(clusters: Clusters, tasks_of: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Name the experts of the map that have tasks in each cluster; `tasks_of` names each expert's tasks."""
    return {
        cluster: [name for name in clusters.names if not set(tasks).isdisjoint(tasks_of[name])]
        for cluster, tasks in clusters.items()
    }


def owned_tasks(library: Library) -> dict[str, tuple[str, ...]]:
    """Name each expert's tasks. Raises E-CLUSTERS for an expert that names none."""
    tasks_of = {name: library[name].provenance.tasks for name in sorted(library)}
    for name, tasks in tasks_of.items():
        if not tasks:
            where = library[name].directory
            hint = f"Name its tasks: `lorary add {library.path} {where} --replace --task NAME`."
            raise BuildError("E-CLUSTERS", f"expert {name!r} names no task in its expert.json.", hint)
    return tasks_of
