"""Builders that train experts jointly with the weights by which each task mixes them."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

import torch
from torch import nn

from lorary.adapters.contract import Bank, Mix, Site
from lorary.adapters.kinds.lora import LoRA
from lorary.adapters.low_rank import LowRankBank, LowRankWeights
from lorary.adapters.packed import Dropped, InputDropout, Rows
from lorary.building.contract import Builder, Job, Made, Report, Write
from lorary.building.limits import check_adapter, check_positive
from lorary.building.training.batches import mix_seed
from lorary.building.training.curve import Curve
from lorary.building.training.job import TrainingJob, TrainingOptions
from lorary.building.training.learner import Learner, Pupil
from lorary.building.training.loop import train
from lorary.building.training.stack import Stack
from lorary.errors import BuildError
from lorary.formats.tensor_file import write_tensors
from lorary.library.library import Library
from lorary.model.attached.attachment import Attachment
from lorary.model.attached.slot import Slot
from lorary.model.base.base_model import BaseModel
from lorary.routing.contract import Gate
from lorary.routing.task_skills import TaskGate, pack_state
from lorary.tasks.task import Tasks

Skills = Mapping[str, tuple[LoRA, Mapping[str, LowRankWeights]]]
"""Expert name -> its form and its weights by site."""

LOGIT_BOUND = 1e-3


@dataclass(frozen=True, kw_only=True)
class MixtureBuilder(TrainingOptions, Builder, ABC):
    """Options of a builder that trains one mixture of experts on all tasks together.

    At every site, task t goes through one LoRA with A = sum_k w_tk A_k and B = sum_k w_tk s_k B_k, where
    w_tk = sigmoid(z_tk) / sum_j sigmoid(z_tj); z (T, K) starts uniform in ±1e-3 and is learned with the experts.
    Source: Ponti et al. 2023 (2202.13914); Ostapenko et al. 2024 (2405.11157) section 3 and its code: 0.1 for z.
    """

    dropout: float = 0.05
    """Dropout on the adapter's input."""
    routing_lr: float = 0.1
    """Peak learning rate of the weights that mix the experts."""

    left: ClassVar[str] = "poly"
    """The kind of the artefact that keeps z."""
    trains_experts: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Refuse options that have no meaning."""
        super().__post_init__()
        check_positive(self, "routing_lr")

    @property
    def n_blocks(self) -> int:
        """Blocks of the input side and of the output side with weights of their own."""
        return 1

    @abstractmethod
    def start(self, job: TrainingJob, base: BaseModel) -> Skills:
        """Give the experts that training starts from, in order of their names."""

    def packs(self, jobs: Sequence[Job], base: BaseModel) -> list[list[Job]]:
        """Let each job train alone: its rows already share the passes."""
        return [[job] for job in jobs]

    def run(self, pack: Sequence[Job], base: BaseModel, work: Path, report: Report | None) -> Made:
        """Train the mixture."""
        (job,) = (job for job in pack if isinstance(job, TrainingJob))
        skills = self.start(job, base)
        experts = [weights for _, weights in skills.values()]
        gates = {site.name: self._gate(site, job, len(skills)) for site in sites_of(experts, base)}
        logits = {site: gate.logits for site, gate in gates.items()}
        with mixed(
            job.pupil(base), base, experts, gates, list(logits.values()), "factors", dropout=self.dropout,
            batch_size=self.batch_size, lr=self.lr if self.trains_experts else None, routing_lr=self.routing_lr,
        ) as (learner, banks):  # fmt: skip
            (curve,) = train(learner, self, job.n_steps, work, report)
            state = pack_state(logits, job.tasks)
            writers = {name: self.writer(job, base, name, skills, i, banks, curve) for i, name in enumerate(skills)}
        return Made(writers, {(job.name, self.left): partial(write_tensors, state)})

    def _gate(self, site: Site, job: TrainingJob, n_experts: int) -> TaskGate:
        _check_blocks(site, self.n_blocks)
        generator = torch.Generator().manual_seed(mix_seed(self.seed, "logits", site.name))
        logits = torch.empty(len(job.tasks), self.n_blocks, n_experts)
        return TaskGate(logits.uniform_(-LOGIT_BOUND, LOGIT_BOUND, generator=generator))

    def writer(
        self,
        job: TrainingJob,
        base: BaseModel,
        name: str,
        skills: Skills,
        index: int,
        banks: Mapping[str, LowRankBank],
        curve: Curve,
    ) -> Write:
        """Make the writer of one trained expert."""
        kind, before = skills[name]
        weights = {site: bank.cpu().unpack(index) for site, bank in banks.items() if site in before}
        return partial(job.write, kind=kind, weights=weights, curve=curve, base=base)


@dataclass(frozen=True, kw_only=True)
class FreshMixture(MixtureBuilder, ABC):
    """Options of a builder whose n_skills experts k0, k1, ... start from scratch; the others are those of Private."""

    rank: int = 4
    """Rank of the adapter."""
    alpha: float = 16.0
    """The adapter's scale is alpha / rank."""
    rslora: bool = False
    """Scale by alpha / sqrt(rank) instead."""
    targets: tuple[str, ...] = ("attention",)
    """Layers: last parts of module paths, "attention" (q, k, v, o), or "all-linear" (all but the head)."""
    n_skills: int = 8
    """Experts to train jointly."""

    def __post_init__(self) -> None:
        """Refuse options that have no meaning."""
        super().__post_init__()
        check_positive(self, "n_skills")
        check_adapter(self)

    def plan(self, tasks: Tasks, source: Library | None = None) -> list[Job]:
        """Plan the one job."""
        width = len(str(self.n_skills - 1))
        return [self.job(self.left, list(tasks.values()), made=tuple(f"k{i:0{width}}" for i in range(self.n_skills)))]

    def n_numbers(self, job: Job, base: BaseModel) -> int | None:
        """Count them: all sites of all skills have the rank."""
        sites = base.target_sites(self.targets)
        return self.n_skills * sum(self.rank * (site.d_in + site.d_out) for site in sites)

    def start(self, job: TrainingJob, base: BaseModel) -> Skills:
        """Draw experts that differ: from one A they would learn the same, as each gets almost the same share."""
        kind = LoRA(rank=self.rank, alpha=self.alpha, rslora=self.rslora)
        drawn: dict[str, dict[str, LowRankWeights]] = {name: {} for name in job.experts}
        for site in base.target_sites(self.targets):
            generator = torch.Generator().manual_seed(mix_seed(self.seed, site.name))
            for name in job.experts:
                drawn[name][site.name] = kind.fresh(site, generator)
        return {name: (kind, weights) for name, weights in drawn.items()}


