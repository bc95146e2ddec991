"""A study as work/ knows it: its libraries and measures first, then its scores, a job each; the base is loaded once."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lorary.adapters.contract import Mix
from lorary.adapters.mixing.tuning import nothing_measured
from lorary.errors import EvaluationError
from lorary.evaluation.benchmarking.contract import Exam
from lorary.grid.cells import Cell as GridCell
from lorary.grid.cells import facts_of, make_cell
from lorary.grid.grid_work import GridRunner, Written, loaded
from lorary.grid.setup import Setup
from lorary.library.library import Library
from lorary.model.base.base_model import BaseModel
from lorary.model.base.outline import bytes_of
from lorary.model.text.batching import tokens_at_once
from lorary.studies.contract import Cell, Study, Subject
from lorary.studies.sharing.cpu_time import TIMES, counted
from lorary.studies.sharing.making import Making, Place, Repeat
from lorary.work.backend import Order, Work
from lorary.work.claims import Claim
from lorary.work.jobs import Job, Listener, Report
from lorary.work.share import Needs, threads_for


@dataclass(frozen=True)
class StudyWork(Work):
    """A study on a subject, with each of its seeds: `studies` has it by the directory of each.

    into: the root. shared: where the libraries go that other studies have in common with it; None: with the others.
    base: a loaded one, for this process alone, or its name. loading: what `load_base` takes besides.
    """

    studies: Mapping[str, Study]
    subject: Subject
    into: Path
    base: BaseModel | str
    shared: Path | None = None
    loading: Mapping[str, Any] = field(default_factory=dict)

    @property
    def root(self) -> Path:
        """The directory of the study."""
        return self.into.absolute()

    @property
    def only_here(self) -> bool:
        """Whether the base or the study is only in this process."""
        return isinstance(self.base, BaseModel) or any(type(s).__module__ == "__main__" for s in self.studies.values())

    @property
    def device(self) -> str:
        """Where the base is to be."""
        return str(self.loading.get("device", "auto"))

    def require_root(self) -> None:
        """Raise E-RUN if the directory is gone."""
        if not self.root.is_dir():
            what = f"directory {str(self.root)!r} is gone: it was moved or deleted while a study ran in it."
            raise EvaluationError("E-RUN", what, "If it was moved, the same command with that --into resumes.")

    @property
    def places(self) -> dict[str, Place]:
        """Plan every repeat. Raises what the plan raises."""
        shared = (self.shared or self.into).absolute()
        return {
            name: Place(self.root / name, shared / name, study.plan(self.subject))
            for name, study in self.studies.items()
        }

    @property
    def roots(self) -> tuple[Path, ...]:
        """Its own directory, those of its repeats and of all libraries."""
        builds = [place.of(one) for place in self.places.values() for one in place.plan.builds]
        return tuple(dict.fromkeys([self.root, *(place.into for place in self.places.values()), *builds]))

    @property
    def needs(self) -> Needs:
        """Count libraries, measures and scores, and those that don't stand."""
        paths = [path for place in self.places.values() for path in place.paths]
        return Needs(len(paths), sum(not path.exists() for path in paths), bytes_of(self.base))

    def load(self, listener: Listener) -> "StudyRunner":
        """Load the base, and make what the scores need."""
        return self.enter(Order(self, listener=listener))

    def enter(self, order: Order) -> "StudyRunner":
        """Load the base; build and measure with the other workers; then the scores are left to be made."""
        places = self.places
        self.root.mkdir(parents=True, exist_ok=True)
        base = loaded(self.base, self.loading, order.listener)
        with steady(base):
            repeats = Making(base, order, self._threads(order, places), self.root / TIMES).make_all(
                places, self.subject.source
            )
            cells = [cell for name, repeat in repeats.items() for cell in _grid_cells(name, repeat)]
        return StudyRunner(self.root, {cell.name: cell for cell in cells}, base, order.listener, self.loading)

    def _threads(self, order: Order, places: Mapping[str, Place]) -> int | None:
        """Share the cores out among all that is made, whoever makes it; torch keeps what it has with a loaded base."""
        if isinstance(self.base, BaseModel):
            return None
        n_parts = sum(len(p.plan.builds) + len(p.plan.measures) + len(p.plan.cells) for p in places.values())
        return order.threads or threads_for(n_parts)


class StudyRunner(GridRunner):
    """Scores the cells of a study; nothing that was timed or is free just now decides how."""

    def run(self, jobs: Sequence[Job], mine: Claim, report: Report) -> Written:
        """Score a cell, and note what it took."""
        (job,) = jobs
        cell = self.cells[job.name]
        self._listener.tell(f"scoring {cell.setup.label} ({job.name})")
        with counted(self.root / TIMES, cell.file):
            return super().run(jobs, mine, report)

    def open(self, cell: GridCell) -> Any:
        """Open the model of a cell, whose batches follow from its size."""
        model = super().open(cell)
        if isinstance(model, BaseModel):
            model.batch_tokens = model.batch_tokens or tokens_at_once(model, steady=True)
        return model

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Close the last model at the end."""
        with steady(self.base), super().at_work():
            yield


@contextmanager
def steady(base: BaseModel) -> Iterator[None]:
    """Let nothing that is measured or free just now decide how anything is computed."""
    before = base.batch_tokens
    base.batch_tokens = before or tokens_at_once(base, steady=True)
    try:
        with nothing_measured():
            yield
    finally:
        base.batch_tokens = before


def _grid_cells(name: str, repeat: Repeat) -> Iterator[GridCell]:
    """Make a repeat's cells such as a grid evaluates; neighbours of one model share it."""
    below = f"{name}/" if name else ""
    known: dict[tuple[Setup, int], dict[str, Any]] = {}
    for cell in repeat.place.plan.cells:
        setup = _setup(cell, repeat)
        exam = Exam(cell.group, cell.evaluator, cell.tasks)
        model = setup, id(cell.fit)
        if model not in known:
            known[model] = facts_of(setup, cell.fit)
        yield make_cell(setup, exam, below + cell.path, known[model], limit=cell.limit, fit=cell.fit)


def _setup(cell: Cell, repeat: Repeat) -> Setup:
    if cell.library is None:
        return Setup(label=cell.name)
    if cell.library in repeat.tuned:
        return Setup(label=cell.name, base=str(repeat.tuned[cell.library]))
    library = repeat.bench.libraries[cell.library]
    return Setup(library, cell.router, cell.name, cell.mix or _usual_mix(library))


def _usual_mix(library: Library) -> Mix:
    """Mix factors, as the paper does, where all experts have one rank."""
    return "factors" if len({expert.rank for expert in library.values()}) == 1 else "outputs"
