"""Clusterer: how the tasks of a library are grouped, and the facts about data that it may ask for."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

from torch import Tensor

from lorary.adapters.contract import Experts
from lorary.building.clustering.clusters import Clusters
from lorary.errors import BuildError
from lorary.options import Options


class TaskProbe(Protocol):
    """Facts about the tasks' data; only clusterers whose `needs` has "examples" may ask."""

    def mean_state(self, task: str, *, layer: int, n_examples: int) -> Tensor:
        """Run the base on training examples: the mean over their tokens, then over them, of a layer's states, (d,)."""


@dataclass(frozen=True)
class Clusterer(Options, ABC):
    """Options of one way to group the tasks of a library. `needs`: {"examples"} if it asks the probe."""

    needs: ClassVar[frozenset[str]] = frozenset()

    @abstractmethod
    def cluster(
        self, experts: Experts, tasks_of: Mapping[str, Sequence[str]], probe: TaskProbe | None = None
    ) -> Clusters:
        """Group the tasks of experts; `tasks_of` names each expert's tasks. A partition, whatever the order.

        `experts` may be read from disk each time they are asked for: ask once a site, and keep nothing large.
        """

    def similarities(self, expert: str, experts: Experts) -> list[float]:
        """Compare one expert with all, in order of their names: its row of the map, which `join` adds to it.

        Raises E-CLUSTERS for methods that don't compare experts.
        """
        message = f"{type(self).__name__} can't compare one more expert with the others."
        raise BuildError("E-CLUSTERS", message, "Cluster the whole library again.")
