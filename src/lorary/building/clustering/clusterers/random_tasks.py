"""Each task in a cluster drawn at random: what clustering has to beat."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lorary.adapters.contract import Experts
from lorary.building.clustering.clusters import Clusters, name_groups
from lorary.building.clustering.contract import Clusterer, TaskProbe
from lorary.building.limits import check_positive
from lorary.options import as_dict


@dataclass(frozen=True)
class RandomTasks(Clusterer):
    """Deal the tasks out to k clusters at random.

    Each task, in order of the names, draws one of k clusters; sizes differ, and a cluster that none drew is left out.
    Source: RandTask in Ostapenko et al. 2024 (2405.11157) Table 2; the drawing from its code.
    """

    k: int = 10
    """Number of clusters."""
    seed: int = 42
    """Seed of all that is drawn at random."""

    def __post_init__(self) -> None:
        """Refuse options that have no meaning."""
        super().__post_init__()
        check_positive(self, "k")

    def cluster(
        self, experts: Experts, tasks_of: Mapping[str, Sequence[str]], probe: TaskProbe | None = None
    ) -> Clusters:
        """Group the tasks; the experts aren't looked at."""
        tasks = sorted({task for owned in tasks_of.values() for task in owned})
        labels = np.random.default_rng(self.seed).integers(0, self.k, len(tasks)).tolist()
        return Clusters(name_groups(labels, [(task,) for task in tasks]), as_dict(self))
