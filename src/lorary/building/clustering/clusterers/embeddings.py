"""Tasks whose examples look alike to the base."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from lorary.adapters.contract import Experts
from lorary.building.clustering.clusters import Clusters, name_groups
from lorary.building.clustering.contract import Clusterer, TaskProbe
from lorary.building.clustering.k_means import K, group
from lorary.building.limits import check_positive
from lorary.errors import BuildError
from lorary.options import as_dict


@dataclass(frozen=True)
class Embeddings(Clusterer):
    """Cluster tasks by the mean hidden state that the base has on their examples.

    e_t (d,): the states of layer `layer` (-2: the last but one, -1: the last), mean over the tokens of an example,
    then over the first n_examples of the task; k-means on the rows e_t. k="auto": the k of the highest silhouette.
    An expert of several tasks is the mean of them. The map is the cosine of the e_t, less their common mean.
    Source: Embeddings in Ostapenko et al. 2024 (2405.11157) Table 2.
    Differs: the number of examples is ours; the paper gives none.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"examples"})

    k: K = 10
    """Number of clusters; "auto": that of the highest silhouette."""
    layer: int = -2
    """Layer whose hidden states are averaged; -1 is the last."""
    n_examples: int = 64
    """Examples of each task."""
    seed: int = 42
    """Seed of all that is drawn at random."""

    def __post_init__(self) -> None:
        """Refuse options that have no meaning."""
        super().__post_init__()
        check_positive(self, "n_examples", *(["k"] if self.k != "auto" else []))

    def cluster(
        self, experts: Experts, tasks_of: Mapping[str, Sequence[str]], probe: TaskProbe | None = None
    ) -> Clusters:
        """Group the tasks. Raises E-CLUSTERS without a probe."""
        if probe is None:
            raise BuildError(
                "E-CLUSTERS", "embeddings need the base and the tasks.", "Pass base=... and tasks=..., or --tasks DIR."
            )
        names = sorted(tasks_of)
        states = {
            task: probe.mean_state(task, layer=self.layer, n_examples=self.n_examples)
            for task in sorted({task for owned in tasks_of.values() for task in owned})
        }
        points = torch.stack([torch.stack([states[t] for t in tasks_of[name]]).mean(0) for name in names]).double()
        apart = torch.nn.functional.normalize(points - points.mean(0), dim=1)
        similarity = np.asarray((apart @ apart.T).numpy())
        labels, curve = group(points.numpy(), similarity, self.k, self.seed)
        groups = name_groups(labels, [tasks_of[name] for name in names])
        return Clusters(groups, as_dict(self), names=tuple(names), similarity=similarity.tolist(), curve=curve)
