"""New tasks, from their nearest experts and one of their own, tuned with the weights that interpolate them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lorary.adapters.contract import Weights
from lorary.adapters.low_rank import LowRankBank
from lorary.adapters.products import svd_of_sum
from lorary.building.contract import Builder, Job, Made, Report, failing_alone, jobs_of, require_source
from lorary.building.limits import check_adapter, check_positive
from lorary.building.merging.merge import check_rank, parents_of, plain_size, sums_of_ranks, write_plain
from lorary.building.merging.neighbourhood import Known, check_neighbourhood, known_hashes, nearest, split_tasks
from lorary.building.training.adaptation import require_trainable, started_from
from lorary.building.training.curve import Curve
from lorary.building.training.job import TrainingJob, expert_name, training_job
from lorary.building.training.loop import train
from lorary.building.training.mixture import mixed, sites_of
from lorary.building.training.options import TrainingOptions
from lorary.building.training.packs import Start, diverged, encoded, fresh_starts, pack_jobs, train_apart
from lorary.errors import OptionError
from lorary.formats.peft import read_experts
from lorary.hashing import SKIP_DEFAULT, short_key
from lorary.library.library import Library
from lorary.model.base.base_model import BaseModel
from lorary.model.ensemble.ensemble import check_library
from lorary.routing.contract import Context, Gate, Routing
from lorary.tasks.task import Task, Tasks


@dataclass(frozen=True, kw_only=True)
class PiTuning(TrainingOptions, Builder):
    """Train, for each new task, its neighbours, an expert of its own and the shares that add them up, all together.

    First the task's own expert trains alone, as by `private`, for the share `own_share` of the steps. Then it and the
    neighbours, found as by `neighbours`, are tuned together: every layer that holds sites answers with
    sum_i softmax(z)_i s_i B_i A_i x, with a z of its own, learned at the peak rate `routing_lr`. The shares start at
    softmax(cosine / temperature), the own expert's cosine being 1. What is left is one plain expert per task, the sum
    itself, its rank the sum of their ranks, which may differ; both parts of the training stop early.
    Source: pi-tuning, Wu et al. 2023 (2304.14381), and its code: z per attention layer, sums of the experts' outputs.
    Differs: Fisher information at one fresh adapter for all, not at each task's own expert; z has a learning rate of
    its own, as in Poly, since at that of the experts it would stay where it is; and it starts at the cosines, where the
    authors' code starts all of it at 1 (`even_start`).
    """

    n_evaluations: int = 10
    """How often the validation loss is measured; the best weights are kept."""
    patience: int | None = 3
    """Stop after so many evaluations in a row without a new best; None: never."""
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
    """Layers of the own expert, and of the fresh LoRA that embeds a task."""
    top_k: int = 3
    """Neighbours of each new task."""
    temperature: float = 0.05
    """Temperature of the softmax over their cosines."""
    n_examples: int = 32
    """Training examples that a task is embedded by."""
    adapt_to: tuple[str, ...] = ()
    """The new tasks; none given: those that no expert was trained on."""
    own_share: float = 0.5
    """Share of the steps in which the task's own expert trains alone."""
    routing_lr: float = 0.1
    """Peak learning rate of the weights that mix the experts."""
    even_start: bool = field(default=False, metadata=SKIP_DEFAULT)
    """Start with equal shares, the own expert's too."""

    def __post_init__(self) -> None:
        """Refuse options that have no meaning."""
        super().__post_init__()
        check_positive(self, "pack_tokens", "routing_lr")
        check_adapter(self)
        check_neighbourhood(self)
        if not 0 <= self.own_share < 1:
            raise OptionError("E-OPTION", f"pi_tuning: own_share={self.own_share}, expected 0 or more, below 1.")

    def plan(self, tasks: Tasks, source: Library | None = None) -> list[Job]:
        """Plan one job per new task, named after it.

        Raises E-SOURCE, E-EMPTY, E-TASK, and E-DATA for a task, new or the library's own, without examples.
        """
        library = require_source(self, source)
        known, new = split_tasks(self, tasks, library)
        return [self._job(task, known, library) for task in new]

    def _job(self, task: Task, known: Known, library: Library) -> "_PiTuningJob":
        job = training_job(self, expert_name(task.name), [task], start=tuple(known), source=library)
        return _PiTuningJob(**vars(job), task=task, known=known)

    def n_numbers(self, job: Job, base: BaseModel) -> int | None:
        """Count them, at most: the neighbours, found as the job runs, may be those of the largest ranks."""
        ranks = sums_of_ranks(started_from(job).values(), base, self.top_k)
        for site in base.target_sites(self.targets):
            ranks[site.name] = ranks.get(site.name, 0) + self.rank
        return plain_size(ranks, base)

    def packs(self, jobs: Sequence[Job], base: BaseModel) -> list[list[Job]]:
        """Let experts share a pass until a step of usual width has pack_tokens."""
        return pack_jobs(jobs, base, self.pack_tokens)

    def run(self, pack: Sequence[Job], base: BaseModel, work: Path, report: Report | None) -> Made:
        """Find the neighbours, train the pack's own experts in the same passes, then tune job by job."""
        jobs, pupils, failed = encoded(jobs_of(_PiTuningJob, pack), base)
        if not jobs:
            return Made({}, failed=failed)
        check_library(base, jobs[0].library)
        near = nearest(self, base, jobs[0].known, {job.name: job.task for job in jobs}, failed)
        n_steps = jobs[0].n_steps
        n_alone = int(self.own_share * n_steps)
        _, starts = fresh_starts(self, len(jobs), base)
        tell = _shifted(report, 0, n_steps)
        alone = train_apart(pupils, starts, self, n_alone, base, work / "alone", tell, dropout=self.dropout)
        failed |= diverged(pupils, [curve for _, curve in alone], self)
        writers = {}
        for job, (own, before) in zip(jobs, alone, strict=True):
            if job.name in failed:
                continue
            tell = _shifted(report, n_alone, n_steps)
            with failing_alone(job.name, failed):
                found, curve = self._tune(job, near[job.name], own, n_steps - n_alone, base, work / job.name, tell)
                whole = _joined(before, curve, n_alone)
                writers[job.name] = partial(job.write_sum, found=found, curve=whole, base_name=base.name)
        return Made(writers, failed=failed)

    def _tune(
        self,
        job: "_PiTuningJob",
        cosines: Mapping[str, float],
        own: Start,
        n_steps: int,
        base: BaseModel,
        work: Path,
        report: Report | None,
    ) -> tuple["_Found", Curve]:
        """Train a task's own expert and its neighbours with the shares that add them up."""
        experts = [own, *read_experts(require_trainable({name: job.library[name] for name in cosines})).values()]
        first = self._first_logits([cosines[name] for name in sorted(cosines)])
        layers: dict[str, _SharesGate] = {}
        gates = {s.name: layers.setdefault(_layer_of(s.name), _SharesGate(first)) for s in sites_of(experts, base)}
        logits = [gate.logits for gate in layers.values()]
        with mixed(
            job.pupil(base), base, experts, gates, logits, "outputs", dropout=self.dropout,
            batch_size=self.batch_size, lr=self.lr, routing_lr=self.routing_lr,
        ) as (trainable, banks):  # fmt: skip
            (curve,) = train(trainable, self, n_steps, work, report)
        shares = {layer: gate.shares.tolist() for layer, gate in layers.items()}
        weights = {site: _sum(job.name, site, bank.cpu(), shares[_layer_of(site)]) for site, bank in banks.items()}
        mean = [sum(column) / len(shares) for column in zip(*shares.values(), strict=True)]
        return _Found(weights, mean[0], dict(zip(sorted(cosines), mean[1:], strict=True))), curve

    def _first_logits(self, cosines: Sequence[float]) -> Tensor:
        """Give the z that training starts from: of the own expert, then of the neighbours."""
        found = torch.tensor([1.0, *cosines])
        return torch.ones_like(found) if self.even_start else found / self.temperature


