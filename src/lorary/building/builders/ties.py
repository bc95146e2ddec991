"""Trim, elect signs, merge: TIES."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lorary.adapters.contract import Weights
from lorary.adapters.products import ThinSVD, svd_of
from lorary.building.contract import Builder, Job, Made, Report, require_source
from lorary.building.merging.merge import MergeOptions, Parts, merged_size, plan_merge, run_merges
from lorary.errors import OptionError
from lorary.library.library import Library
from lorary.model.base.base_model import BaseModel
from lorary.tasks.task import Tasks


@dataclass(frozen=True, kw_only=True)
class Ties(MergeOptions, Builder):
    """Merge experts entry by entry, keeping the largest and those that agree in sign.

    At every site, on the full products s B A (d_out, d_in): (1) all but the `density` share of largest entries of each
    expert become 0 (of equals, the last); (2) an entry's sign is that of the sum over experts (a sum of 0 counts as
    plus); (3) the mean of the entries that are left and have this sign, times `strength`. Then the SVD: give a rank, or
    a full one comes out. Memory: a few matrices of one site, whatever the number of experts.
    Source: Yadav et al. 2023 (2306.01708).
    Differs: trims per site, not over the whole vector of an expert; products, where PEFT trims A and B apart; of equal
    entries at the limit the authors' code keeps all, here and in PEFT as many as the share says.
    """

    density: float = 0.2
    """Share of each expert's entries that is kept, the largest."""
    strength: float = 1.0
    """Factor on the merged update."""

    def __post_init__(self) -> None:
        """Refuse options that have no meaning."""
        super().__post_init__()
        if not 0 < self.density <= 1:
            raise OptionError("E-OPTION", f"ties: density={self.density}, expected a share above 0 and up to 1.")

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

    def _trimmed(self, weights: Weights) -> Tensor:
        delta = weights.delta()
        n_dropped = delta.numel() - max(1, int(self.density * delta.numel()))
        if n_dropped:
            # NumPy's partition is some fifteen times as fast as torch's kthvalue (docs/log.md).
            sizes = delta.abs().flatten().numpy()
            floor = np.partition(sizes, n_dropped - 1)[n_dropped - 1]
            dropped, equal = sizes < floor, np.flatnonzero(sizes == floor)
            dropped[equal[len(equal) - (n_dropped - int(dropped.sum())) :]] = True
            delta.view(-1).masked_fill_(torch.from_numpy(dropped), 0)
        return delta

    @staticmethod
    def _zeros(parts: Parts) -> Tensor:
        one = next(iter(parts.values()))
        return torch.zeros(one.d_out, one.d_in)
