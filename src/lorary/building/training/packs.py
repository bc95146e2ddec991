"""Experts that train apart, several in the same passes over the base."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

import torch

from lorary.adapters.contract import Bank, Weights
from lorary.adapters.lora import Init, LoRA
from lorary.adapters.packed import Dropped, InputDropout, PackedBank, Rows
from lorary.building.contract import Failures, Job, Made, Report, failing_alone, jobs_of
from lorary.building.training.batches import mix_seed
from lorary.building.training.curve import Curve
from lorary.building.training.job import TrainingJob
from lorary.building.training.loop import divergence, train
from lorary.building.training.options import TrainingOptions
from lorary.building.training.stack import Stack
from lorary.building.training.tied import factors_of, share_inputs
from lorary.building.training.trainable import Pupil, Trainable
from lorary.model.attached.attachment import attached
from lorary.model.base.base_model import BaseModel
from lorary.routing.contract import Context, Gate, Routing

J = TypeVar("J", bound=TrainingJob)

Start = Mapping[str, Weights]
"""Site -> the weights that an expert starts from."""

MakeStack = Callable[..., Stack]
"""Makes the stack of what a pack learns, of its parameters: by default `Stack`, whose values are the parameters."""


class DrawnLoRA(Protocol):
    """The options that fresh LoRAs are drawn by."""

    @property
    def rank(self) -> int:
        """Rows of the input-side factor."""

    @property
    def alpha(self) -> float:
        """The scale times the rank."""

    @property
    def rslora(self) -> bool:
        """Whether the scale is alpha / sqrt(rank)."""

    @property
    def targets(self) -> tuple[str, ...]:
        """Last parts of module paths, "attention" or "all-linear"."""

    @property
    def seed(self) -> int:
        """What weights, order and dropout follow from."""


class FreshLoRA(DrawnLoRA, Protocol):
    """The options of LoRAs that are trained from scratch; some layers of a module may share one A."""

    @property
    def init(self) -> Init:
        """How A starts."""

    @property
    def tie(self) -> tuple[str, ...]:
        """Last parts of the module paths of those layers."""

    @property
    def dropout(self) -> float:
        """On the adapters' input."""


def pack_jobs(jobs: Sequence[Job], base: BaseModel, pack_tokens: int) -> list[list[Job]]:
    """Group jobs of equal length of run, short rows with short rows, until a step of usual width has pack_tokens.

    A function of the jobs alone, so that a second call groups them as the first did, on any machine. 512 tokens are as
    fast as more (measured: docs/log.md).
    """
    trainings = jobs_of(TrainingJob, jobs)
    # What can't be encoded fits in no pack, so that the others are grouped as they are without it.
    width = {job.name: job.typical_length(base) or math.inf for job in trainings}
    packs: list[list[Job]] = []
    for job in sorted(trainings, key=lambda j: (j.n_steps, width[j.name], j.name)):
        last = packs[-1] if packs else []
        fits = last and last[0].n_steps == job.n_steps
        if fits and (len(last) + 1) * job.options.batch_size * width[job.name] <= pack_tokens:
            last.append(job)
        else:
            packs.append([job])
    return packs


def train_fresh(
    options: FreshLoRA, pack: Sequence[Job], base: BaseModel, work: Path, report: Report | None, *, apart: bool = False
) -> Made:
    """Train a pack's experts from scratch, from one start for all, or apart: each from its own."""

    def start(jobs: Sequence[TrainingJob]) -> tuple[LoRA, Sequence[Start]]:
        if not apart:
            return fresh_starts(options, len(jobs), base, options.init)
        drawn = [fresh_starts(options, 1, base, options.init, job.name) for job in jobs]
        return drawn[0][0], [start for _, (start,) in drawn]

    return train_pack(pack, base, work, report, dropout=options.dropout, tie=options.tie, start=start)


def train_pack(
    pack: Sequence[Job],
    base: BaseModel,
    work: Path,
    report: Report | None,
    *,
    start: Callable[[Sequence[TrainingJob]], tuple[LoRA, Sequence[Start]]],
    dropout: float,
    tie: Sequence[str] = (),
    make_stack: MakeStack = Stack,
) -> Made:
    """Train each expert of a pack on data of its own.

    start: the form of the jobs' experts and what each of them starts from: the same sites, ranks and scales.
    dropout: on the adapters' input. tie: as `share_inputs`. make_stack: of what is learned.
    """
    jobs, pupils, failed = encoded(jobs_of(TrainingJob, pack), base)
    if not jobs:
        return Made({}, failed=failed)
    kind, starts = start(jobs)
    options = jobs[0].options
    trained = train_apart(
        pupils, starts, options, jobs[0].n_steps, base, work, report, dropout=dropout, tie=tie, make_stack=make_stack
    )
    writers = {
        job.name: partial(job.write, kind=kind, weights=weights, curve=curve, base=base)
        for job, (weights, curve) in zip(jobs, trained, strict=True)
    }
    return Made(writers, failed=failed | diverged(pupils, [curve for _, curve in trained], options))


