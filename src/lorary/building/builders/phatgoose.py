"""A gate for each expert of a library, learned after the expert, by which tokens choose."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from lorary.adapters.contract import Bank, Experts, Site
from lorary.adapters.low_rank import LowRankBank
from lorary.adapters.packed import Rows
from lorary.building.contract import Builder, Job, Made, Report, jobs_of, own_tasks, require_source
from lorary.building.limits import check_positive
from lorary.building.training.adaptation import size_of_start, started_from
from lorary.building.training.job import TrainingJob, training_job
from lorary.building.training.loop import train
from lorary.building.training.options import TrainingOptions
from lorary.building.training.packs import diverged, encoded, pack_jobs
from lorary.building.training.stack import Stack
from lorary.building.training.trainable import Pupil, Trainable
from lorary.formats.peft import read_experts
from lorary.formats.tensor_file import write_tensors
from lorary.library.adapter.expert import Expert
from lorary.library.library import Library
from lorary.model.attached.attachment import attached
from lorary.model.base.base_model import BaseModel
from lorary.model.ensemble.ensemble import check_library, find_sites
from lorary.routing.contract import Context, Gate, Routing
from lorary.tasks.task import Tasks

KIND = "phatgoose"


@dataclass(frozen=True, kw_only=True)
class Phatgoose(TrainingOptions, Builder):
    """Train, for each expert of a library, a gate at each of its layers; the experts stay as they are.

    On the expert's own tasks, which must be among those given, a layer answers W x + sigmoid(v . x) s B A x; v (d_in,)
    starts at zero and is all that learns. The new library holds copies of the experts and under learned/ their gates,
    which the router `phatgoose` reads. No gate is trained with a view of the other experts, so that those who come
    later change none. `lr` is that of the gates.
    Source: Muqeeth et al. 2024 (2402.05859) and its code: 100 steps; lr 1e-3 as the code of 2405.11157 has it.
    Differs: that code has batches of 4, a warm-up of 10 % and keeps the last gates; the authors' own an lr of 5e-3 and
    32 batches a step. Here the gates are trained as experts are, and the best kept.
    """

    steps: int | None = 100
    """Optimiser steps of each gate."""
    lr: float = 1e-3
    """Peak learning rate of the gates."""
    pack_tokens: int = 512
    """Experts share a pass until a step of usual width has so many tokens; 512 are as fast as more."""

    def __post_init__(self) -> None:
        """Refuse options that have no meaning."""
        super().__post_init__()
        check_positive(self, "pack_tokens")

    def plan(self, tasks: Tasks, source: Library | None = None) -> list[Job]:
        """Plan one job per expert, of its name. Raises E-SOURCE, E-EMPTY, and E-DATA for one without examples."""
        library = require_source(self, source)
        return [
            training_job(self, name, own_tasks(tasks, library, name), start=(name,), source=library)
            for name in sorted(library)
        ]

    def n_numbers(self, job: Job, base: BaseModel) -> int | None:
        """Count those of the expert that is copied. Raises as `check_places`."""
        return size_of_start(job, base)

    def packs(self, jobs: Sequence[Job], base: BaseModel) -> list[list[Job]]:
        """Let gates share a pass until a step of usual width has pack_tokens."""
        return pack_jobs(jobs, base, self.pack_tokens)

    def run(self, pack: Sequence[Job], base: BaseModel, work: Path, report: Report | None) -> Made:
        """Train the gates of a pack's experts in the same passes."""
        jobs, pupils, failed = encoded(jobs_of(TrainingJob, pack), base)
        if not jobs:
            return Made({}, failed=failed)
        members = {name: expert for job in jobs for name, expert in started_from(job).items()}
        assert jobs[0].source is not None
        check_library(base, jobs[0].source)
        with _gated(pupils, members, base, self.lr) as (trainable, gates):
            curves = train(trainable, self, jobs[0].n_steps, work, report)
            found = [_vectors(gates, members[job.name], i) for i, job in enumerate(jobs)]
        copies = {
            job.name: partial(job.write_copy, members[job.name], curve) for job, curve in zip(jobs, curves, strict=True)
        }
        learned = {(job.name, KIND): partial(write_tensors, state) for job, state in zip(jobs, found, strict=True)}
        return Made(copies, learned, failed | diverged(pupils, curves, self))


@contextmanager
def _gated(
    pupils: Sequence[Pupil], members: Mapping[str, Expert], base: BaseModel, lr: float
) -> Iterator[tuple[Trainable, dict[str, "_OwnGate"]]]:
    """Attach the experts, each with gates of its own, to the base for the time of a run; experts in order of pupils."""
    rows, experts = Rows(), read_experts(members)
    sites = find_sites(base, members)
    gates = {name: _OwnGate(len(pupils), site.d_in, rows).to(base.device) for name, site in sites.items()}
    parts: dict[str, tuple[Bank, Gate]] = {
        name: (_frozen(experts, [pupil.name for pupil in pupils], site, base), gates[name])
        for name, site in sites.items()
    }
    stacks = {"gates": Stack([gate.vectors for gate in gates.values()], len(pupils), lr=lr)}
    with attached(base.hf, parts, "outputs") as attachment:
        yield Trainable(base, pupils, stacks, attachment, rows), gates


def _frozen(experts: Experts, names: Sequence[str], site: Site, base: BaseModel) -> Bank:
    return LowRankBank([experts[name].get(site.name) for name in names], site).cast(base.dtype).to(base.device)


class _OwnGate(Gate):
    """Let each row's own expert speak, sigmoid(v . h) of it: vectors (N, d_in), one for each expert of the pack."""

    def __init__(self, n_experts: int, d_in: int, rows: Rows) -> None:
        super().__init__()
        self.vectors = nn.Parameter(torch.zeros(n_experts, d_in))
        self.rows = rows

    def forward(self, h: Tensor, context: Context) -> Routing:
        """Weigh each token, (B, T, 1, 1); some blocks hand over (1, B * T, d_in)."""
        owner = self.rows.owner
        tokens = h.reshape(len(owner), -1, h.shape[-1]).float()  # (B, T, d_in)
        scores = torch.bmm(tokens, self.vectors.index_select(0, owner).unsqueeze(2))  # (B, T, 1)
        experts = owner.view(-1, 1, 1).expand(scores.shape)
        shape = h.shape[:2]
        return Routing(torch.sigmoid(scores).view(*shape, 1, 1), experts.reshape(*shape, 1))


def _vectors(gates: Mapping[str, _OwnGate], expert: Expert, index: int) -> dict[str, Tensor]:
    """Take one expert's gates out, by site, on the CPU."""
    return {site: gate.vectors.detach()[index].cpu().clone() for site, gate in gates.items() if site in expert.sites}
