"""Weights over a library, found without gradients from a few examples."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from lorary.adapters.contract import Experts, Mix, Weights
from lorary.adapters.low_rank import LowRankBank
from lorary.adapters.products import svd_of_sum
from lorary.building.contract import Builder, Job, JobStep, Made, OneExpertJob, Report, jobs_of, require_source
from lorary.building.limits import check_positive
from lorary.building.merging.merge import parents_of, plain_size, sums_of_ranks, write_plain
from lorary.building.merging.search import Evolution, Nevergrad, Search, replay, require_nevergrad
from lorary.building.merging.tries import read_tries, write_tries
from lorary.building.training.job import expert_name
from lorary.errors import TaskError
from lorary.formats.peft import read_experts
from lorary.hashing import SKIP_DEFAULT, short_key
from lorary.library.adapter.provenance import write_metrics
from lorary.library.library import Library
from lorary.model.attached.attachment import Attachment, attached
from lorary.model.base.base_model import BaseModel
from lorary.model.decoding.answer import Answering, answer
from lorary.model.decoding.sequences import Caller
from lorary.model.ensemble.ensemble import check_library, check_mix, find_sites
from lorary.model.text.scoring import score
from lorary.options import as_dict
from lorary.routing.contract import Context, Gate, Routing
from lorary.tasks.example import Example
from lorary.tasks.overlap import overlaps
from lorary.tasks.task import Task, Tasks

ANSWER_TOKENS = 64
"""Longest answer that Rouge-L is computed of, as where the paper evaluates."""
ROUGE_PENALTY = 0.05
"""By Rouge-L the paper's code multiplies the penalty in twice, once as 0.05."""
OVERFLOWN = 1e9
"""The loss of a mixture so far out that it gives no numbers: a bad point, not a failure."""


@dataclass(frozen=True, kw_only=True)
class LoraHub(Builder):
    """Merge a library into one expert per new task, with weights found from a few examples and no gradient.

    Minimises over w in [-limit, limit]^N the loss on the first n_examples of the task's training part, in nats per
    token, plus `penalty` times the mean of |w|, in `steps` tries. objective="authors" divides the loss by the number of
    examples, and not the penalty; "rouge_l" takes minus the mean Rouge-L (0 to 100) of greedy answers of at most 64
    tokens, and a 20th of the penalty. The expert is (sum w_i A_i, sum w_i s_i B_i), one rank for all; with
    mix="outputs" it is sum w_i s_i B_i A_i, any ranks, by SVD. search="nevergrad" is NGOpt from w = 0, as the authors
    have it (needs the package nevergrad); "evolution" needs nothing and starts from the best of nothing, the mean and,
    if `steps` allow, each expert alone.
    Source: Huang et al. 2023 (2307.13269): 5 examples, 40 tries, penalty 0.05 (their code's mean, not the paper's
    sum), limit 1.5. Ostapenko et al. 2024 (2405.11157) section 4 and its code: all training examples by
    Rouge-L in 30 tries, lorahub:objective=rouge_l,steps=30,search=nevergrad,n_examples=N.
    Differs: the search is an evolution strategy that starts from known points; the best point that was tried is taken,
    not the optimiser's recommendation; and the penalty weighs as much as it says whatever the number of examples, by
    default a fifth of what it weighs in the authors' code at 5 of them (`objective`).
    """

    steps: int = 40
    """Mixtures to try."""
    n_examples: int = 5
    """Training examples of the task that they are judged by."""
    penalty: float = 0.05
    """Weight of the mean of |w| in what is minimised."""
    limit: float = 1.5
    """Largest size of a weight."""
    mix: Mix = "factors"
    """What is added up: the factors apart, or what the experts add."""
    search: Literal["evolution", "nevergrad"] = "evolution"
    """Optimiser: evolution needs nothing, nevergrad the package of that name."""
    seed: int = 42
    """Seed of all that is drawn at random."""
    objective: Literal["authors", "rouge_l"] | None = field(default=None, metadata=SKIP_DEFAULT)
    """What is minimised beside the penalty: the loss (None), as the authors' code weighs it, or minus Rouge-L."""

    def __post_init__(self) -> None:
        """Refuse options that have no meaning."""
        super().__post_init__()
        check_positive(self, "steps", "n_examples", "limit")

    @property
    def share(self) -> float:
        """How much of the penalty counts."""
        return ROUGE_PENALTY if self.objective == "rouge_l" else 1.0

    def plan(self, tasks: Tasks, source: Library | None = None) -> list[Job]:
        """Plan one job per task, named after it.

        Raises E-SOURCE, E-EMPTY, E-DATA for a task without examples, and E-EXTRA if the search isn't here.
        """
        library = require_source(self, source)
        check_mix(library, self.mix)
        if self.search == "nevergrad":
            require_nevergrad()
        for task in tasks.values():
            if not task.train:
                raise TaskError("E-DATA", f"task {task.name!r} has no training examples.", "Check its splits.")
        return [_SearchJob(expert_name(name), library, tasks[name], self) for name in tasks]

    def n_numbers(self, job: Job, base: BaseModel) -> int | None:
        """Count them: one rank for all, or at most the sum of all. Raises as `check_places`."""
        (search,) = jobs_of(_SearchJob, [job])
        ranks = sums_of_ranks(search.source.values(), base, 1 if self.mix == "factors" else None)
        return plain_size(ranks, base)

    def run(self, pack: Sequence[Job], base: BaseModel, work: Path, report: Report | None) -> Made:
        """Search; the losses so far are kept in `work`."""
        made = {}
        for job in jobs_of(_SearchJob, pack):
            check_library(base, job.source)
            check_mix(job.source, self.mix)
            experts = read_experts(job.source)
            rows = _search(job, base, experts, work / f"{job.name}.json", report)
            made[job.name] = partial(job.write, experts, rows, base.name)
        return Made(made)


