"""One expert per task."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lorary.adapters.lora import Init
from lorary.building.contract import Builder, Job, Made, Report
from lorary.building.limits import check_adapter, check_positive
from lorary.building.training.job import expert_name, training_job
from lorary.building.training.options import TrainingOptions
from lorary.building.training.packs import fresh_size, pack_jobs, train_fresh
from lorary.hashing import SKIP_DEFAULT
from lorary.library.library import Library
from lorary.model.base.base_model import BaseModel
from lorary.tasks.task import Tasks


@dataclass(frozen=True, kw_only=True)
class Private(TrainingOptions, Builder):
    """Train one LoRA per task, each on its own data alone.

    All start from the same initial A, so that their factors can be compared and averaged; `own_start` is there to see
    what becomes of them otherwise.
    Source: Ostapenko et al. 2024 (2405.11157) section 3.
    Differs: as `TrainingOptions` has it, and `init`. As the first stage of MBC the paper's run has 2 epochs, which
    leave 3 of 5 to the experts of the clusters.
    """

    pack_tokens: int = 512
    """Experts share a pass until a step of usual width has so many tokens; 512 are as fast as more."""
    dropout: float = 0.05
    """Dropout on the adapter's input."""
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
    own_start: bool = field(default=False, metadata=SKIP_DEFAULT)
    """Whether each expert starts from an A of its own."""

    def __post_init__(self) -> None:
        """Refuse options that have no meaning."""
        super().__post_init__()
        check_positive(self, "pack_tokens")
        check_adapter(self)

    def plan(self, tasks: Tasks, source: Library | None = None) -> list[Job]:
        """Plan one job per task, named after it."""
        return [training_job(self, expert_name(name), [tasks[name]]) for name in tasks]

    def n_numbers(self, job: Job, base: BaseModel) -> int | None:
        """Count them: all sites have the rank."""
        return fresh_size(self, base)

    def packs(self, jobs: Sequence[Job], base: BaseModel) -> list[list[Job]]:
        """Let experts share a pass until a step of usual width has pack_tokens."""
        return pack_jobs(jobs, base, self.pack_tokens)

    def run(self, pack: Sequence[Job], base: BaseModel, work: Path, report: Report | None) -> Made:
        """Train the pack."""
        return train_fresh(self, pack, base, work, report, apart=self.own_start)
