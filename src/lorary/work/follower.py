"""Follow work that others do, by looking at what they leave on disk."""

from collections.abc import Mapping
from pathlib import Path

from lorary.work.jobs import JobStep, Listener, all_stand
from lorary.work.survey import Survey, survey


class Follower:
    """Tells the plan as soon as there is one, and steps as they are seen; those between are never seen."""

    def __init__(self, root: Path, listener: Listener) -> None:
        self._root, self._listener = root, listener
        self._made: Mapping[str, tuple[str, ...]] = {}  # by the jobs that were planned
        self._seen: dict[str, tuple[int, int]] = {}  # job: step, n_steps

    def look(self) -> None:
        """Look once, and tell what is new."""
        found = survey(self._root)
        if not self._seen and found.planned:
            self._begin(found)
        states = {job.name: job for job in found.jobs}
        for name, (last, n_steps) in self._seen.items():
            if name in states and states[name].state != "done":
                self._tell(name, states[name].step, states[name].loss)
            elif last != n_steps and all_stand(self._root, self._made[name]):  # the plan goes when all is done
                self._tell(name, n_steps, None)

    def _begin(self, found: Survey) -> None:
        done = [job.name for job in found.jobs if job.state == "done"]
        self._made = found.planned
        self._seen = {job.name: (job.n_steps if job.name in done else 0, job.n_steps) for job in found.jobs}
        self._listener.on_plan(found.jobs, done)

    def _tell(self, name: str, step: int, loss: float | None) -> None:
        last, n_steps = self._seen[name]
        if step != last:
            self._seen[name] = (step, n_steps)
            self._listener.on_step(JobStep(name, step, n_steps, loss))
