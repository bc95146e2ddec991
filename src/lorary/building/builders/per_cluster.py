"""One expert per cluster of tasks."""

from dataclasses import dataclass, field

from lorary.building.clustering.clusters import Clusters
from lorary.building.contract import Job
from lorary.building.training.packs import TrainedBuilder
from lorary.errors import BuildError
from lorary.library.library import Library
from lorary.tasks.task import Tasks


@dataclass(frozen=True)
class PerCluster(TrainedBuilder):
    """Train one LoRA per cluster, from scratch, on the joined data of the cluster's tasks.

    `clusters` comes from `cluster`, on the command line as the path of its groups.json. `steps` counts per cluster;
    None = `epochs` over the joined data, so that larger clusters get more.
    Source: Ostapenko et al. 2024 (2405.11157) Algorithm 1, second stage.
    """

    clusters: Clusters = field(kw_only=False)
    """Groups of tasks that `cluster` made; on the command line the path of its groups.json."""

    def plan(self, tasks: Tasks, source: Library | None = None) -> list[Job]:
        """Plan one job per cluster, named after it.

        Raises E-CLUSTERS for no clusters, and for a task that isn't given, or is in one cluster twice.
        """
        if not self.clusters:
            raise BuildError("E-CLUSTERS", "there are no clusters to build experts of.", "Cluster a library.")
        for name, members in self.clusters.items():
            twice = [task for task in members if members.count(task) > 1]
            if twice:
                raise BuildError("E-CLUSTERS", f"cluster {name!r} has task {twice[0]!r} twice.", "Name it once.")
            missing = [task for task in members if task not in tasks]
            if missing:
                raise BuildError("E-CLUSTERS", f"cluster {name!r}: no data for task {missing[0]!r}.", "Give its tasks.")
        return [
            self.job(name, [self.clusters.part(name, tasks[t]) for t in members])
            for name, members in self.clusters.items()
        ]