Row = dict[str, Any]
"""One try: its step (from 1), its loss with the penalty, its weights."""


def _search(job: "_SearchJob", base: BaseModel, experts: Experts, path: Path, report: Report | None) -> list[Row]:
    o = job.options
    searches: dict[str, Callable[[int, int, float, int], Search]] = {"evolution": Evolution, "nevergrad": Nevergrad}
    search = searches[o.search](len(experts), o.steps, o.limit, o.seed)
    run = short_key(as_dict(o), job.name, job.data_hash, job.source.hash)
    losses = read_tries(path, run, o.steps)
    points = replay(search, losses)
    path.parent.mkdir(parents=True, exist_ok=True)
    with _mixed(base, job.source, experts, o.mix) as (attachment, gate):
        for step in range(len(losses) + 1, o.steps + 1):
            point = search.ask()
            gate.weights = torch.tensor(point, device=base.device).view(1, 1, 1, -1)
            loss = _fit(o, base, job.examples, attachment) + o.share * o.penalty * sum(map(abs, point)) / len(point)
            loss = loss if math.isfinite(loss) else OVERFLOWN
            search.tell(loss)
            if report:
                report(JobStep(job.name, step, o.steps, loss))
            losses.append(loss)
            points.append(point)
            write_tries(path, run, losses)
    return [{"step": i, "loss": loss, "weights": list(p)} for i, (loss, p) in enumerate(zip(losses, points), start=1)]


def _fit(options: LoraHub, base: BaseModel, examples: Sequence[Example], attachment: Attachment) -> float:
    """Tell how badly the mixture that is attached fits the examples."""
    if options.objective == "rouge_l":
        caller = Caller(base.hf, lambda _: Context(), attachment.turn)
        found = overlaps(examples, answer(base, examples, caller, Answering(ANSWER_TOKENS)))
        return -sum(found) / len(found)
    scores = score(base, examples, lambda _: attachment.turn(Context()))
    nats = -sum(s.nats for s in scores) / sum(s.n_tokens for s in scores)
    return nats / (len(examples) if options.objective == "authors" else 1)


class _Fixed(Gate):
    """Give every token the same weights."""

    weights: Tensor

    def forward(self, h: Tensor, context: Context) -> Routing:
        """Answer with the weights that were set, (1, 1, 1, E)."""
        return Routing(self.weights)


@contextmanager
def _mixed(base: BaseModel, source: Library, experts: Experts, mix: Mix) -> Iterator[tuple[Attachment, _Fixed]]:
    """Attach all experts to the base for the time of a search, one gate for all sites."""
    gate = _Fixed()
    parts = {}
    for name, site in find_sites(base, source).items():
        bank = LowRankBank([experts[expert].get(name) for expert in sorted(experts)], site).cast(base.dtype)
        parts[name] = (bank.to(base.device), gate)
    with attached(base.hf, parts, mix) as attachment:
        yield attachment, gate


def merge_weights(experts: Experts, point: Sequence[float], mix: Mix) -> dict[str, Weights]:
    """Make one expert of all with fixed weights, as `mix` combines them; experts in order of their names."""
    made = {}
    for site in sorted({site for expert in experts.values() for site in expert}):
        present = [
            (w, experts[name][site]) for w, name in zip(point, sorted(experts), strict=True) if site in experts[name]
        ]
        if mix == "factors":
            factors = [[w * side for side in weights.factors()] for w, weights in present]
            a, b = (torch.stack(sides).sum(0) for sides in zip(*factors, strict=True))
            made[site] = Weights(a, b, 1.0)
        else:
            parts = [weights for _, weights in present]
            found = svd_of_sum(parts, [w for w, _ in present])
            made[site], _ = found.keep(max(1, found.rank))
    return made


@dataclass(frozen=True)
class _SearchJob(OneExpertJob):
    """Find the weights for one task."""

    task: Task
    options: LoraHub

    @property
    def n_steps(self) -> int:
        """Tries in all."""
        return self.options.steps

    @property
    def tasks(self) -> tuple[str, ...]:
        """The one task."""
        return (self.task.name,)

    @property
    def examples(self) -> Sequence[Example]:
        """Those that each try is scored on."""
        return self.task.train[: self.options.n_examples]

    def key(self, base_facts: Mapping[str, object]) -> str:
        """Hash of all that decides the result."""
        return short_key(as_dict(self.options), self.tasks, self.data_hash, self.source.hash, base_facts)

    def write(self, experts: Experts, rows: Sequence[Row], base_name: str, stage: Path) -> dict[str, object]:
        """Write the PEFT files and metrics.jsonl; give the provenance's fields."""
        best = min(rows, key=lambda row: (row["loss"], row["step"]))
        weights = merge_weights(experts, best["weights"], self.options.mix)
        write_plain(stage, weights, base_name)
        write_metrics(stage, rows)
        chosen = dict(zip(sorted(experts), best["weights"], strict=True))
        return {
            "tasks": self.tasks,
            "data_hash": self.data_hash,
            "builder": {**as_dict(self.options), "weights": chosen},
            "seed": self.options.seed,
            "steps": self.n_steps,
            "metrics": {"loss": best["loss"], "best_step": float(best["step"])},
            "parents": parents_of(self.source, sorted(self.source)),
        }
