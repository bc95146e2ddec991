"""Follow a build that others do, by looking at what they leave on disk."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from lorary.building.contract import JobStep, Report
from lorary.building.work.survey import JobState, survey
from lorary.errors import LibraryError


class Planned(Protocol):
    """A job as those see it that only follow a build."""

    @property
    def name(self) -> str:
        """What it is called."""

    @property
    def n_steps(self) -> int:
        """Its steps."""


OnPlan = Callable[[Sequence[Planned], Sequence[str]], None]


class Follower:
    """Tells the plan as soon as there is one, and steps as they are seen; of those between it hears nothing."""

    def __init__(self, library: Path, report: Report | None, on_plan: OnPlan | None) -> None:
        self._library, self._report, self._on_plan = library, report, on_plan
        self._seen: dict[str, tuple[int, int]] = {}  # job: step, n_steps

    def look(self) -> None:
        """Look once, and tell what is new."""
        try:
            found = survey(self._library)
        except LibraryError:  # nobody made it yet
            return
        if not self._seen and found.planned:
            self._begin([job for job in found.jobs if job.name in found.planned])
        for job in found.jobs:
            if job.name in self._seen:
                n_steps = self._seen[job.name][1]
                self._tell(job.name, n_steps if job.state == "done" else job.step, job.loss)

    def _begin(self, jobs: Sequence[JobState]) -> None:
        done = [job.name for job in jobs if job.state == "done"]
        self._seen = {job.name: (job.n_steps if job.name in done else 0, job.n_steps) for job in jobs}
        if self._on_plan:
            self._on_plan(jobs, done)

    def _tell(self, name: str, step: int, loss: float | None) -> None:
        last, n_steps = self._seen[name]
        if step != last:
            self._seen[name] = (step, n_steps)
            if self._report:
                self._report(JobStep(name, step, n_steps, loss))