def train_apart(
    pupils: Sequence[Pupil],
    starts: Sequence[Start],
    options: TrainingOptions,
    n_steps: int,
    base: BaseModel,
    work: Path,
    report: Report | None,
    *,
    dropout: float,
    tie: Sequence[str] = (),
    make_stack: MakeStack = Stack,
) -> list[tuple[Start, Curve]]:
    """Train one expert per pupil in the same passes; gives each one's weights and curve."""
    with packed(pupils, base, starts, dropout, options.lr, options.batch_size, tie, make_stack) as (trainable, banks):
        curves = train(trainable, options, n_steps, work, report)
        return [({site: bank.unpack(i) for site, bank in banks.items()}, curve) for i, curve in enumerate(curves)]


def encoded(jobs: Sequence[J], base: BaseModel) -> tuple[list[J], list[Pupil], Failures]:
    """Encode the data of a pack's jobs; those whose data this base can't be given fail alone and are left out."""
    pupils: dict[str, Pupil] = {}
    failed: Failures = {}
    for job in jobs:
        with failing_alone(job.name, failed):
            pupils[job.name] = job.pupil(base)
    return [job for job in jobs if job.name in pupils], list(pupils.values()), failed


def diverged(pupils: Sequence[Pupil], curves: Sequence[Curve], options: TrainingOptions) -> Failures:
    """List the failures of pupils whose loss became NaN or infinite."""
    found = zip(pupils, curves, strict=True)
    return {pupil.name: divergence(pupil.name, curve, options) for pupil, curve in found if curve.diverged}


def fresh_starts(
    options: DrawnLoRA, n: int, base: BaseModel, init: Init = "peft", *who: str
) -> tuple[LoRA, Sequence[Start]]:
    """Draw initial weights for n experts from the seed and the site alone, and from `who`, if each has its own.

    All start from the same A, without which neither averaging the factors nor comparing them would mean anything.
    """
    kind = LoRA(rank=options.rank, alpha=options.alpha, rslora=options.rslora)
    fresh = {
        site.name: kind.fresh(site, torch.Generator().manual_seed(mix_seed(options.seed, *who, site.name)), init)
        for site in base.target_sites(options.targets)
    }
    return kind, [fresh] * n


def fresh_size(options: DrawnLoRA, base: BaseModel) -> int:
    """Count the numbers of one expert: all sites have the rank."""
    return sum(options.rank * (site.d_in + site.d_out) for site in base.target_sites(options.targets))


@contextmanager
def packed(
    pupils: Sequence[Pupil],
    base: BaseModel,
    starts: Sequence[Start],
    dropout: float,
    lr: float,
    batch_size: int,
    tie: Sequence[str] = (),
    make_stack: MakeStack = Stack,
) -> Iterator[tuple[Trainable, dict[str, PackedBank]]]:
    """Attach one trainable expert per pupil to the base in the block."""
    rows = Rows()
    drops = InputDropout(dropout, batch_size, rows) if dropout else None
    banks = {site: PackedBank([start[site] for start in starts], rows).to(base.device) for site in starts[0]}
    parts: dict[str, tuple[Bank, Gate]] = {
        site: (Dropped(bank, drops) if drops else bank, _Everyone()) for site, bank in banks.items()
    }
    share_inputs(banks, base.sites, tie)
    stacks = {"factors": make_stack(factors_of(banks), len(pupils), lr=lr)}
    with attached(base.hf, parts, "outputs") as attachment:
        yield Trainable(base, pupils, stacks, attachment, rows, drops), banks


class _Everyone(Gate):
    """Answers nothing of use: in a pack `Rows` says whose expert each row goes through."""

    def __init__(self) -> None:
        super().__init__()
        self.routing = Routing(torch.ones(1, 1, 1, 1))

    def forward(self, h: torch.Tensor, context: Context) -> Routing:
        return self.routing
