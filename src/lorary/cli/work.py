"""Long work as the user follows it: how far it is, and what is left of it when it fails."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from lorary.cli.application import PartlyDone
from lorary.cli.printing.console import Bar, in_words, say
from lorary.errors import LoraryError

if TYPE_CHECKING:
    from lorary.tracking.contract import Tracker
    from lorary.tracking.follow import Following
    from lorary.work.jobs import JobStep, Planned
    from lorary.work.survey import Survey


class Work:
    """Listens to work into the directory `into`; tells its steps, those of what stood before left out.

    things, verb: what the jobs make and how that is called, for messages; survey: how to look at the directory; by
    default those of a library. log: the trackers that trainings are shown in as they end.
    """

    def __init__(
        self, bar: Bar, into: Path, *, things: str = "experts", verb: str = "build",
        survey: "Callable[[Path], Survey] | None" = None, log: "Sequence[Tracker]" = (),
    ) -> None:  # fmt: skip
        self._following = following(into, log)
        self._bar, self._into, self._things, self._survey = bar, into, things, survey
        self._verb = verb
        self._planned: list[str] = []
        self._left: dict[str, int] = {}
        self._before = 0
        self._steps: dict[str, int] = {}
        self._running: dict[str, str] = {}

    def on_plan(self, jobs: "Sequence[Planned]", done: Sequence[str]) -> None:
        """Hear the plan: all jobs, and the names of those that are done."""
        self._planned = [job.name for job in jobs]
        self._left = {job.name: job.n_steps for job in jobs if job.name not in done}
        say(f"{len(jobs)} {self._things} to {self._verb}, {len(done)} are there already.")

    def on_step(self, step: "JobStep") -> None:
        """Hear one step of one job; tell of all that run."""
        self._following.look(now=False)
        if step.job not in self._left:
            return
        if step.job not in self._steps:  # its earlier steps were another run's
            self._before += max(0, step.step - 1)
        self._steps[step.job] = step.step
        loss = step.loss if step.valid_loss is None else step.valid_loss
        self._running[step.job] = f"{step.job} {step.step}/{step.n_steps}{'' if loss is None else f' loss {loss:.3f}'}"
        note = in_words(list(self._running.values()))
        if step.step == step.n_steps:
            del self._running[step.job]
        self._bar(sum(self._steps.values()), sum(self._left.values()), note, self._before)

    @contextmanager
    def watched(self) -> Iterator["Work"]:
        """Turn an error into PartlyDone if some of what was planned stands; show all trainings that came to an end."""
        try:
            try:
                yield self
            finally:
                self._following.look()
        except LoraryError as error:
            kept = self._kept()
            if not kept:
                raise
            missing = [name for name in self._planned if name not in kept]
            if not missing:  # then it is no job that failed
                raise
            raise PartlyDone(
                f"{len(kept)} of {len(self._planned)} {self._things} are done and kept; missing: {', '.join(missing)}. "
                "The same command tries these again."
            ) from error

    def _kept(self) -> set[str]:
        from lorary.building.survey_library import survey_library

        survey = self._survey or survey_library
        if not self._planned:  # nothing was begun; there may be no directory
            return set()
        with suppress(LoraryError):  # it is gone, which the error says that is told
            return {job.name for job in survey(self._into).jobs if job.state == "done"} & set(self._planned)
        return set()


def trackers(specs: Sequence[str] | None) -> "Sequence[Tracker]":
    """Make the trackers that --log names, before anything slow."""
    if not specs:
        return ()
    from lorary.tracking.follow import find_trackers

    return find_trackers(specs)


def following(into: Path, log: "Sequence[Tracker]") -> "Following":
    """Follow the trainings in a directory."""
    from lorary.tracking.follow import Following

    return Following(into, log, say)
