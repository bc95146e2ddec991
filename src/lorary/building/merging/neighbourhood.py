"""Which experts of a library are nearest to a new task: the options and the search of what starts from neighbours."""

from abc import ABC
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lorary.adapters.kinds.lora import LoRA
from lorary.building.contract import Builder, Failures, failing_alone, own_tasks, require_source
from lorary.building.limits import check_positive, check_targets
from lorary.building.merging.fisher import fisher
from lorary.errors import BuildError, OptionError
from lorary.library.library import Library
from lorary.model.base.base_model import BaseModel
from lorary.options import name_of
from lorary.tasks.task import Task, Tasks

Known = Mapping[str, Sequence[Task]]
"""Expert name -> its own tasks, by which it is embedded."""

LEAST_TEMPERATURE = 1e-6
"""Cosines are known no better, and by much less they divide to infinity."""


@dataclass(frozen=True, kw_only=True)
class Neighbourhood(Builder, ABC):
    """Options of a builder that starts from the experts whose tasks ask the same of an adapter.

    A task is embedded by the diagonal of the Fisher information of a fresh LoRA's output side, on its first n_examples;
    the `top_k` experts of the highest cosine are its neighbours, with shares that are softmax(cosine / temperature).
    The given tasks must hold the library's own as well: an expert is embedded by them.
    Source: pi-tuning, Wu et al. 2023 (2304.14381).
    Differs: Fisher information at one fresh adapter for all, not at each task's own expert.
    """

    top_k: int = 3
    """Neighbours of each new task."""
    temperature: float = 0.05
    """Temperature of the softmax over their cosines."""
    n_examples: int = 32
    """Training examples that a task is embedded by."""
    adapt_to: tuple[str, ...] = ()
    """The new tasks; none given: those that no expert was trained on."""
    targets: tuple[str, ...] = ("attention",)
    """Layers of the fresh LoRA that embeds a task."""
    seed: int = 42
    """Seed of all that is drawn at random."""

    def __post_init__(self) -> None:
        """Refuse options that have no meaning."""
        super().__post_init__()
        check_positive(self, "top_k", "temperature", "n_examples")
        if self.temperature < LEAST_TEMPERATURE:
            message = f"{name_of(self)}: temperature={self.temperature}, expected {LEAST_TEMPERATURE:g} or more."
            raise OptionError("E-OPTION", message, "At such a one the nearest gets all.")
        check_targets(self)

    def split(self, tasks: Tasks, source: Library | None) -> tuple[Library, Known, list[Task]]:
        """Tell the library, its own tasks by expert, and the new ones.

        Raises E-SOURCE, E-EMPTY, E-TASK, and E-DATA for a task, new or the library's own, without examples.
        """
        library = require_source(self, source)
        known = {name: own_tasks(tasks, library, name) for name in sorted(library)}
        owned = {task.name for own in known.values() for task in own}
        new = [tasks[name] for name in self.adapt_to] or [task for task in tasks.values() if task.name not in owned]
        if not new:
            what = f"every given task has an expert in library {str(library.path)!r} already"
            more = ", ..." if len(owned) > 4 else ""
            hint = f"Give new tasks beside {', '.join(sorted(owned)[:4])}{more}, or name some of them: adapt_to=[NAME]."
            raise BuildError("E-TASK", f"there is nothing to build: {what}.", hint)
        for task in new:
            if not task.train:
                raise BuildError("E-DATA", f"task {task.name!r} has no training examples.", "Check its splits.")
        return library, known, new

    def nearest(
        self, base: BaseModel, known: Known, new: Mapping[str, Task], failed: Failures
    ) -> dict[str, dict[str, float]]:
        """Embed the library's tasks and the new ones; give the cosines of each one's neighbours, the nearest first.

        new: by the name of its job; one that can't be embedded is noted in `failed` and left out.
        """
        names, rows = list(known), torch.stack([self._embed(base, own) for own in known.values()])  # (N, F)
        found = {}
        for job, task in new.items():
            with failing_alone(job, failed):
                cosines = torch.nn.functional.cosine_similarity(rows, self._embed(base, [task]), dim=1)
                best = cosines.topk(min(self.top_k, len(cosines)))
                found[job] = dict(zip([names[i] for i in best.indices.tolist()], best.values.tolist(), strict=True))
        return found

    def _embed(self, base: BaseModel, tasks: Sequence[Task]) -> Tensor:
        found = [
            fisher(base, task.train[: self.n_examples], kind=LoRA(), targets=self.targets, seed=self.seed)
            for task in tasks
        ]
        return torch.stack(found).mean(0)


def known_hashes(known: Known) -> list[list[str]]:
    """Hash the data that embeds the experts."""
    return [[task.hash for task in own] for own in known.values()]
