"""A weighted sum of experts."""

from collections.abc import Sequence
from dataclasses import dataclass

from lorary.adapters.products import ThinSVD, svd_of_sum
from lorary.building.contract import Job
from lorary.building.merging.merge import MergeBuilder, Parts
from lorary.errors import OptionError
from lorary.library.library import Library
from lorary.tasks.task import Tasks


@dataclass(frozen=True, kw_only=True)
class Weighted(MergeBuilder):
    """Merge experts into one that adds a weighted sum of what they add.

    sum_i w_i s_i B_i A_i, by SVD of the stacked factors; `weights` in the order of `experts`, or of the library's names
    if none are given. They may be negative and need not sum to 1: task arithmetic, subtraction included.
    Source: Ilharco et al. 2023 (2212.04089), with products in the place of task vectors.
    """

    weights: tuple[float, ...]
    """One for each expert, in the order of `experts`, or of the library's names."""

    def plan(self, tasks: Tasks, source: Library | None = None) -> list[Job]:
        """Plan the one job. Raises E-OPTION unless there is one weight for each expert."""
        _, names = self.chosen(source)
        if len(self.weights) != len(names):
            raise OptionError(
                "E-OPTION", f"weighted: {len(self.weights)} weights for {len(names)} experts: {', '.join(names)}."
            )
        return super().plan(tasks, source)

    def combine(self, parts: Parts, names: Sequence[str], site: str) -> ThinSVD:
        """Add up with the given shares."""
        shares = dict(zip(self.experts or names, self.weights, strict=True))
        return svd_of_sum(list(parts.values()), [shares[name] for name in parts])
