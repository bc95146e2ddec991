"""One expert for all tasks."""

from dataclasses import dataclass

from lorary.building.contract import Job
from lorary.building.training.packs import TrainedBuilder
from lorary.library.library import Library
from lorary.tasks.task import Tasks


@dataclass(frozen=True, kw_only=True)
class Shared(TrainedBuilder):
    """Train one LoRA on the union of all tasks (multi-task training).

    Source: Ostapenko et al. 2024 (2405.11157) section 3.
    """

    def plan(self, tasks: Tasks, source: Library | None = None) -> list[Job]:
        """Plan the one job."""
        return [self.job("shared", [tasks[name] for name in tasks])]
