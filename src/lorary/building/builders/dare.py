"""Drop and rescale: DARE."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from lorary.adapters.products import ThinSVD, svd_of
from lorary.building.merging.merge import MergeBuilder, Parts
from lorary.building.training.batches import mix_seed
from lorary.errors import OptionError


@dataclass(frozen=True, kw_only=True)
class Dare(MergeBuilder):
    """Merge experts after dropping entries at random and enlarging the rest, so that they interfere less.

    At every site, on the full products s B A (d_out, d_in): each entry of each expert is kept with probability
    `density` and divided by it, else 0; then the mean over the experts, times `strength`. Then the SVD: give a rank,
    or a full one comes out. What is drawn depends on the seed, the expert's name and the site.
    Source: Yu et al. 2024 (2311.03099), whose drop rate p is 1 - density.
    Differs: products, where PEFT drops entries of A and B apart; the mean, where task arithmetic leaves the sum to
    its scaling (strength=N gives it).
    """

    density: float = 0.5
    """Share of each expert's entries that is kept, at random."""
    strength: float = 1.0
    """Factor on the merged update."""
    seed: int = 42
    """Seed of all that is drawn at random."""

    is_thin: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Refuse options that have no meaning."""
        super().__post_init__()
        if not 0 < self.density <= 1:
            raise OptionError("E-OPTION", f"dare: density={self.density}, expected a share above 0 and up to 1.")

    def combine(self, parts: Parts, names: Sequence[str], site: str) -> ThinSVD:
        """Add up expert by expert."""
        one = next(iter(parts.values()))
        total = torch.zeros(one.d_out, one.d_in)
        for name, weights in parts.items():
            generator = torch.Generator().manual_seed(mix_seed(self.seed, name, site))
            total += weights.delta() * (torch.rand(total.shape, generator=generator) < self.density)
        return svd_of(total * (self.strength / self.density / len(names)), self.rank)
