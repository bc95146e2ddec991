"""Builders that start from a library's experts, for new tasks with data."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from lorary.adapters.contract import Experts, Weights
from lorary.adapters.lora import LoRA
from lorary.building.contract import Job, require_source
from lorary.building.training.job import TrainingJob, expert_name
from lorary.building.training.mixture import MixtureBuilder, Skills
from lorary.building.training.packs import LoRABuilder, Start
from lorary.errors import BuildError
from lorary.formats.peft import read_experts
from lorary.library.adapter.expert import Expert
from lorary.library.library import Library
from lorary.model.base.base_model import BaseModel
from lorary.model.ensemble.ensemble import check_library, check_mix, check_places
from lorary.options import as_dict
from lorary.tasks.task import Tasks


@dataclass(frozen=True, kw_only=True)
class AdaptedBuilder(LoRABuilder, ABC):
    """A builder that trains one expert per new task; all start from the mean of some experts' factors.

    The form of the experts, rank and scale, is that of those they start from. Stops early on the validation loss.
    """

    n_evaluations: int = 10
    patience: int | None = 3

    @abstractmethod
    def chosen(self, library: Library) -> Sequence[str]:
        """Name the experts to start from."""

    def plan(self, tasks: Tasks, source: Library | None = None) -> list[Job]:
        """Plan one job per task, named after it. Raises E-SOURCE without a library, E-EMPTY for an empty one."""
        library = require_source(self, source)
        names = tuple(self.chosen(library))
        return [self.job(expert_name(name), [tasks[name]], start=names, source=library) for name in tasks]

    def n_numbers(self, job: Job, base: BaseModel) -> int | None:
        """Count them: a mean sits wherever an expert does, with their rank. Raises as `check_places`."""
        experts = started_from(job).values()
        check_places(base, experts)
        ranks = {site: rank for expert in experts for site, rank in expert.ranks.items()}
        return sum(rank * (base.sites[site].d_in + base.sites[site].d_out) for site, rank in ranks.items())

    def start(self, jobs: Sequence[TrainingJob], base: BaseModel) -> tuple[LoRA, Sequence[Start]]:
        """Average the factors. Raises E-BASE for another base, E-RANK for experts of unequal form."""
        mean = mean_factors(read_start(jobs[0], base))
        return form_of("the start", mean), [mean] * len(jobs)


@dataclass(frozen=True, kw_only=True)
class LibraryMixture(MixtureBuilder, ABC):
    """A builder that learns, for new tasks, how to mix the experts of a library, as Poly mixes its skills.

    All tasks share one run, each with weights of its own. Stops early on the validation loss.
    """

    n_evaluations: int = 10
    patience: int | None = 3

    def plan(self, tasks: Tasks, source: Library | None = None) -> list[Job]:
        """Plan the one job, which makes experts of the same names. Raises E-SOURCE, E-EMPTY as `require_source`."""
        library = require_source(self, source)
        names = tuple(sorted(library))
        return [self.job(as_dict(self)["name"], list(tasks.values()), made=names, start=names, source=library)]

    def n_numbers(self, job: Job, base: BaseModel) -> int | None:
        """Count those of the experts it starts from, whose shapes they keep. Raises as `check_places`."""
        return size_of_start(job, base)

    def start(self, job: TrainingJob, base: BaseModel) -> Skills:
        """Read the experts. Raises E-BASE for another base, E-RANK for experts of unequal rank at a site."""
        experts = read_start(job, base)
        return {name: (self.form(name, weights), weights) for name, weights in experts.items()}

    def form(self, name: str, weights: Mapping[str, Weights]) -> LoRA:
        """Tell in which form an expert is written."""
        return form_of(f"expert {name!r}", weights)


def started_from(job: Job) -> dict[str, Expert]:
    """Give the experts that a job starts from, by name."""
    assert isinstance(job, TrainingJob) and job.source is not None
    return {name: job.source[name] for name in job.start}


def size_of_start(job: Job, base: BaseModel) -> int:
    """Count the numbers of the experts that a job starts from. Raises as `check_places`."""
    experts = started_from(job).values()
    check_places(base, experts)
    return sum(expert.n_parameters for expert in experts)


def read_start(job: TrainingJob, base: BaseModel) -> Experts:
    """Read the experts that a job starts from. Raises E-BASE for another base, E-RANK for unequal ranks at a site."""
    assert job.source is not None
    check_library(base, job.source)
    members = started_from(job)
    check_mix(members, "factors")
    return read_experts(members)


def mean_factors(experts: Experts) -> dict[str, Weights]:
    """Average A and s B apart; who has no weights at a site counts and adds nothing, as in `uniform`.

    The scale is that of the first expert, so that means of one library are of one form. Ranks are equal at each site.
    """
    mean: dict[str, Weights] = {}
    for site in sorted({site for weights in experts.values() for site in weights}):
        parts = [weights[site] for weights in experts.values() if site in weights]
        scale = parts[0].scale
        a = torch.stack([w.a.float() for w in parts]).sum(0) / len(experts)  # (r, d_in)
        b = torch.stack([w.scale / scale * w.b.float() for w in parts]).sum(0) / len(experts)  # (d_out, r)
        mean[site] = Weights(a, b, scale)
    return mean


def form_of(what: str, weights: Mapping[str, Weights]) -> LoRA:
    """Find the one rank and scale that weights have at all sites. Raises E-RANK if there are several."""
    forms = {(w.rank, w.scale) for w in weights.values()}
    if len(forms) > 1:
        message = f"{what} has ranks and scales {sorted(forms)} at its sites, expected one of each."
        raise BuildError("E-RANK", message, "Start from experts without rank or alpha patterns.")
    ((rank, scale),) = forms
    return LoRA(rank=rank, alpha=scale * rank)
