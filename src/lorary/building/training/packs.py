"""Builders whose experts train apart, several in the same passes over the base."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch

from lorary.adapters.contract import Bank
from lorary.adapters.kinds.lora import LoRA
from lorary.adapters.low_rank import LowRankWeights
from lorary.adapters.packed import Dropped, InputDropout, PackedBank, Rows
from lorary.building.contract import Builder, Failures, Job, Made, Report, failing_alone
from lorary.building.limits import check_adapter, check_positive
from lorary.building.training.batches import mix_seed
from lorary.building.training.curve import Curve
from lorary.building.training.job import TrainingJob, TrainingOptions
from lorary.building.training.learner import Learner, Pupil
from lorary.building.training.loop import divergence, train
from lorary.building.training.stack import Stack
from lorary.model.attached.attachment import Attachment
from lorary.model.attached.slot import Slot
from lorary.model.base.base_model import BaseModel
from lorary.routing.contract import Context, Gate, Routing

J = TypeVar("J", bound=TrainingJob)

Start = Mapping[str, LowRankWeights]
"""Site -> the weights that an expert starts from."""


@dataclass(frozen=True, kw_only=True)
class PackBuilder(TrainingOptions, Builder, ABC):
    """A builder that trains something for each expert on data of its own; several share the passes over the base.

    The same `pack_tokens` make the same packs on any machine.
    """

    pack_tokens: int = 512
    """Experts share a pass until a step of usual width has so many tokens; 512 are as fast as more."""

    def __post_init__(self) -> None:
        """Refuse options that have no meaning."""
        super().__post_init__()
        check_positive(self, "pack_tokens")

    def packs(self, jobs: Sequence[Job], base: BaseModel) -> list[list[Job]]:
        """Group jobs of equal length of run, short rows with short rows, until a step has about pack_tokens.

        A function of the jobs alone, so that a second call groups them as the first did.
        """
        found = {job.name: job.typical_length(base) for job in jobs if isinstance(job, TrainingJob)}
        # What can't be encoded fits in no pack, so that the others are grouped as they are without it.
        width = {name: length or math.inf for name, length in found.items()}
        packs: list[list[Job]] = []
        for job in sorted(jobs, key=lambda j: (j.n_steps, width[j.name], j.name)):
            last = packs[-1] if packs else []
            fits = last and last[0].n_steps == job.n_steps
            if fits and (len(last) + 1) * self.batch_size * width[job.name] <= self.pack_tokens:
                last.append(job)
            else:
                packs.append([job])
        return packs

    def diverged(self, pupils: Sequence[Pupil], curves: Sequence[Curve]) -> Failures:
        """List the failures of those whose loss stopped being a number."""
        found = zip(pupils, curves, strict=True)
        return {pupil.name: divergence(pupil.name, curve, self) for pupil, curve in found if curve.diverged}


@dataclass(frozen=True, kw_only=True)
class LoRABuilder(PackBuilder, ABC):
    """A builder that trains each expert on data of its own."""

    dropout: float = 0.05
    """Dropout on the adapter's input."""

    @abstractmethod
    def start(self, jobs: Sequence[TrainingJob], base: BaseModel) -> tuple[LoRA, Sequence[Start]]:
        """Give the form of a pack's experts and what each of them starts from: the same sites, ranks and scales."""

    def run(self, pack: Sequence[Job], base: BaseModel, work: Path, report: Report | None) -> Made:
        """Train the pack."""
        jobs, pupils, failed = encoded([job for job in pack if isinstance(job, TrainingJob)], base)
        if not jobs:
            return Made({}, failed=failed)
        kind, starts = self.start(jobs, base)
        trained = self.train_apart(pupils, starts, jobs[0].n_steps, base, work, report)
        writers = {
            job.name: partial(job.write, kind=kind, weights=weights, curve=curve, base=base)
            for job, (weights, curve) in zip(jobs, trained, strict=True)
        }
        return Made(writers, failed=failed | self.diverged(pupils, [curve for _, curve in trained]))

    def train_apart(
        self,
        pupils: Sequence[Pupil],
        starts: Sequence[Start],
        n_steps: int,
        base: BaseModel,
        work: Path,
        report: Report | None,
    ) -> list[tuple[Start, Curve]]:
        """Train one expert per pupil in the same passes; gives each one's weights and curve."""
        with packed(pupils, base, starts, self.dropout, self.lr, self.batch_size) as (learner, banks):
            curves = train(learner, self, n_steps, work, report)
            return [({site: bank.unpack(i) for site, bank in banks.items()}, curve) for i, curve in enumerate(curves)]


def encoded(jobs: Sequence[J], base: BaseModel) -> tuple[list[J], list[Pupil], Failures]:
    """Encode the data of a pack's jobs; those whose data this base can't be given fail alone and are left out."""
    pupils: dict[str, Pupil] = {}
    failed: Failures = {}
    for job in jobs:
        with failing_alone(job.name, failed):
            pupils[job.name] = job.pupil(base)
    return [job for job in jobs if job.name in pupils], list(pupils.values()), failed


@contextmanager
def packed(
    pupils: Sequence[Pupil],
    base: BaseModel,
    starts: Sequence[Start],
    dropout: float,
    lr: float,
    batch_size: int,
) -> Iterator[tuple[Learner, dict[str, PackedBank]]]:
    """Attach one trainable expert per pupil to the base for the time of a run."""
    rows = Rows()
    drops = InputDropout(dropout, batch_size, rows) if dropout else None
    banks = {site: PackedBank([start[site] for start in starts], rows).to(base.device) for site in starts[0]}
    parts: dict[str, tuple[Bank, Gate]] = {
        site: (Dropped(bank, drops) if drops else bank, _Everyone()) for site, bank in banks.items()
    }
    factors = [factor for bank in banks.values() for factor in (bank.a, bank.b)]
    stacks = {"factors": Stack(factors, len(pupils), lr=lr)}
    attachment = Attachment(base.hf, parts, Slot("outputs"))
    try:
        yield Learner(base, pupils, stacks, attachment, rows, drops), banks
    finally:
        attachment.detach()


class _Everyone(Gate):
    """Answers nothing of use: in a pack `Rows` says who speaks."""

    def __init__(self) -> None:
        super().__init__()
        self.routing = Routing(torch.ones(1, 1, 1, 1))

    def forward(self, h: torch.Tensor, context: Context) -> Routing:
        return self.routing


@dataclass(frozen=True, kw_only=True)
class TrainedBuilder(LoRABuilder, ABC):
    """Options of a builder that trains LoRAs from scratch.

    Source: Ostapenko et al. 2024 (2405.11157) section 9: rank 4, alpha 16, dropout 0.05, ATT+O.
    """

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
        check_adapter(self)

    def n_numbers(self, job: Job, base: BaseModel) -> int | None:
        """Count them: all sites have the rank."""
        return sum(self.rank * (site.d_in + site.d_out) for site in base.target_sites(self.targets))

    def start(self, jobs: Sequence[TrainingJob], base: BaseModel) -> tuple[LoRA, Sequence[Start]]:
        """Draw fresh weights.

        From the seed and the site alone: all experts start from the same A, without which neither averaging the
        factors nor comparing them would mean anything.
        """
        kind = LoRA(rank=self.rank, alpha=self.alpha, rslora=self.rslora)
        fresh = {
            site.name: kind.fresh(site, torch.Generator().manual_seed(mix_seed(self.seed, site.name)))
            for site in base.target_sites(self.targets)
        }
        return kind, [fresh] * len(jobs)
