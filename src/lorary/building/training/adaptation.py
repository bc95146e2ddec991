"""Trainings on new tasks that start from a library's experts: what they have in common."""

from collections.abc import Mapping, Sequence

import torch

from lorary.adapters.contract import Experts, Weights
from lorary.adapters.lora import LoRA
from lorary.building.contract import Job, jobs_of
from lorary.building.training.job import TrainingJob, expert_name, training_job
from lorary.building.training.mixture import Skills
from lorary.building.training.options import TrainingOptions
from lorary.building.training.packs import Start
from lorary.errors import AdapterError
from lorary.formats.peft import read_experts
from lorary.library.adapter.expert import Expert
from lorary.library.library import Library
from lorary.model.base.base_model import BaseModel
from lorary.model.ensemble.ensemble import check_library, check_mix, check_places
from lorary.options import name_of
from lorary.tasks.task import Tasks


def plan_adaptations(options: TrainingOptions, tasks: Tasks, source: Library, names: Sequence[str]) -> list[Job]:
    """Plan one job per task, named after it, that starts from these experts of a library."""
    return [
        training_job(options, expert_name(name), [tasks[name]], start=tuple(names), source=source) for name in tasks
    ]


def plan_library_mixture(options: TrainingOptions, tasks: Tasks, source: Library) -> list[Job]:
    """Plan one job for all tasks together, which makes experts of the names that the library has."""
    names = tuple(sorted(source))
    return [training_job(options, name_of(options), list(tasks.values()), made=names, start=names, source=source)]


def mean_starts(jobs: Sequence[TrainingJob], base: BaseModel) -> tuple[LoRA, Sequence[Start]]:
    """Average the factors of the experts that jobs start from: one start, and its form.

    Raises E-BASE for another base, E-RANK for experts of unequal form.
    """
    mean = mean_factors(read_start(jobs[0], base))
    return form_of("the start", mean), [mean] * len(jobs)


def mean_size(job: Job, base: BaseModel) -> int:
    """Count the numbers of a mean: it sits wherever an expert does, with their rank. Raises as `check_places`."""
    experts = started_from(job).values()
    check_places(base, experts)
    ranks = {site: rank for expert in experts for site, rank in expert.ranks.items()}
    return sum(rank * (base.sites[site].d_in + base.sites[site].d_out) for site, rank in ranks.items())


def read_skills(job: TrainingJob, base: BaseModel) -> Skills:
    """Read the experts that a mixture starts from. Raises as `read_start`."""
    return read_start(job, base)


def forms_of(skills: Skills) -> dict[str, LoRA]:
    """Tell in which form each expert is written. Raises as `form_of`."""
    return {name: form_of(f"expert {name!r}", weights) for name, weights in skills.items()}


def started_from(job: Job) -> dict[str, Expert]:
    """Give the experts that a job starts from, by name. Raises E-FEATURE as `require_trainable`."""
    (training,) = jobs_of(TrainingJob, [job])
    assert training.source is not None
    return require_trainable({name: training.source[name] for name in training.start})


def require_trainable(experts: Mapping[str, Expert]) -> dict[str, Expert]:
    """Refuse experts on a mixture's own experts, which get other tokens in each pass. Raises E-FEATURE."""
    for name, expert in experts.items():
        if expert.has_slices:
            site = next(site for site, factors in expert.sites.items() if factors.of)
            what = (
                f"expert {name!r} adapts {site!r}, of a mixture of experts, where experts are routed, but not trained."
            )
            hint = "Merge without training (uniform, ties, dare, svd), or leave it out."
            raise AdapterError("E-FEATURE", what, hint)
    return dict(experts)


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
    """Average A and s B apart; an expert without weights at a site counts and adds nothing, as in `uniform`.

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
        raise AdapterError("E-RANK", message, "Start from experts without rank or alpha patterns.")
    ((rank, scale),) = forms
    return LoRA(rank=rank, alpha=scale * rank)
