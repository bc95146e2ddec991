"""A weighted sum of experts."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lorary.adapters.products import ThinSVD, svd_of_sum
from lorary.building.contract import Builder, Job, Made, Report, require_source
from lorary.building.merging.merge import MergeOptions, Parts, chosen_experts, merged_size, plan_merge, run_merges
from lorary.errors import OptionError
from lorary.library.library import Library
from lorary.model.base.base_model import BaseModel
from lorary.tasks.task import Tasks


@dataclass(frozen=True, kw_only=True)
class Weighted(MergeOptions, Builder):
    """Merge experts into one that adds a weighted sum of what they add.

    sum_i w_i s_i B_i A_i, by SVD of the stacked factors; `weights` in the order of `experts`, or of the library's names
    if none are given. They may be negative and need not sum to 1: task arithmetic, subtraction included.
    Source: Ilharco et al. 2023 (2212.04089), with products in the place of task vectors.
    """

    weights: tuple[float, ...]
    """One for each expert, in the order of `experts`, or of the library's names."""

    def plan(self, tasks: Tasks, source: Library | None = None) -> list[Job]:
        """Plan the one job. Raises E-OPTION unless there is one weight for each expert."""
        library = require_source(self, source)
        names = chosen_experts(self, library)
        if len(self.weights) != len(names):
            raise OptionError(
                "E-OPTION", f"weighted: {len(self.weights)} weights for {len(names)} experts: {', '.join(names)}."
            )
        return plan_merge(self, library, self.called)

    def n_numbers(self, job: Job, base: BaseModel) -> int | None:
        """Count them, at most. Raises as `check_places`."""
        return merged_size(job, base)

    def run(self, pack: Sequence[Job], base: BaseModel, work: Path, report: Report | None) -> Made:
        """Merge."""
        return run_merges(pack, base)

    def combine(self, parts: Parts, names: Sequence[str], site: str) -> ThinSVD:
        """Add up with the given shares."""
        shares = dict(zip(self.experts or names, self.weights, strict=True))
        return svd_of_sum(list(parts.values()), [shares[name] for name in parts])
