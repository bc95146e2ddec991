"""The mean of a library."""

from collections.abc import Sequence
from dataclasses import dataclass

from lorary.adapters.products import ThinSVD, svd_of_sum
from lorary.building.merging.merge import MergeBuilder, Parts


@dataclass(frozen=True, kw_only=True)
class UniformMerge(MergeBuilder):
    """Merge experts into one that adds the mean of what they add.

    sum_i s_i B_i A_i / N, by SVD of the stacked factors. Equal to routing uniformly with mix="outputs".
    Source: the average mu of Ostapenko et al. 2024 (2405.11157).
    Differs: the paper averages A's and B's apart, which has cross terms and needs equal ranks.
    """

    def combine(self, parts: Parts, names: Sequence[str], site: str) -> ThinSVD:
        """Add up with equal shares; who has no weights here counts as zero."""
        return svd_of_sum(list(parts.values()), [1 / len(names)] * len(parts))
