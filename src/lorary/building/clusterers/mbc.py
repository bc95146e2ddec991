"""Model-based clustering: tasks whose private LoRAs are alike."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.cluster import KMeans
from torch import Tensor

from lorary.adapters.base import Experts, Weights
from lorary.adapters.low_rank import LowRankWeights
from lorary.building.base import Clusterer, Clusters, check_positive, name_groups
from lorary.errors import BuildError
from lorary.options import as_dict


@dataclass(frozen=True)
class MBC(Clusterer):
    """Cluster tasks by the cosine similarity of their private LoRAs.

    Steps, N experts with D numbers each: (1) a_t (D,): all factors of an expert, flattened and joined. (2) The
    `sparsity` smallest share of |a_t| is set to 0. (3) U (N, c): the `components` leading principal axes, scaled by
    their singular values, not centred. (4) Rows to unit length; S = U U^T (N, N). (5) k-means, k-means++ and 10
    starts, on the rows of S.
    Source: Ostapenko et al. 2024 (2405.11157) Algorithm 1; step 2 and the constants from its code.
    Differs: U comes from the exact Gram matrix a a^T (its eigenvectors are the left singular vectors), not from a
    randomised SVD of the stacked (N, D) matrix; memory N^2 and two experts' worth of one site.
    Raises E-CLUSTERS for k above the number of experts or experts without common sites and shapes.
    """

    k: int = 10
    sparsity: float = 0.5
    components: int = 64
    seed: int = 42

    def __post_init__(self) -> None:
        """Refuse options that have no meaning."""
        check_positive(self, "k", "components")
        if not 0 <= self.sparsity < 1:
            raise BuildError("E-OPTION", f"mbc: sparsity={self.sparsity}, expected a share from 0 to below 1.")

    def cluster(self, experts: Experts, tasks_of: Mapping[str, Sequence[str]]) -> Clusters:
        """Group the tasks; cluster names go by their first expert."""
        names = sorted(experts)
        if self.k > len(names):
            raise BuildError("E-CLUSTERS", f"mbc: k={self.k}, but there are {len(names)} experts.", "Lower k.")
        similarity = cosine_map(gram(experts, self.sparsity), self.components)
        means = KMeans(n_clusters=self.k, init="k-means++", n_init=10, random_state=self.seed).fit(similarity)
        groups = name_groups(means.labels_.tolist(), [tasks_of[name] for name in names])
        return Clusters(groups, method=as_dict(self), names=tuple(names), similarity=similarity.tolist())


def gram(experts: Experts, sparsity: float) -> np.ndarray:
    """Compute all inner products of the sparsified flattened experts, (N, N) float64, site by site."""
    names = sorted(experts)
    sites = sorted({site for name in names for site in experts[name]})
    floors = [_threshold(experts[name], sparsity) for name in names]
    total = np.zeros((len(names), len(names)))
    for site in sites:
        rows = [_sparse_row(experts[name].get(site), floor) for name, floor in zip(names, floors, strict=True)]
        if len({row.numel() for row in rows}) > 1:
            raise BuildError(
                "E-CLUSTERS", f"mbc: experts differ in shape or are missing at {site!r}.", "Build them alike."
            )
        block = torch.stack(rows)
        total += (block @ block.T).double().numpy()
    return total


def _flat(weights: Weights) -> Tensor:
    assert isinstance(weights, LowRankWeights), type(weights)
    return torch.cat([weights.a.float().flatten(), weights.b.float().flatten()])


def _threshold(expert: Mapping[str, Weights], sparsity: float) -> float:
    """Find the `sparsity` quantile of |a_t| (linear between neighbours, as torch.quantile)."""
    values = torch.cat([_flat(expert[site]).abs() for site in sorted(expert)]).numpy()
    return float(np.quantile(values, sparsity)) if sparsity else -1.0


def _sparse_row(weights: Weights | None, floor: float) -> Tensor:
    if weights is None:
        return torch.zeros(0)
    row = _flat(weights)
    return row * (row.abs() > floor)


def cosine_map(inner: np.ndarray, components: int) -> np.ndarray:
    """Turn a Gram matrix (N, N) into the cosine matrix of its leading principal axes, (N, N)."""
    values, vectors = np.linalg.eigh(inner)  # ascending
    values = np.clip(values[::-1][:components], 0, None)
    scaled = vectors[:, ::-1][:, :components] * np.sqrt(values)  # (N, c) = U Sigma
    norms = np.linalg.norm(scaled, axis=1, keepdims=True)
    unit = scaled / np.where(norms > 0, norms, 1)
    return np.asarray(unit @ unit.T)
