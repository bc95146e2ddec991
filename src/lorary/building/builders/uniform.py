"""The mean of a library."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lorary.adapters.products import ThinSVD, svd_of_sum
from lorary.building.contract import Builder, Job, Made, Report, require_source
from lorary.building.merging.merge import MergeOptions, Parts, merged_size, plan_merge, run_merges
from lorary.library.library import Library
from lorary.model.base.base_model import BaseModel
from lorary.tasks.task import Tasks


@dataclass(frozen=True, kw_only=True)
class UniformMerge(MergeOptions, Builder):
    """Merge experts into one that adds the mean of what they add.

    sum_i s_i B_i A_i / N, by SVD of the stacked factors. Equal to routing uniformly with mix="outputs".
    Source: the average mu of Ostapenko et al. 2024 (2405.11157).
    Differs: the paper averages A's and B's apart, which has cross terms and needs equal ranks.
    """

    def plan(self, tasks: Tasks, source: Library | None = None) -> list[Job]:
        """Plan the one job; the tasks aren't looked at. Raises E-SOURCE, E-EMPTY, E-NAME, E-OPTION."""
        return plan_merge(self, require_source(self, source), self.called)

    def n_numbers(self, job: Job, base: BaseModel) -> int | None:
        """Count them, at most. Raises as `check_places`."""
        return merged_size(job, base)

    def run(self, pack: Sequence[Job], base: BaseModel, work: Path, report: Report | None) -> Made:
        """Merge."""
        return run_merges(pack, base)

    def combine(self, parts: Parts, names: Sequence[str], site: str) -> ThinSVD:
        """Add up with equal shares; an expert without weights here counts as zero."""
        return svd_of_sum(list(parts.values()), [1 / len(names)] * len(parts))
