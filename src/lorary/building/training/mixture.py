"""Experts trained jointly with each task's mixing weights.

At every site, task t goes through one LoRA with A = sum_k w_tk A_k and B = sum_k w_tk s_k B_k, where
w_tk = sigmoid(z_tk) / sum_j sigmoid(z_tj), or, where that is asked for, z_tk itself; z (T, K) starts uniform in ±1e-3
and is learned with the experts.
Source: Ponti et al. 2023 (2202.13914); Ostapenko et al. 2024 (2405.11157) section 3 and its code.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch
from torch import nn

from lorary.adapters.contract import Bank, Mix, Site, Weights
from lorary.adapters.lora import LoRA
from lorary.adapters.low_rank import LowRankBank
from lorary.adapters.packed import Dropped, InputDropout, Rows
from lorary.building.contract import Made, Report, Write
from lorary.building.training.batches import mix_seed
from lorary.building.training.job import TrainingJob
from lorary.building.training.loop import train
from lorary.building.training.packs import FreshLoRA
from lorary.building.training.stack import Stack
from lorary.building.training.tied import factors_of, share_inputs
from lorary.building.training.trainable import Pupil, Trainable
from lorary.errors import BuildError
from lorary.formats.tensor_file import write_tensors
from lorary.model.attached.attachment import attached
from lorary.model.base.base_model import BaseModel
from lorary.routing.contract import Gate
from lorary.routing.task_skills import TaskGate, pack_state

Skills = Mapping[str, Mapping[str, Weights]]
"""Expert name -> its weights by site, in order of the names."""

LOGIT_BOUND = 1e-3


def train_mixture(
    job: TrainingJob,
    skills: Skills,
    forms: Mapping[str, LoRA] | None,
    base: BaseModel,
    work: Path,
    report: Report | None,
    *,
    kept_as: str,
    dropout: float,
    routing_lr: float,
    n_blocks: int = 1,
    tie: Sequence[str] = (),
    raw: bool = False,
) -> Made:
    """Train one mixture of experts on all tasks of a job together.

    skills: the experts that it starts from. forms: in which form each is written; None = they stay as they are in the
    job's source, and only z learns. kept_as: the kind of the artefact that keeps z. dropout: on the adapters' input.
    routing_lr: peak learning rate of z. n_blocks: blocks of the input side and of the output side with a z of their
    own. tie: layers that share one A, as `share_inputs`. raw: z itself is the weights. Raises E-BLOCKS for
    a layer that the blocks can't divide.
    """
    experts, options = list(skills.values()), job.options
    gates = {site.name: _fresh_gate(site, job, len(skills), n_blocks, raw) for site in sites_of(experts, base)}
    logits = {site: gate.logits for site, gate in gates.items()}
    with mixed(
        job.pupil(base), base, experts, gates, list(logits.values()), "factors", dropout=dropout,
        batch_size=options.batch_size, lr=None if forms is None else options.lr, routing_lr=routing_lr, tie=tie,
    ) as (trainable, banks):  # fmt: skip
        (curve,) = train(trainable, options, job.n_steps, work, report)
        state = pack_state(logits, job.tasks, raw=raw)
    writers: dict[str, Write] = {}
    for index, (name, before) in enumerate(skills.items()):
        if forms is None:
            assert job.source is not None
            writers[name] = partial(job.write_copy, job.source[name], curve)
        else:
            weights = {site: bank.cpu().unpack(index) for site, bank in banks.items() if site in before}
            writers[name] = partial(job.write, kind=forms[name], weights=weights, curve=curve, base=base)
    return Made(writers, {(job.name, kept_as): partial(write_tensors, state)})


def _fresh_gate(site: Site, job: TrainingJob, n_experts: int, n_blocks: int, raw: bool) -> TaskGate:
    _check_blocks(site, n_blocks)
    generator = torch.Generator().manual_seed(mix_seed(job.options.seed, "logits", site.name))
    logits = torch.empty(len(job.tasks), n_blocks, n_experts)
    return TaskGate(logits.uniform_(-LOGIT_BOUND, LOGIT_BOUND, generator=generator), raw=raw)


def train_fresh_mixture(
    options: FreshLoRA, job: TrainingJob, base: BaseModel, work: Path, report: Report | None, *, kept_as: str,
    routing_lr: float, n_blocks: int = 1,
) -> Made:  # fmt: skip
    """Train a mixture of a job's experts from scratch."""
    kind = LoRA(rank=options.rank, alpha=options.alpha, rslora=options.rslora)
    skills, forms = _drawn(options, kind, job.experts, base), dict.fromkeys(job.experts, kind)
    return train_mixture(
        job, skills, forms, base, work, report, kept_as=kept_as, dropout=options.dropout, routing_lr=routing_lr,
        n_blocks=n_blocks, tie=options.tie,
    )  # fmt: skip


def _drawn(options: FreshLoRA, kind: LoRA, names: Sequence[str], base: BaseModel) -> Skills:
    """Draw experts that differ: from one A they would learn the same, as each gets almost the same share."""
    drawn: dict[str, dict[str, Weights]] = {name: {} for name in names}
    for site in base.target_sites(options.targets):
        generator = torch.Generator().manual_seed(mix_seed(options.seed, site.name))
        for name in names:
            drawn[name][site.name] = kind.fresh(site, generator, options.init)
    return drawn


def skill_names(n: int) -> tuple[str, ...]:
    """Name n experts that stand for no task: k0, k1, ..."""
    width = len(str(n - 1))
    return tuple(f"k{i:0{width}}" for i in range(n))


def sites_of(experts: Sequence[Mapping[str, Weights]], base: BaseModel) -> list[Site]:
    """List the base's sites where any of the experts sits."""
    return [site for name, site in base.sites.items() if any(name in weights for weights in experts)]


@contextmanager
def mixed(
    pupil: Pupil,
    base: BaseModel,
    experts: Sequence[Mapping[str, Weights]],
    gates: Mapping[str, Gate],
    logits: Sequence[nn.Parameter],
    mix: Mix,
    *,
    dropout: float,
    batch_size: int,
    lr: float | None,
    routing_lr: float,
    tie: Sequence[str] = (),
) -> Iterator[tuple[Trainable, dict[str, LowRankBank]]]:
    """Attach experts and the gates that mix them to the base for the time of a run, to be trained as one pupil.

    gates: by site; several sites may share one. logits: what they learn. lr: of the experts, None = they stay.
    routing_lr: of the logits. tie: as `share_inputs`.
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
        share_inputs(banks, base.sites, tie)
        stacks["factors"] = Stack(factors_of(banks), 1, lr=lr)
    stacks["routing"] = Stack(logits, 1, lr=routing_lr)
    with attached(base.hf, parts, mix) as attachment:
        yield Trainable(base, [pupil], stacks, attachment, rows, drops), banks


def _check_blocks(site: Site, n_blocks: int) -> None:
    if site.d_in % n_blocks or site.d_out % n_blocks:
        message = f"site {site.name!r} is {site.d_in} -> {site.d_out}, which {n_blocks} heads can't divide."
        raise BuildError("E-BLOCKS", message, "Choose n_heads that divides both.")
