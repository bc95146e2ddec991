"""One expert per task, trained in a random subspace."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from lorary.building.contract import Builder, Job, Made, Report
from lorary.building.limits import check_adapter, check_positive
from lorary.building.training.job import expert_name, training_job
from lorary.building.training.options import TrainingOptions
from lorary.building.training.packs import fresh_size, fresh_starts, pack_jobs, train_pack
from lorary.building.training.subspace import SubspaceStack
from lorary.library.library import Library
from lorary.model.base.base_model import BaseModel
from lorary.options import refuse_value
from lorary.tasks.task import Tasks


@dataclass(frozen=True, kw_only=True)
class Subspace(TrainingOptions, Builder):
    """Train one LoRA per task with D numbers: its M factors move in a random subspace of D dimensions.

    theta = theta_0 + P d: theta_0 is where `private` starts, P (M, D) is fixed, random and the same for all tasks, and
    d (D,) is learned. The experts are ordinary LoRAs of M numbers. How small D may be says how hard a task is to learn:
    the study intrinsic_dimension.
    Source: Li et al. 2018 (1804.08838); Aghajanyan et al. 2020 (2012.13255).
    Differs: the subspace is one of the LoRA's factors, not of the base's weights, so that what comes out is an expert
    that any library holds, and D is counted beside what LoRA trains. P is a Fastfood matrix, since a dense one of
    1,000 dimensions takes 2 GB for the smallest models.
    """

    dimension: int = 1000
    """Dimensions of the subspace, D."""
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
    targets: tuple[str, ...] = ("attention",)
    """Layers: last parts of module paths, "attention" (q, k, v, o), or "all-linear" (all but the head)."""

    def __post_init__(self) -> None:
        """Refuse options that have no meaning."""
        super().__post_init__()
        check_positive(self, "pack_tokens", "dimension")
        check_adapter(self)

    def plan(self, tasks: Tasks, source: Library | None = None) -> list[Job]:
        """Plan one job per task, named after it."""
        return [training_job(self, expert_name(name), [tasks[name]]) for name in tasks]

    def check_base(self, base: BaseModel) -> None:
        """Refuse also more dimensions than the LoRA has numbers (E-OPTION)."""
        super().check_base(base)
        if self.dimension > (n := fresh_size(self, base)):
            refuse_value(self, "dimension", f"at most the {n:,} numbers of the LoRA on this base")

    def n_numbers(self, job: Job, base: BaseModel) -> int | None:
        """Count them: all sites have the rank."""
        return fresh_size(self, base)

    def packs(self, jobs: Sequence[Job], base: BaseModel) -> list[list[Job]]:
        """Let experts share a pass until a step of usual width has pack_tokens."""
        return pack_jobs(jobs, base, self.pack_tokens)

    def run(self, pack: Sequence[Job], base: BaseModel, work: Path, report: Report | None) -> Made:
        """Train the pack."""
        return train_pack(
            pack, base, work, report, start=lambda jobs: fresh_starts(self, len(jobs), base), dropout=self.dropout,
            make_stack=partial(SubspaceStack, dimension=self.dimension, seed=self.seed),
        )  # fmt: skip
