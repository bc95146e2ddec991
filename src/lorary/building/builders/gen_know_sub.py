"""A library's experts without what they have in common with general ones."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lorary.adapters.products import ThinSVD, svd_of_sum
from lorary.building.contract import Builder, Job, Made, Report, require_source
from lorary.building.limits import check_rank
from lorary.building.merging.merge import MergeJob, Parts, chosen_experts, merged_size, run_merges
from lorary.errors import OptionError
from lorary.library.library import Library
from lorary.model.base.base_model import BaseModel
from lorary.tasks.task import Tasks


@dataclass(frozen=True, kw_only=True)
class GenKnowSub(Builder):
    """Subtract from every expert what general experts add on average.

    D_i - share * mean_g D_g, D = s B A, exactly, of the rank r_i + sum_g r_g, or by `rank` the nearest of that one; a
    general expert without weights in a layer counts as zero there. `general` names experts of the library that were
    trained on texts of all kinds; they are left out of the new library. If none is named, the mean of all taken experts
    is subtracted ("mean normalisation", the authors' control, which needs no data).
    Each expert's relative error by `rank` stands in its expert.json.
    Source: Bagherifard et al. 2025 (2505.10939): three experts of Wikipedia texts in three languages, then Arrow.
    Differs: their code subtracts A from A and B from B, which leaves a product that is no difference of what the
    experts add; here products are subtracted. The ranks grow by that.
    """

    experts: tuple[str, ...] = ()
    """Experts of the library to take; none given: all but the general ones."""
    general: tuple[str, ...] = ()
    """Experts whose mean is subtracted; none given: the mean of all taken."""
    share: float = 1.0
    """How much of the mean is subtracted."""
    rank: int | None = None
    """Rank of all experts; None: of each what holds it exactly."""

    def __post_init__(self) -> None:
        """Refuse options that have no meaning."""
        super().__post_init__()
        check_rank(self)

    def plan(self, tasks: Tasks, source: Library | None = None) -> list[Job]:
        """Plan a job for each expert, under its own name. Raises E-NAME, and E-OPTION if nothing would be left."""
        library = require_source(self, source)
        for name in self.general:
            library[name]
        taken = [name for name in chosen_experts(self, library) if name not in self.general]
        general = list(dict.fromkeys(self.general or taken))
        if not taken or general == taken[:1]:
            what = f"gen_know_sub: there are {len(taken)} experts besides the {len(self.general)} general ones"
            raise OptionError("E-OPTION", f"{what}, nothing would be left.", "Take more experts, or name general ones.")
        return [_ResidualJob(n, library, (n, *(g for g in general if g != n)), self) for n in taken]

    def n_numbers(self, job: Job, base: BaseModel) -> int | None:
        """Count them, at most. Raises as `check_places`."""
        return merged_size(job, base)

    def run(self, pack: Sequence[Job], base: BaseModel, work: Path, report: Report | None) -> Made:
        """Subtract."""
        return run_merges(pack, base)

    def combine(self, parts: Parts, names: Sequence[str], site: str) -> ThinSVD:
        """Subtract from the first of the names the mean of the general ones."""
        general = set(self.general or names)
        each = self.share / len(general)
        shares = [float(name == names[0]) - each * (name in general) for name in parts]
        return svd_of_sum(list(parts.values()), shares)


class _ResidualJob(MergeJob):
    """Make what is left of the first expert of `merged`."""

    @property
    def tasks(self) -> tuple[str, ...]:
        """Those of that expert alone."""
        return tuple(self.source[self.name].provenance.tasks)
