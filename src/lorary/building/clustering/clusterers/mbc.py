"""Model-based clustering: tasks whose private LoRAs are alike."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import hardshrink

from lorary.adapters.contract import Experts, Weights
from lorary.adapters.products import BLOCK_BYTES, add_upper_products, inner_products
from lorary.building.clustering.clusters import Clusters, name_groups
from lorary.building.clustering.contract import Clusterer, TaskProbe
from lorary.building.clustering.k_means import K, Points, group
from lorary.building.limits import check_positive
from lorary.errors import BuildError, OptionError
from lorary.formats.peft import as_vectors
from lorary.options import as_dict


@dataclass(frozen=True)
class MBC(Clusterer):
    """Cluster tasks by the cosine similarity of their private LoRAs.

    Steps, N experts with D numbers each: (1) a_t (D,): all factors of an expert, flattened and joined. (2) The
    `sparsity` smallest share of |a_t| is set to 0. (3) U (N, c): the `components` leading principal axes, scaled by
    their singular values, not centred. (4) Rows to unit length; S = U U^T (N, N). (5) k-means, k-means++ and 10
    starts, on the rows of S. k="auto": the k of the highest silhouette; the curve is kept with the clusters.
    Source: Ostapenko et al. 2024 (2405.11157) Algorithm 1; step 2 and the constants from its code.
    Differs: U comes from the exact Gram matrix a a^T (its eigenvectors are the left singular vectors), not from a
    randomised SVD of the stacked (N, D) matrix; experts are streamed from their files, memory N^2 and a block.
    space="products" compares what the experts add, s B A, instead of how it is written: for experts of any ranks,
    scales and initial A. Steps 1 and 2 are replaced by the exact inner products <s B A, s' B' A'>.
    Raises E-CLUSTERS for k above the number of experts, or experts without common sites and shapes (factors only).
    """

    k: K = 10
    """Number of clusters; "auto": that of the highest silhouette."""
    sparsity: float = 0.5
    """Share of the entries that is set to 0, the smallest."""
    components: int = 64
    """Principal axes that experts are compared on."""
    space: Literal["factors", "products"] = "factors"
    """What is compared: the factors as written, or the products s B A, for experts of any form."""
    seed: int = 42
    """Seed of all that is drawn at random."""

    def __post_init__(self) -> None:
        """Refuse options that have no meaning."""
        super().__post_init__()
        check_positive(self, "components", *(["k"] if self.k != "auto" else []))
        if not 0 <= self.sparsity < 1:
            raise OptionError("E-OPTION", f"mbc: sparsity={self.sparsity}, expected a share from 0 to below 1.")

    def cluster(
        self, experts: Experts, tasks_of: Mapping[str, Sequence[str]], probe: TaskProbe | None = None
    ) -> Clusters:
        """Group the tasks; cluster names go by their first expert."""
        names = sorted(experts)
        similarity = cosine_map(self._gram([experts[name] for name in names]), self.components)
        labels, curve = group(similarity, similarity, self.k, self.seed)
        groups = name_groups(labels, [tasks_of[name] for name in names])
        return Clusters(groups, as_dict(self), names=tuple(names), similarity=similarity.tolist(), curve=curve)

    def similarities(self, expert: str, experts: Experts) -> list[float]:
        """Compare by plain cosines. Differs from `cluster`: they aren't those of the leading axes alone, if N > c."""
        return [self._cosine(experts[expert], experts[name]) for name in sorted(experts)]

    def _cosine(self, one: Mapping[str, Weights], other: Mapping[str, Weights]) -> float:
        inner = self._gram([one, other])
        norm = float(np.sqrt(inner[0, 0] * inner[1, 1]))
        return float(inner[0, 1]) / norm if norm else 0.0

    def _gram(self, experts: Sequence[Mapping[str, Weights]]) -> Points:
        if self.space == "products":
            return np.asarray(inner_products(experts).numpy())
        return gram(experts, self.sparsity)


