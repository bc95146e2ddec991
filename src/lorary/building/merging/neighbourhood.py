"""Which experts of a library are nearest to a new task: the search of what starts from neighbours.

A task is embedded by the diagonal of the Fisher information of a fresh LoRA's output side, on its first n_examples; the
top_k experts of the highest cosine are its neighbours.
Source: pi-tuning, Wu et al. 2023 (2304.14381).
Differs: Fisher information at one fresh adapter for all, not at each task's own expert.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from lorary.adapters.lora import LoRA
from lorary.building.contract import Failures, failing_alone, own_tasks
from lorary.building.limits import check_positive, check_targets
from lorary.building.merging.fisher import fisher
from lorary.errors import OptionError, TaskError
from lorary.library.library import Library
from lorary.model.base.base_model import BaseModel
from lorary.options import name_of
from lorary.tasks.task import Task, Tasks

Known = Mapping[str, Sequence[Task]]
"""Expert name -> its own tasks, by which it is embedded."""

LEAST_TEMPERATURE = 1e-6
"""Cosines are known no better, and by much less they divide to infinity."""


class Neighbourhood(Protocol):
    """The options of the search."""

    @property
    def top_k(self) -> int:
        """How many neighbours."""

    @property
    def temperature(self) -> float:
        """Shares are softmax(cosine / temperature)."""

    @property
    def n_examples(self) -> int:
        """How many examples embed a task."""

    @property
    def adapt_to(self) -> tuple[str, ...]:
        """The new tasks; none named = those that no expert was trained on."""

    @property
    def targets(self) -> tuple[str, ...]:
        """Where the fresh LoRA sits that embeds."""

    @property
    def seed(self) -> int:
        """What the fresh LoRA is drawn from."""


def check_neighbourhood(options: Neighbourhood) -> None:
    """Refuse options that have no meaning. Raises E-OPTION."""
    check_positive(options, "top_k", "temperature", "n_examples")
    if options.temperature < LEAST_TEMPERATURE:
        message = f"{name_of(options)}: temperature={options.temperature}, expected {LEAST_TEMPERATURE:g} or more."
        raise OptionError("E-OPTION", message, "At such a one the nearest gets all.")
    check_targets(options)


def split_tasks(options: Neighbourhood, tasks: Tasks, library: Library) -> tuple[Known, list[Task]]:
    """Tell the library's own tasks by expert, and the new ones.

    Raises E-TASK, and E-DATA for a task, new or the library's own, without examples.
    """
    known = {name: own_tasks(tasks, library, name) for name in sorted(library)}
    owned = {task.name for own in known.values() for task in own}
    new = [tasks[name] for name in options.adapt_to] or [task for task in tasks.values() if task.name not in owned]
    if not new:
        what = f"every given task has an expert in library {str(library.path)!r} already"
        more = ", ..." if len(owned) > 4 else ""
        hint = f"Give new tasks beside {', '.join(sorted(owned)[:4])}{more}, or name some of them: adapt_to=[NAME]."
        raise TaskError("E-TASK", f"there is nothing to build: {what}.", hint)
    for task in new:
        if not task.train:
            raise TaskError("E-DATA", f"task {task.name!r} has no training examples.", "Check its splits.")
    return known, new


def nearest(
    options: Neighbourhood, base: BaseModel, known: Known, new: Mapping[str, Task], failed: Failures
) -> dict[str, dict[str, float]]:
    """Embed the library's tasks and the new ones; give the cosines of each one's neighbours, the nearest first.

    new: by the name of its job; one that can't be embedded is noted in `failed` and left out.
    """
    names, rows = list(known), torch.stack([_embed(options, base, own) for own in known.values()])  # (N, F)
    found = {}
    for job, task in new.items():
        with failing_alone(job, failed):
            cosines = torch.nn.functional.cosine_similarity(rows, _embed(options, base, [task]), dim=1)
            best = cosines.topk(min(options.top_k, len(cosines)))
            found[job] = dict(zip([names[i] for i in best.indices.tolist()], best.values.tolist(), strict=True))
    return found


def _embed(options: Neighbourhood, base: BaseModel, tasks: Sequence[Task]) -> Tensor:
    found = [
        fisher(base, task.train[: options.n_examples], kind=LoRA(), targets=options.targets, seed=options.seed)
        for task in tasks
    ]
    return torch.stack(found).mean(0)


def known_hashes(known: Known) -> list[list[str]]:
    """Hash the data that embeds the experts."""
    return [[task.hash for task in own] for own in known.values()]
