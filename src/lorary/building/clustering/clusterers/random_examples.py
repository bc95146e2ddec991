"""Each example in a cluster drawn at random: what keeping tasks together has to beat."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lorary.adapters.contract import Experts
from lorary.building.clustering.clusters import Clusters
from lorary.building.clustering.contract import Clusterer, TaskProbe
from lorary.building.limits import check_positive
from lorary.options import as_dict


@dataclass(frozen=True)
class RandomExamples(Clusterer):
    """Deal the examples of every task out to k clusters at random.

    Every cluster has all tasks, and about a k-th of the examples of each: those whose hash with the seed says so.
    Source: RandExamples in Ostapenko et al. 2024 (2405.11157) Table 2.
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
        """Give every cluster all tasks, to be dealt out; the experts aren't looked at."""
        tasks = tuple(sorted({task for owned in tasks_of.values() for task in owned}))
        return Clusters({f"c{i}": tasks for i in range(self.k)}, as_dict(self), dealt=self.seed)