def gram(experts: Sequence[Mapping[str, Weights]], sparsity: float, *, block_bytes: int = BLOCK_BYTES) -> Points:
    """Compute all inner products of the sparsified flattened experts, (N, N) float64, by blocks of columns."""
    vectors = as_vectors(experts)  # whole files, if they are alike: much faster than tensor by tensor
    each = ([vector] for vector in vectors) if vectors else map(_factors, experts)
    floors = _thresholds(each, sparsity) if sparsity else [0.0] * len(experts)
    step = max(1, block_bytes // (4 * len(experts)))
    total, memory = torch.zeros(len(experts), len(experts), dtype=torch.float64), torch.empty(len(experts) * step)
    for rows in [vectors] if vectors else _all_flat_factors(experts):
        for start in range(0, len(rows[0]), step):
            parts = (row[start : start + step].float() for row in rows)
            kept = (hardshrink(part, floor) for part, floor in zip(parts, floors, strict=True))
            width, found = min(step, len(rows[0]) - start), torch.zeros(len(experts), len(experts))
            block = memory[: len(experts) * width].view(len(experts), width)
            add_upper_products(found, torch.stack(list(kept if sparsity else parts), out=block), [1] * len(rows))
            total += found
    return np.asarray((total.triu() + total.triu(1).T).numpy())


def _all_flat_factors(experts: Sequence[Mapping[str, Weights]]) -> Iterator[list[Tensor]]:
    for site in sorted({site for expert in experts for site in expert}):
        yield from _flat_factors(experts, site)


def _flat_factors(experts: Sequence[Mapping[str, Weights]], site: str) -> tuple[list[Tensor], list[Tensor]]:
    """Give every expert's factors at a site, flattened: all input-side ones, all output-side ones."""
    found = [expert[site] for expert in experts if site in expert]
    if len(found) < len(experts) or len({(w.a.shape, w.b.shape) for w in found}) > 1:
        hint = 'Build them alike, or use space="products".'
        raise BuildError("E-CLUSTERS", f"mbc: experts differ in shape or are missing at {site!r}.", hint)
    return [w.a.flatten() for w in found], [w.b.flatten() for w in found]


def _factors(expert: Mapping[str, Weights]) -> list[Tensor]:
    weights = [expert[site] for site in sorted(expert)]
    return [factor.flatten() for w in weights for factor in (w.a, w.b)]


def _thresholds(experts: Iterable[Sequence[Tensor]], sparsity: float) -> list[float]:
    """Find the `sparsity` quantile of |a_t| of each expert, given in parts (linear between neighbours)."""
    found, values = [], torch.empty(0)
    for expert in experts:
        parts = [part.float() for part in expert]
        if (size := sum(map(len, parts))) != len(values):
            values = torch.empty(size)  # for all experts: new memory for each takes longer than what is done in it
        found.append(_quantile(torch.cat(parts, out=values).abs_().numpy(), sparsity))
    return found


def _quantile(values: NDArray[np.float32], share: float) -> float:
    """Find a quantile, in place; np.quantile takes fifteen times as long."""
    place, between = divmod(share * (len(values) - 1), 1)
    values.partition(int(place))
    low, above = values[int(place)], values[int(place) + 1 :]
    return float(low + between * (above.min() - low)) if between else float(low)


def cosine_map(inner: Points, components: int) -> Points:
    """Turn a Gram matrix (N, N) into the cosine matrix of its leading principal axes, (N, N)."""
    values, vectors = np.linalg.eigh(inner)  # ascending
    values = np.clip(values[::-1][:components], 0, None)
    scaled = vectors[:, ::-1][:, :components] * np.sqrt(values)  # (N, c) = U Sigma
    norms = np.linalg.norm(scaled, axis=1, keepdims=True)
    unit = scaled / np.where(norms > 0, norms, 1)
    return np.asarray(unit @ unit.T)
