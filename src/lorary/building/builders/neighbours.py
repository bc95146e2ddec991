"""The experts nearest to a new task, interpolated: where pi-tuning starts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch

from lorary.building.builders.weighted import Weighted
from lorary.building.contract import Builder, Failures, Job, Made, OneExpertJob, Report, jobs_of, require_source
from lorary.building.limits import check_rank
from lorary.building.merging.merge import MergeJob, plain_size, sums_of_ranks
from lorary.building.merging.neighbourhood import Known, check_neighbourhood, known_hashes, nearest, split_tasks
from lorary.building.training.job import expert_name
from lorary.hashing import short_key
from lorary.library.library import Library
from lorary.model.base.base_model import BaseModel
from lorary.model.ensemble.ensemble import check_library
from lorary.options import as_dict
from lorary.tasks.example import Example
from lorary.tasks.task import Task, Tasks


@dataclass(frozen=True, kw_only=True)
class Neighbours(Builder):
    """Interpolate, for each new task, the experts whose tasks ask the same of an adapter; nothing is trained.

    The neighbours are added up by their shares, s B A.
    Source: pi-tuning, Wu et al. 2023 (2304.14381), its retrieval; `pi_tuning` goes on to train.
    Differs: products are added, so that ranks may differ.
    """

    top_k: int = 3
    """Neighbours of each new task."""
    temperature: float = 0.05
    """Temperature of the softmax over their cosines."""
    n_examples: int = 32
    """Training examples that a task is embedded by."""
    adapt_to: tuple[str, ...] = ()
    """The new tasks; none given: those that no expert was trained on."""
    targets: tuple[str, ...] = ("attention",)
    """Layers of the fresh LoRA that embeds a task."""
    seed: int = 42
    """Seed of all that is drawn at random."""
    rank: int | None = None
    """Rank of the result; None: what holds it exactly."""

    def __post_init__(self) -> None:
        """Refuse options that have no meaning."""
        super().__post_init__()
        check_neighbourhood(self)
        check_rank(self)

    def plan(self, tasks: Tasks, source: Library | None = None) -> list[Job]:
        """Plan one job per new task, named after it.

        Raises E-SOURCE, E-EMPTY, E-TASK, and E-DATA for a task, new or the library's own, without examples.
        """
        library = require_source(self, source)
        known, new = split_tasks(self, tasks, library)
        return [_NeighbourJob(expert_name(task.name), library, task, known, self) for task in new]

    def n_numbers(self, job: Job, base: BaseModel) -> int | None:
        """Count them, at most: the neighbours, found as the job runs, may be those of the largest ranks."""
        (one,) = jobs_of(_NeighbourJob, [job])
        return plain_size(sums_of_ranks(one.source.values(), base, self.top_k), base, self.rank)

    def packs(self, jobs: Sequence[Job], base: BaseModel) -> list[list[Job]]:
        """Run all together, so that the library is embedded once."""
        return [list(jobs)] if jobs else []

    def run(self, pack: Sequence[Job], base: BaseModel, work: Path, report: Report | None) -> Made:
        """Embed the library's tasks and the new ones, and choose."""
        jobs = jobs_of(_NeighbourJob, pack)
        check_library(base, jobs[0].source)
        failed: Failures = {}
        near = nearest(self, base, jobs[0].known, {job.name: job.task for job in jobs}, failed)
        found = {name: self.shares(cosines) for name, cosines in near.items()}
        writers = {job.name: partial(job.write, found[job.name], base.name) for job in jobs if job.name in found}
        return Made(writers, failed=failed)

    def shares(self, cosines: Mapping[str, float]) -> dict[str, float]:
        """Give each neighbour its share."""
        shares = torch.softmax(torch.tensor(list(cosines.values())) / self.temperature, 0)
        return dict(zip(cosines, shares.tolist(), strict=True))


@dataclass(frozen=True)
class _NeighbourJob(OneExpertJob):
    """Choose and interpolate the neighbours of one task."""

    task: Task
    known: Known = field(compare=False)
    options: Neighbours

    @property
    def tasks(self) -> tuple[str, ...]:
        """The one task."""
        return (self.task.name,)

    @property
    def examples(self) -> Sequence[Example]:
        """Those that embed the task."""
        return self.task.train[: self.options.n_examples]

    def key(self, base_facts: Mapping[str, object]) -> str:
        """Hash of all that decides the result: what the other new tasks are doesn't."""
        options = {key: value for key, value in as_dict(self.options).items() if key != "adapt_to"}
        return short_key(
            options, self.task.name, self.data_hash, known_hashes(self.known), self.source.hash, base_facts
        )

    def write(self, shares: Mapping[str, float], base_name: str, stage: Path) -> dict[str, object]:
        """Merge the neighbours; give the provenance's fields."""
        merge = Weighted(experts=tuple(shares), weights=tuple(shares.values()), rank=self.options.rank)
        facts = MergeJob(self.name, self.source, tuple(sorted(shares)), merge).write(base_name, stage)
        options = {key: value for key, value in as_dict(self.options).items() if key != "adapt_to"}
        builder = {**options, "targets": list(self.options.targets), "weights": dict(shares)}
        return {**facts, "tasks": self.tasks, "data_hash": self.data_hash, "builder": builder}