def sites_of(experts: Sequence[Mapping[str, LowRankWeights]], base: BaseModel) -> list[Site]:
    """List the base's sites where any of the experts sits."""
    return [site for name, site in base.sites.items() if any(name in weights for weights in experts)]


@contextmanager
def mixed(
    pupil: Pupil,
    base: BaseModel,
    experts: Sequence[Mapping[str, LowRankWeights]],
    gates: Mapping[str, Gate],
    logits: Sequence[nn.Parameter],
    mix: Mix,
    *,
    dropout: float,
    batch_size: int,
    lr: float | None,
    routing_lr: float,
) -> Iterator[tuple[Learner, dict[str, LowRankBank]]]:
    """Attach experts and the gates that mix them to the base for the time of a run, to be trained as one pupil.

    gates: by site; several sites may share one. logits: what they learn. lr: of the experts, None = they stay.
    routing_lr: of the logits.
    """
    rows = Rows()
    drops = InputDropout(dropout, batch_size, rows) if dropout else None
    banks: dict[str, LowRankBank] = {}
    for site in sites_of(experts, base):
        bank = LowRankBank([weights.get(site.name) for weights in experts], site)
        banks[site.name] = bank.cast(torch.float32).to(base.device)
    parts: dict[str, tuple[Bank, Gate]] = {
        site: (Dropped(bank, drops) if drops else bank, gates[site].to(base.device)) for site, bank in banks.items()
    }
    stacks = {}
    if lr is not None:
        factors = [factor for bank in banks.values() for factor in (bank.a, bank.b)]
        stacks["factors"] = Stack(factors, 1, lr=lr)
    stacks["routing"] = Stack(logits, 1, lr=routing_lr)
    attachment = Attachment(base.hf, parts, Slot(mix))
    try:
        yield Learner(base, [pupil], stacks, attachment, rows, drops), banks
    finally:
        attachment.detach()


def _check_blocks(site: Site, n_blocks: int) -> None:
    if site.d_in % n_blocks or site.d_out % n_blocks:
        message = f"site {site.name!r} is {site.d_in} -> {site.d_out}, which {n_blocks} heads can't divide."
        raise BuildError("E-BLOCKS", message, "Choose n_heads that divides both.")
