"""Drop and rescale: DARE."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from lorary.adapters.products import ThinSVD, svd_of
from lorary.building.contract import Builder, Job, Made, Report, require_source
from lorary.building.merging.merge import MergeOptions, Parts, merged_size, plan_merge, run_merges
from lorary.building.training.batches import mix_seed
from lorary.errors import OptionError
from lorary.library.library import Library
from lorary.model.base.base_model import BaseModel
from lorary.tasks.task import Tasks


@dataclass(frozen=True, kw_only=True)
class Dare(MergeOptions, Builder):
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

    def __post_init__(self) -> None:
        """Refuse options that have no meaning."""
        super().__post_init__()
        if not 0 < self.density <= 1:
            raise OptionError("E-OPTION", f"dare: density={self.density}, expected a share above 0 and up to 1.")

    def plan(self, tasks: Tasks, source: Library | None = None) -> list[Job]:
        """Plan the one job; the tasks aren't looked at. Raises E-SOURCE, E-EMPTY, E-NAME, E-OPTION."""
        return plan_merge(self, require_source(self, source), self.called)

    def n_numbers(self, job: Job, base: BaseModel) -> int | None:
        """Count them, at most. Raises as `check_places`."""
        return merged_size(job, base, is_thin=False)

    def run(self, pack: Sequence[Job], base: BaseModel, work: Path, report: Report | None) -> Made:
        """Merge."""
        return run_merges(pack, base)

    def combine(self, parts: Parts, names: Sequence[str], site: str) -> ThinSVD:
        """Add up expert by expert."""
        one = next(iter(parts.values()))
        total = torch.zeros(one.d_out, one.d_in)
        for name, weights in parts.items():
            generator = torch.Generator().manual_seed(mix_seed(self.seed, name, site))
            total += weights.delta() * (torch.rand(total.shape, generator=generator) < self.density)
        return svd_of(total * (self.strength / self.density / len(names)), self.rank)
