"""A few experts that all tasks share, each task with its own mixture of them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lorary.adapters.lora import Init
from lorary.building.contract import Builder, Job, Made, Report, jobs_of
from lorary.building.limits import check_adapter, check_positive
from lorary.building.training.job import TrainingJob, training_job
from lorary.building.training.mixture import skill_names, train_fresh_mixture
from lorary.building.training.options import TrainingOptions
from lorary.building.training.packs import fresh_size
from lorary.hashing import SKIP_DEFAULT
from lorary.library.library import Library
from lorary.model.base.base_model import BaseModel
from lorary.tasks.task import Tasks


@dataclass(frozen=True, kw_only=True)
class Poly(TrainingOptions, Builder):
    """Train a few latent LoRAs jointly with a matrix that says how much of each a task takes, per layer.

    The router `poly` mixes them for the tasks that were trained; `uniform` is Poly-mu. `steps` None = `epochs` over the
    union of all tasks.
    The experts are k0, k1, ...
    Source: Ponti et al. 2023 (2202.13914); Ostapenko et al. 2024 (2405.11157) section 3: 8 skills.
    Differs: no epsilon in the normalisation.
    """

    dropout: float = 0.05
    """Dropout on the adapter's input."""
    routing_lr: float = 0.1
    """Peak learning rate of the weights that mix the experts."""
    rank: int = 4
    """Rank of the adapter."""
    alpha: float = 16.0
    """The adapter's scale is alpha / rank."""
    rslora: bool = False
    """Scale by alpha / sqrt(rank) instead."""
    init: Init = field(default="peft", metadata=SKIP_DEFAULT)
    """How A starts: uniform in ±1/sqrt(d_in) as in PEFT, or, paper, in ±1/sqrt(3 d_in)."""
    targets: tuple[str, ...] = ("attention",)
    """Layers: last parts of module paths, "attention" (q, k, v, o), or "all-linear" (all but the head)."""
    tie: tuple[str, ...] = field(default=(), metadata=SKIP_DEFAULT)
    """Layers of one module, by the last parts of their paths, that share one A, as q_proj, k_proj and v_proj may."""
    n_skills: int = 8
    """Experts to train jointly."""

    def __post_init__(self) -> None:
        """Refuse options that have no meaning."""
        super().__post_init__()
        check_positive(self, "routing_lr", "n_skills")
        check_adapter(self)

    def plan(self, tasks: Tasks, source: Library | None = None) -> list[Job]:
        """Plan the one job."""
        return [training_job(self, "poly", list(tasks.values()), made=skill_names(self.n_skills))]

    def n_numbers(self, job: Job, base: BaseModel) -> int | None:
        """Count them: all sites of all skills have the rank."""
        return self.n_skills * fresh_size(self, base)

    def run(self, pack: Sequence[Job], base: BaseModel, work: Path, report: Report | None) -> Made:
        """Train the mixture."""
        (job,) = jobs_of(TrainingJob, pack)
        return train_fresh_mixture(self, job, base, work, report, kept_as="poly", routing_lr=self.routing_lr)
