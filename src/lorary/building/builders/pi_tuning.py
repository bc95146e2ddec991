"""New tasks, from the mean of their nearest experts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lorary.adapters.kinds.lora import LoRA
from lorary.building.adaptation import form_of, mean_factors, read_start
from lorary.building.base import Job, Made, Report
from lorary.building.job import TrainingJob, expert_name
from lorary.building.merging import parents_of
from lorary.building.neighbourhood import Known, Neighbourhood, known_hashes
from lorary.building.train import Curve
from lorary.building.training import PackBuilder, Start
from lorary.hashing import short_key
from lorary.library.library import Library
from lorary.model.base_model import BaseModel
from lorary.tasks.task import Task, Tasks


@dataclass(frozen=True, kw_only=True)
class PiTuning(Neighbourhood, PackBuilder):
    """Train one LoRA per new task, starting from its neighbours' factors, A and B apart, added up by their shares.

    Which the neighbours are, and their shares, is found as by `neighbours`. Rank and scale are those of the experts,
    which must agree in both. Stops early on the validation loss.
    Source: pi-tuning, Wu et al. 2023 (2304.14381).
    Differs: one LoRA is tuned from the interpolation, where the source tunes the neighbours, their shares and an expert
    trained on the new task jointly; Fisher information at one fresh adapter for all, not at each task's own expert.
    """

    n_evaluations: int = 10
    patience: int | None = 3

    def __post_init__(self) -> None:
        """Refuse options that have no meaning."""
        Neighbourhood.__post_init__(self)
        PackBuilder.__post_init__(self)

    def plan(self, tasks: Tasks, source: Library | None = None) -> list[Job]:
        """Plan one job per new task, named after it.

        Raises E-SOURCE, E-EMPTY, E-TASK, and E-DATA for a task, new or the library's own, without examples.
        """
        library, known, new = self.split(tasks, source)
        return [self._job(task, known, library) for task in new]

    def _job(self, task: Task, known: Known, library: Library) -> "_PiTuningJob":
        job = self.job(expert_name(task.name), [task], start=tuple(known), source=library)
        return _PiTuningJob(**vars(job), task=task, known=known)

    def run(self, pack: Sequence[Job], base: BaseModel, work: Path, report: Report | None) -> Made:
        """Find the neighbours, then train the pack."""
        jobs = [job for job in pack if isinstance(job, _PiTuningJob)]
        found = self.shares(base, jobs[0].known, [job.task for job in jobs])
        near = [replace(job, shares=shares) for job, shares in zip(jobs, found, strict=True)]
        return super().run(near, base, work, report)

    def start(self, jobs: Sequence[TrainingJob], base: BaseModel) -> tuple[LoRA, Sequence[Start]]:
        """Interpolate the factors. Raises E-BASE for another base, E-RANK for experts of unequal form."""
        experts = read_start(jobs[0], base)
        starts = [mean_factors(experts, job.shares) for job in jobs if isinstance(job, _PiTuningJob)]
        return form_of("the start", starts[0]), starts


@dataclass(frozen=True)
class _PiTuningJob(TrainingJob):
    """Train from the neighbours of one task. shares: which they are; known once the job runs."""

    task: Task = field(default=Task(""), compare=False)
    known: Known = field(default_factory=dict, compare=False)
    shares: Mapping[str, float] = field(default_factory=dict, compare=False)

    def key(self, base_fingerprint: Mapping[str, Any]) -> str:
        """Hash of all that decides the result: what the other new tasks are doesn't."""
        return short_key(super().key(base_fingerprint), known_hashes(self.known))

    def _deciding_options(self) -> dict[str, Any]:
        return {key: value for key, value in super()._deciding_options().items() if key != "adapt_to"}

    def write_facts(self, stage: Path, curve: Curve) -> dict[str, Any]:
        """Name the neighbours as parents, with their shares."""
        facts = super().write_facts(stage, curve)
        assert self.source is not None
        builder = {**facts["builder"], "weights": dict(self.shares)}
        return {**facts, "builder": builder, "parents": parents_of(self.source, sorted(self.shares))}
