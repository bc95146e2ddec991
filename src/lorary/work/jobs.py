"""What work/ knows of work: jobs with a name, a key and what they make; a way to run them and a way to commit it."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from lorary.errors import LoraryError
from lorary.hashing import short_key
from lorary.progress import Tell, unheard
from lorary.work.claims import Claim


@dataclass(frozen=True)
class Job:
    """One unit of work. key: hash of all that decides the result; n_steps: 0 for work that has none.

    made: what it makes, as paths relative to the root of the work; it is done when all of them stand.
    """

    name: str
    key: str
    made: tuple[str, ...]
    n_steps: int

    def stands(self, root: Path) -> bool:
        """Tell whether all that it makes is there."""
        return all_stand(root, self.made)


@dataclass(frozen=True)
class Pack:
    """Jobs that run together. names: of its jobs; made: what each makes, in the same order; n_steps: of each job."""

    key: str
    names: tuple[str, ...]
    made: tuple[tuple[str, ...], ...]
    n_steps: int

    def missing(self, root: Path) -> list[str]:
        """Name the jobs whose results don't all stand."""
        return [name for name, made in zip(self.names, self.made, strict=True) if not all_stand(root, made)]


def all_stand(root: Path, made: Sequence[str]) -> bool:
    """Tell whether everything that a job makes is there."""
    return all((root / path).exists() for path in made)


def pack_jobs(jobs: Sequence[Job]) -> Pack:
    """Make a pack of jobs; its key names it by theirs."""
    key = short_key(sorted((job.name, job.key) for job in jobs))
    names, made = tuple(job.name for job in jobs), tuple(job.made for job in jobs)
    return Pack(key, names, made, max(job.n_steps for job in jobs))


# ---- who follows it -----------------------------------------------------------------------------


@dataclass(frozen=True)
class JobStep:
    """Where a job is: for progress bars. `valid_loss` is set when it was just measured, nats per token."""

    job: str
    step: int
    n_steps: int
    loss: float | None = None
    valid_loss: float | None = None


Report = Callable[[JobStep], None]


class Planned(Protocol):
    """A job as those see it that only follow the work."""

    @property
    def name(self) -> str:
        """What it is called."""

    @property
    def n_steps(self) -> int:
        """Its steps."""


OnPlan = Callable[[Sequence[Planned], Sequence[str]], None]
"""Is called with all jobs and the names of those that are done already."""


@dataclass(frozen=True)
class Listener:
    """Who follows the work, in the process that ordered it. `tell` hears of what is slow to begin."""

    on_plan: OnPlan = unheard
    on_step: Report = unheard
    tell: Tell = unheard

    @classmethod
    def of(cls, on_plan: OnPlan | None, on_step: Report | None, tell: Tell | None = None) -> "Listener":
        """Make one of functions that may be None."""
        return cls(on_plan or unheard, on_step or unheard, tell or unheard)


NOBODY = Listener()


# ---- who does it --------------------------------------------------------------------------------


Failures = dict[str, LoraryError]
"""Job name -> why it alone of its pack failed."""

_OF_ALL = ("E-DISK", "E-PERM", "E-LEASE", "E-LIBRARY")


@contextmanager
def failing_alone(job: str, failed: Failures) -> Iterator[None]:
    """Note in `failed` what goes wrong in the block with one job of a pack; what would befall all of them passes."""
    try:
        yield
    except LoraryError as error:
        if error.code in _OF_ALL:
            raise
        failed[job] = error


class Product(Protocol):
    """What a pack's run made, not committed yet."""

    @property
    def failed(self) -> Mapping[str, LoraryError]:
        """Job name -> why it alone of its pack failed."""


class Runner(ABC):
    """What one process needs to run jobs, loaded. Its jobs are sure to be whole and of this work where they stand."""

    jobs: Sequence[Job]

    def group(self) -> Sequence[Sequence[Job]]:
        """Group the jobs that run together: by default each runs alone. Only the first worker is asked."""
        return [[job] for job in self.jobs]

    @abstractmethod
    def run(self, jobs: Sequence[Job], mine: Claim, report: Report) -> Product:
        """Run a pack, all of it even if some results stand. Resumes from what is in `mine.directory`."""

    @abstractmethod
    def commit(self, job: Job, product: Any) -> None:
        """Put what a job made where it belongs, whole or not at all; what another worker was first with is as good."""

    @abstractmethod
    def check_made(self) -> None:
        """Raise if something is missing, or is another work's, though all jobs were run."""

    def choose(self, packs: Sequence[Pack], taken: Sequence[Pack]) -> Pack:
        """Choose which of the packs to try next, while others work on those that are taken: by default the first."""
        return packs[0]

    def at_work(self) -> AbstractContextManager[Any]:
        """Give a block around many packs: what is opened for them is closed at its end, what can wait is done then."""
        return nullcontext()

    def tidy(self) -> None:
        """Clean up once all packs are settled, before the block around them ends."""
