"""A library whose experts all have one rank."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lorary.adapters.products import ThinSVD, svd_of_sum
from lorary.building.contract import Builder, Job, Made, Report, jobs_of, require_source
from lorary.building.limits import check_rank
from lorary.building.merging.merge import MergeJob, Parts, chosen_experts, merged_size, run_merges, sums_of_ranks
from lorary.library.library import Library
from lorary.model.base.base_model import BaseModel
from lorary.tasks.task import Tasks


@dataclass(frozen=True, kw_only=True)
class Svd(Builder):
    """Bring every expert of a library to a given rank: the nearest of that rank.

    Eckart and Young: the leading singular values of s B A, from the thin factors; experts of lower rank are filled up
    with zeros, which changes nothing of what they add. Makes experts of any ranks fit for mix="factors" and for servers
    that want one rank. Each expert's relative error stands in its expert.json.
    Merged experts are truncated by the merge's own rank=.
    """

    experts: tuple[str, ...] = ()
    """Experts of the library to take; none given: all."""
    rank: int | None = 4
    """Rank of all experts; None: of each what holds it exactly."""

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
        if self.rank is None:
            return merged_size(job, base)
        (merge,) = jobs_of(MergeJob, [job])
        sites = [base.routable[name] for name in sums_of_ranks(merge.members.values(), base)]
        return self.rank * sum(site.d_in + site.d_out for site in sites)

    def run(self, pack: Sequence[Job], base: BaseModel, work: Path, report: Report | None) -> Made:
        """Merge."""
        return run_merges(pack, base)

    def combine(self, parts: Parts, names: Sequence[str], site: str) -> ThinSVD:
        """Decompose the one expert."""
        found = svd_of_sum(list(parts.values()), [1.0])
        return found.with_zeros(self.rank or 0)
