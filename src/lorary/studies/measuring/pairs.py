"""How alike the experts of a library are, and pairs of them that cover all degrees of likeness."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lorary.adapters.contract import Experts
from lorary.adapters.products import inner_products
from lorary.building.clustering.clusterers.mbc import MBC, cosine_map, gram

Matrix = tuple[tuple[float, ...], ...]
SPACES = ("factors", "embedding", "products")
"""What experts are compared by: the numbers as they are written; MBC's leading axes of the larger half of them; B A."""


@dataclass(frozen=True)
class Likeness:
    """Cosines between N experts, by their names: a matrix (N, N) for each of SPACES."""

    names: tuple[str, ...]
    factors: Matrix
    embedding: Matrix
    products: Matrix

    def __post_init__(self) -> None:
        """Compare the sizes."""
        for space in SPACES:
            if [len(row) for row in self.of(space)] != [len(self.names)] * len(self.names):
                raise ValueError(f"{space} is no map of {len(self.names)} experts")

    def of(self, space: str) -> Matrix:
        """Give the matrix of one of SPACES."""
        found: Matrix = getattr(self, space)
        return found

    def pairs(self, space: str) -> list[float]:
        """Give the cosines of all pairs of two."""
        found: list[float] = np.array(self.of(space))[np.triu_indices(len(self.names), 1)].tolist()
        return found


def likeness(experts: Experts) -> Likeness:
    """Compare all experts with each other, in all of SPACES."""
    names, method = sorted(experts), MBC()
    listed = [experts[name] for name in names]
    maps = {
        "factors": _cosines(gram(listed, 0.0)),
        "embedding": cosine_map(gram(listed, method.sparsity), method.components),
        "products": _cosines(inner_products(listed).numpy()),
    }
    return Likeness(tuple(names), **{space: tuple(map(tuple, found.tolist())) for space, found in maps.items()})


def _cosines(inner: Any) -> Any:
    norms = np.sqrt(np.diag(inner))
    norms = np.where(norms > 0, norms, 1)
    return inner / np.outer(norms, norms)


def draw_pairs(similarity: Sequence[Sequence[float]], n: int, *, n_bins: int, seed: int) -> list[tuple[int, int]]:
    """Draw n pairs, or all there are, so that all degrees of likeness are covered.

    The range of the cosines of a matrix (N, N) is cut into bins of one width; every round draws one pair of each bin
    that has some left, in an order of its own, until there are enough.
    """
    rows, columns = np.triu_indices(len(similarity), 1)
    values = np.array(similarity)[rows, columns]
    edges = np.linspace(values.min(), values.max(), n_bins + 1)
    generator = np.random.default_rng(seed)
    bins: dict[int, list[int]] = {}
    for pair in generator.permutation(len(values)).tolist():
        bins.setdefault(int(np.searchsorted(edges[1:-1], values[pair])), []).append(pair)
    chosen: list[int] = []
    while bins and len(chosen) < n:
        for place in generator.permutation(sorted(bins)).tolist():
            chosen.append(bins[place].pop())
            if not bins[place]:
                del bins[place]
    return [(int(rows[pair]), int(columns[pair])) for pair in sorted(chosen[:n])]
