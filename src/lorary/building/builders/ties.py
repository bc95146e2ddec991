"""Trim, elect signs, merge: TIES."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from lorary.adapters.low_rank import LowRankWeights
from lorary.adapters.products import ThinSVD, svd_of
from lorary.building.merging.merge import MergeBuilder, Parts
from lorary.errors import OptionError


@dataclass(frozen=True, kw_only=True)
class Ties(MergeBuilder):
    """Merge experts entry by entry, keeping the largest and those that agree in sign.

    At every site, on the full products s B A (d_out, d_in): (1) all but the `density` share of largest entries of each
    expert become 0; (2) an entry's sign is that of the sum over experts (a sum of 0 counts as plus); (3) the mean of
    the entries that are left and have this sign, times `strength`. Then the SVD: give a rank, or a full one comes out.
    Memory: a few matrices of one site, whatever the number of experts.
    Source: Yadav et al. 2023 (2306.01708).
    Differs: trims per site, not over the whole vector of an expert; products, where PEFT trims A and B apart.
    """

    density: float = 0.2
    """Share of each expert's entries that is kept, the largest."""
    strength: float = 1.0
    """Factor on the merged update."""

    is_thin: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Refuse options that have no meaning."""
        super().__post_init__()
        if not 0 < self.density <= 1:
            raise OptionError("E-OPTION", f"ties: density={self.density}, expected a share above 0 and up to 1.")

    def combine(self, parts: Parts, names: Sequence[str], site: str) -> ThinSVD:
        """Read the experts twice: once for the signs, once for the mean."""
        votes = self._zeros(parts)
        for weights in parts.values():
            votes += self._trimmed(weights)
        signs = torch.where(votes >= 0, 1.0, -1.0)
        total, count = self._zeros(parts), self._zeros(parts)
        for weights in parts.values():
            trimmed = self._trimmed(weights)
            agrees = trimmed.sign() == signs
            total += trimmed * agrees
            count += agrees
        return svd_of(self.strength * total / count.clamp(min=1), self.rank)

    def _trimmed(self, weights: LowRankWeights) -> Tensor:
        delta = weights.delta()
        n_dropped = delta.numel() - max(1, int(self.density * delta.numel()))
        if n_dropped:
            # NumPy's partition is some fifteen times as fast as torch's kthvalue (docs/log.md).
            sizes = delta.abs()
            floor = float(np.partition(sizes.flatten().numpy(), n_dropped - 1)[n_dropped - 1])
            delta.masked_fill_(sizes <= floor, 0)
        return delta

    @staticmethod
    def _zeros(parts: Parts) -> Tensor:
        one = next(iter(parts.values()))
        return torch.zeros(one.d_out, one.d_in)
