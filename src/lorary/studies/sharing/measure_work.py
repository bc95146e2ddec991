"""A measure of a study as work/ knows it: one job, taken by one worker, whose file is its result."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lorary.errors import BuildError, EvaluationError
from lorary.grid.grid_work import Written
from lorary.hashing import short_key
from lorary.studies.contract import Bench, Measure
from lorary.studies.kept import kept
from lorary.work.backend import Work
from lorary.work.claims import Claim
from lorary.work.jobs import Job, Listener, Report, Runner


@dataclass(frozen=True)
class MeasureWork(Work):
    """One measure, into a directory, of what stands on the bench."""

    measure: Measure
    bench: Bench
    into: Path

    @property
    def root(self) -> Path:
        """The directory of the run."""
        return self.into.absolute()

    def require_root(self) -> None:
        """Raise E-RUN if the directory is gone."""
        if not self.root.is_dir():
            raise EvaluationError("E-RUN", f"directory {str(self.root)!r} is gone: it was moved or deleted meanwhile.")

    def load(self, listener: Listener) -> "_MeasureRunner":
        """Make the directory. Everything that is needed is loaded."""
        self.root.mkdir(parents=True, exist_ok=True)
        return _MeasureRunner(self, listener)


class _MeasureRunner(Runner):
    def __init__(self, work: MeasureWork, listener: Listener) -> None:
        self.work, self._listener = work, listener
        path = work.measure.path
        self.jobs = [Job(path, short_key(path), (path,), 0)]

    def run(self, jobs: Sequence[Job], mine: Claim, report: Report) -> Written:
        self._listener.tell(f"measuring {Path(self.work.measure.path).stem}")
        kept(self.work.measure, self.work.bench, self.work.root)
        return Written()

    def commit(self, job: Job, product: Written) -> None:
        """Nothing: the file arrived by one rename."""

    def check_made(self) -> None:
        path = self.work.root / self.work.measure.path
        if not path.exists():
            hint = "The same command measures again."
            raise BuildError("E-JOBS", f"{str(path)!r} is missing though it was written.", hint)
