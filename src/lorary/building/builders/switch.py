"""Gates over all experts of a library, learned together, by which tokens choose among them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lorary.adapters.contract import Experts, Mix, Site
from lorary.building.contract import Builder, Job, Made, Report, jobs_of, require_source
from lorary.building.limits import check_positive
from lorary.building.training.adaptation import size_of_start, started_from
from lorary.building.training.batches import mix_seed
from lorary.building.training.job import TrainingJob, training_job
from lorary.building.training.loop import train
from lorary.building.training.mixture import LOGIT_BOUND, mixed
from lorary.building.training.options import TrainingOptions
from lorary.errors import AdapterError, OptionError
from lorary.formats.peft import read_experts
from lorary.formats.tensor_file import write_tensors
from lorary.library.adapter.expert import Expert
from lorary.library.library import Library
from lorary.model.base.base_model import BaseModel
from lorary.model.ensemble.ensemble import check_library, check_mix, find_sites
from lorary.routing.contract import Context, Routing
from lorary.routing.softmax_gate import TOP_K, SharesGate, balance_of, row_name
from lorary.tasks.task import Tasks

KIND = "switch"


@dataclass(frozen=True, kw_only=True)
class Switch(TrainingOptions, Builder):
    """Train, at each layer, a softmax over a library's experts on tasks; the experts stay as they are.

    A token's answer is that of its `top_k` best experts, each with its share of p = softmax(W h); W (E, d_in) starts
    uniform in ±1e-3 and is all that learns, from the loss on the tasks given, of which no expert need know any. The
    new library holds copies of the experts and under learned/ their gates, which the router `switch` reads. W is of
    all experts: for one that comes later build anew.
    `balance` times E sum_i f_i mean(p_i), f_i the share of the tokens that choose i, is added to the loss at each
    layer. It is of the tokens of a pass, so that pass_tokens then decides, too. `lr` is that of the gates.
    Source: Fedus et al. 2021 (2101.03961), whose balance is 0.01; Shazeer et al. 2017 (1701.06538); moe_rkhs in the
    code of Ostapenko et al. 2024 (2405.11157), which keeps all experts.
    Differs: the experts are frozen and nothing is added to scores; training is not the paper's, which has no such row.
    """

    epochs: float = 1.0
    """Passes over the data where `steps` is None."""
    lr: float = 1e-3
    """Peak learning rate of the gates."""
    top_k: int | None = None
    """Experts kept at each token; None: all."""
    mix: Mix = "factors"
    """How experts are mixed in training: their factors, or their outputs."""
    balance: float = 0.0
    """Weight of the term that spreads tokens over the experts; 0: none."""

    def __post_init__(self) -> None:
        """Refuse options that have no meaning."""
        super().__post_init__()
        check_positive(self, "top_k")
        if self.balance < 0:
            raise OptionError("E-OPTION", f"switch: balance={self.balance}, expected 0 or more.")

    def plan(self, tasks: Tasks, source: Library | None = None) -> list[Job]:
        """Plan the one job, which copies all experts. Raises E-SOURCE, E-EMPTY, and E-DATA without examples."""
        library = require_source(self, source)
        names = tuple(sorted(library))
        job = training_job(self, KIND, list(tasks.values()), made=names, start=names, source=library)
        return [_SwitchJob(**vars(job))]

    def n_numbers(self, job: Job, base: BaseModel) -> int | None:
        """Count those of the experts that are copied. Raises as `check_places`."""
        return size_of_start(job, base)

    def run(self, pack: Sequence[Job], base: BaseModel, work: Path, report: Report | None) -> Made:
        """Train the gates. Raises E-BASE for another base, E-RANK for factors of unequal rank at a site."""
        (job,) = jobs_of(_SwitchJob, pack)
        assert job.source is not None
        check_library(base, job.source)
        members = started_from(job)
        self._check_mix(members)
        experts = read_experts(members)
        gates = {name: self._gate(site, experts) for name, site in find_sites(base, members).items()}
        with mixed(
            job.pupil(base), base, list(experts.values()), gates, [gate.vectors for gate in gates.values()], self.mix,
            dropout=0.0, batch_size=self.batch_size, lr=None, routing_lr=self.lr,
        ) as (trainable, _):  # fmt: skip
            if self.balance:
                trainable.penalty = lambda: self.balance * torch.stack([g.balance() for g in gates.values()]).sum()
            (curve,) = train(trainable, self, job.n_steps, work, report)
            state = _state(gates, list(experts), self.top_k)
        writers = {name: partial(job.write_copy, expert, curve) for name, expert in members.items()}
        return Made(writers, {(job.name, KIND): partial(write_tensors, state)})

    def _check_mix(self, members: Mapping[str, Expert]) -> None:
        try:
            check_mix(members, self.mix)
        except AdapterError as error:
            hint = "Write switch:mix=outputs, and route with that mix; or bring all to one rank with --method svd."
            raise error.reworded(error.message, hint) from None

    def _gate(self, site: Site, experts: Experts) -> "_LearningGate":
        members = torch.tensor([i for i, weights in enumerate(experts.values()) if site.name in weights])
        generator = torch.Generator().manual_seed(mix_seed(self.seed, KIND, site.name))
        vectors = torch.empty(len(members), site.d_in).uniform_(-LOGIT_BOUND, LOGIT_BOUND, generator=generator)
        return _LearningGate(vectors, members, n_experts=len(experts), top_k=self.top_k)


class _LearningGate(SharesGate):
    """A gate that learns, and remembers how unevenly the tokens of a pass chose."""

    _uneven: Tensor | None = None

    @property
    def n_chosen(self) -> int | None:
        """None, so that no way of mixing is chosen by a measured time: two runs end in the same bits."""
        return None

    def forward(self, h: Tensor, context: Context) -> Routing:
        """Route each token, and look at all of them."""
        scores = self.scores(h)
        if torch.is_grad_enabled():
            self._uneven = balance_of(scores, self.n_kept, context.mask)
        return self.shared_out(h, scores)

    def balance(self) -> Tensor:
        """Give what the last pass was, and forget it; 0 if it came by another way."""
        found, self._uneven = self._uneven, None
        return found if found is not None else self.vectors.new_zeros(())


def _state(gates: Mapping[str, _LearningGate], names: Sequence[str], top_k: int | None) -> dict[str, Tensor]:
    """Take all rows out, on the CPU."""
    rows = {
        row_name(names[member], site): row.cpu().clone()
        for site, gate in gates.items()
        for member, row in zip(gate.members.tolist(), gate.vectors.detach(), strict=True)
    }
    return {**rows, TOP_K: torch.tensor([top_k or 0])}


@dataclass(frozen=True)
class _SwitchJob(TrainingJob):
    """Train the gates of a library; where load is balanced, the tokens of a pass decide."""

    def _deciding_options(self) -> dict[str, Any]:
        assert isinstance(self.options, Switch)
        passes = {"pass_tokens": self.options.pass_tokens} if self.options.balance else {}
        return super()._deciding_options() | passes
