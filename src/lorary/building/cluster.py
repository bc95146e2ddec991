"""Library -> clusters of its tasks."""

from dataclasses import replace

from lorary.adapters.peft_format import read_experts
from lorary.building.base import Clusterer, Clusters
from lorary.errors import BuildError
from lorary.folder import CLUSTERERS
from lorary.library.library import Library


def cluster(clusterer: Clusterer | str, library: Library) -> Clusters:
    """Group the tasks of a library's experts. Raises E-CLUSTERS for an expert that names no task."""
    clusterer = CLUSTERERS.parse(clusterer) if isinstance(clusterer, str) else clusterer
    tasks_of = {name: library[name].provenance.tasks for name in sorted(library)}
    for name, tasks in tasks_of.items():
        if not tasks:
            raise BuildError("E-CLUSTERS", f"expert {name!r} names no task in its expert.json.", "Add it with --tasks.")
    return replace(clusterer.cluster(read_experts(library), tasks_of), source=library.hash)