class _SharesGate(Gate):
    """Give every token the same shares: softmax(z) over the experts, z (E,)."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = nn.Parameter(logits.clone(), requires_grad=False)

    @property
    def shares(self) -> Tensor:
        """The present shares, (E,)."""
        return torch.softmax(self.logits.detach(), 0)

    def forward(self, h: Tensor, context: Context) -> Routing:
        """Answer with the shares, (1, 1, 1, E)."""
        return Routing(torch.softmax(self.logits, 0).view(1, 1, 1, -1))


def _layer_of(site: str) -> str:
    """Name the module that holds a site, such as one attention layer."""
    return site.rpartition(".")[0]


def _sum(expert: str, site: str, bank: LowRankBank, shares: Sequence[float]) -> Weights:
    """Add up the experts of a site, exactly."""
    present = [i for i, rank in enumerate(bank.layout.ranks) if rank]
    total = svd_of_sum([bank.unpack(i) for i in present], [shares[i] for i in present])
    rank = max(1, total.rank)
    check_rank(rank, expert, site, "Lower top_k or rank, or truncate the library with --method svd.")
    return total.keep(rank)[0]


def _joined(before: Curve, curve: Curve, n_alone: int) -> Curve:
    """Put the curve of the joint tuning behind that of the own expert alone."""
    later = [{**row, "step": row["step"] + n_alone} for row in curve.rows]
    return replace(curve, best_step=n_alone + curve.best_step, rows=[*before.rows, *later])


def _shifted(report: Report | None, n_before: int, n_steps: int) -> Report | None:
    if report is None:
        return None
    return lambda step: report(replace(step, step=n_before + step.step, n_steps=n_steps))


@dataclass(frozen=True)
class _Found:
    """What tuning made: the sum by site, and the mean over layers of the own expert's and the neighbours' shares."""

    weights: Mapping[str, Weights]
    own_share: float
    shares: Mapping[str, float]


@dataclass(frozen=True)
class _PiTuningJob(TrainingJob):
    """Tune the neighbours of one task and an expert of its own."""

    task: Task = field(default=Task(""), compare=False)
    known: Known = field(default_factory=dict, compare=False)

    @property
    def library(self) -> Library:
        """The library that the neighbours are in."""
        assert self.source is not None
        return self.source

    def key(self, base_facts: Mapping[str, object]) -> str:
        """Hash of all that decides the result: what the other new tasks are doesn't."""
        return short_key(super().key(base_facts), known_hashes(self.known))

    def _deciding_options(self) -> dict[str, Any]:
        return {key: value for key, value in super()._deciding_options().items() if key != "adapt_to"}

    def write_sum(self, stage: Path, found: _Found, curve: Curve, base_name: str) -> dict[str, object]:
        """Write the sum as a plain adapter; name the neighbours as parents, with their shares."""
        write_plain(stage, found.weights, base_name)
        facts = self.write_facts(stage, curve)
        builder = {**facts["builder"], "weights": dict(found.shares), "own_weight": found.own_share}
        return {**facts, "builder": builder, "parents": parents_of(self.library, sorted(found.shares))}
