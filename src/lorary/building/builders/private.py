"""One expert per task."""

from dataclasses import dataclass

from lorary.building.contract import Job
from lorary.building.training.job import expert_name
from lorary.building.training.packs import TrainedBuilder
from lorary.library.library import Library
from lorary.tasks.task import Tasks


@dataclass(frozen=True, kw_only=True)
class Private(TrainedBuilder):
    """Train one LoRA per task, each on its own data alone.

    All start from the same initial A, so that their factors can be compared and averaged.
    Source: Ostapenko et al. 2024 (2405.11157) section 3.
    """

    def plan(self, tasks: Tasks, source: Library | None = None) -> list[Job]:
        """Plan one job per task, named after it."""
        return [self.job(expert_name(name), [tasks[name]]) for name in tasks]
