"""A library whose experts all have one rank."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lorary.adapters.products import ThinSVD, svd_of_sum
from lorary.building.contract import Builder, Job, Made, Report, require_source
from lorary.building.limits import check_rank
from lorary.building.merging.merge import MergeJob, Parts, chosen_experts, merged_size, run_merges
from lorary.library.library import Library
from lorary.model.base.base_model import BaseModel
from lorary.tasks.task import Tasks


@dataclass(frozen=True, kw_only=True)
class Svd(Builder):
    """Truncate every expert of a library to the nearest of a given rank.

    Eckart and Young: the leading singular values of s B A, from the thin factors. Makes experts of any ranks fit for
    mix="factors" and for servers that want one rank. Each expert's relative error stands in its expert.json.
    Merged experts are truncated by the merge's own rank=.
    """

    experts: tuple[str, ...] = ()
    """Experts of the library to take; none given: all."""
    rank: int | None = 4
    """Rank that experts are truncated to; None: what holds each exactly."""

    def __post_init__(self) -> None:
        """Refuse options that have no meaning."""
        super().__post_init__()
        check_rank(self)

    def plan(self, tasks: Tasks, source: Library | None = None) -> list[Job]:
        """Plan a job for each expert, under its own name."""
        library = require_source(self, source)
        return [MergeJob(name, library, (name,), self) for name in chosen_experts(self, library)]

    def n_numbers(self, job: Job, base: BaseModel) -> int | None:
        """Count them, at most. Raises as `check_places`."""
        return merged_size(job, base)

    def run(self, pack: Sequence[Job], base: BaseModel, work: Path, report: Report | None) -> Made:
        """Merge."""
        return run_merges(pack, base)

    def combine(self, parts: Parts, names: Sequence[str], site: str) -> ThinSVD:
        """Decompose the one expert."""
        return svd_of_sum(list(parts.values()), [1.0])
