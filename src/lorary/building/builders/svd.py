"""A library whose experts all have one rank."""

from collections.abc import Sequence
from dataclasses import dataclass

from lorary.adapters.products import ThinSVD, svd_of_sum
from lorary.building.contract import Job
from lorary.building.merging.merge import MergeJob, Parts, ProductBuilder
from lorary.library.library import Library
from lorary.tasks.task import Tasks


@dataclass(frozen=True, kw_only=True)
class Svd(ProductBuilder):
    """Truncate every expert of a library to the nearest of a given rank.

    Eckart and Young: the leading singular values of s B A, from the thin factors. Makes experts of any ranks fit for
    mix="factors" and for servers that want one rank. Each expert's relative error stands in its expert.json.
    Merged experts are truncated by the merge's own rank=.
    """

    rank: int | None = 4
    """Rank that experts are truncated to; None: what holds each exactly."""

    def plan(self, tasks: Tasks, source: Library | None = None) -> list[Job]:
        """Plan a job for each expert, under its own name."""
        library, names = self.chosen(source)
        return [MergeJob(name, library, (name,), self) for name in names]

    def combine(self, parts: Parts, names: Sequence[str], site: str) -> ThinSVD:
        """Decompose the one expert."""
        return svd_of_sum(list(parts.values()), [1.0])
