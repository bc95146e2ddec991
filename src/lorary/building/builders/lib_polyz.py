"""New tasks, from how to mix a library's experts as they are."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lorary.building.contract import Builder, Job, Made, Report, jobs_of, require_source
from lorary.building.limits import check_positive
from lorary.building.training.adaptation import plan_library_mixture, read_skills, size_of_start
from lorary.building.training.job import TrainingJob
from lorary.building.training.mixture import train_mixture
from lorary.building.training.options import TrainingOptions
from lorary.hashing import SKIP_DEFAULT
from lorary.library.library import Library
from lorary.model.base.base_model import BaseModel
from lorary.tasks.task import Tasks


@dataclass(frozen=True, kw_only=True)
class LibPolyZ(TrainingOptions, Builder):
    """Learn only the weights by which new tasks mix a library's experts, per layer; the experts stay as they are.

    The new library holds copies of them; the router `poly` reads the weights, or `mhr` if there are blocks. `lr` is not
    used, `routing_lr` is. All tasks share one run, which stops early on the validation loss.
    Source: Ostapenko et al. 2024 (2405.11157) section 4, "<library>-PolyZ": its code has it with normalised sigmoids
    (poly_router) and raw weights (poly_router_dir); the tables don't say which.
    Differs: there a build has one task, with a stop of its own; here the tasks of a build share a run. For the paper's,
    build each by itself: build(..., tasks.only([name]), ..., into=f"new/{name}").
    """

    n_evaluations: int = 10
    """How often the validation loss is measured; the best weights are kept."""
    patience: int | None = 3
    """Stop after so many evaluations in a row without a new best; None: never."""
    dropout: float = 0.05
    """Dropout on the adapter's input."""
    routing_lr: float = 0.1
    """Peak learning rate of the weights that mix the experts."""
    raw: bool = field(default=False, metadata=SKIP_DEFAULT)
    """Mix by the learned numbers as they are, from about 0, not by normalised sigmoids."""
    n_heads: int | None = field(default=None, metadata=SKIP_DEFAULT)
    """Blocks of each side with weights of their own, for the router mhr, as in what the builder mhr made; None: one."""

    def __post_init__(self) -> None:
        """Refuse options that have no meaning."""
        super().__post_init__()
        check_positive(self, "routing_lr", "n_heads")

    def plan(self, tasks: Tasks, source: Library | None = None) -> list[Job]:
        """Plan the one job, which makes experts of the same names. Raises E-SOURCE, E-EMPTY as `require_source`."""
        return plan_library_mixture(self, tasks, require_source(self, source))

    def n_numbers(self, job: Job, base: BaseModel) -> int | None:
        """Count those of the experts it starts from, whose shapes they keep. Raises as `check_places`."""
        return size_of_start(job, base)

    def run(self, pack: Sequence[Job], base: BaseModel, work: Path, report: Report | None) -> Made:
        """Train the mixture. Raises E-BASE for another base, E-RANK for experts of unequal rank at a site."""
        (job,) = jobs_of(TrainingJob, pack)
        skills = read_skills(job, base)
        return train_mixture(
            job, skills, None, base, work, report, kept_as="mhr" if self.n_heads else "poly",
            dropout=self.dropout, routing_lr=self.routing_lr, n_blocks=self.n_heads or 1, raw=self.raw,
        )  # fmt: skip
