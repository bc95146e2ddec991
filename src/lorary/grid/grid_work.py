"""A grid as work/ knows it: each cell is a job, and its file of scores what it makes."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lorary.errors import BuildError, EvaluationError, LoraryError
from lorary.evaluation.benchmarking.contract import Exam
from lorary.evaluation.contract import LanguageModel
from lorary.evaluation.evaluate import check_into, evaluate
from lorary.grid.cells import Cell, make_cells
from lorary.grid.setup import Setup
from lorary.model.base.base_model import BaseModel, load_base
from lorary.model.base.outline import bytes_of
from lorary.model.routed.routed_model import RoutedModel
from lorary.tasks.task import Tasks
from lorary.work.backend import Work
from lorary.work.claims import Claim
from lorary.work.jobs import Job, JobStep, Listener, Pack, Report, Runner
from lorary.work.share import Needs


@dataclass(frozen=True)
class Written:
    """A job's one file stands: what makes it puts it into place itself."""

    failed: Mapping[str, LoraryError] = field(default_factory=dict)


@dataclass(frozen=True)
class GridWork(Work):
    """The cells of setups and exams.

    base: a name or an absolute directory, a loaded one, or None: that of a saved model. loading: what `load_base`
    takes besides.
    """

    setups: tuple[Setup, ...]
    exams: tuple[Exam, ...]
    into: Path
    base: BaseModel | str | None
    loading: Mapping[str, Any] = field(default_factory=dict)
    train_tasks: Tasks | None = None
    limit: int | None = None

    @property
    def root(self) -> Path:
        """The directory of the files of scores."""
        return self.into

    @property
    def only_here(self) -> bool:
        """Whether a base, a router or a metric is only in this process."""
        methods = [*(exam.evaluator for exam in self.exams), *(setup.router for setup in self.setups)]
        return isinstance(self.base, BaseModel) or any(type(method).__module__ == "__main__" for method in methods)

    @property
    def device(self) -> str:
        """Where the base is to be."""
        return str(self.loading.get("device", "auto"))

    def require_root(self) -> None:
        """Raise E-RUN if the directory is gone."""
        if not self.into.is_dir():
            what = f"directory {str(self.into)!r} is gone: it was moved or deleted while scores were written to it."
            raise EvaluationError("E-RUN", what, "If it was moved, the same command with that --into resumes.")

    def cells(self) -> dict[str, Cell]:
        """List the cells by name. Raises as `make_cells`."""
        return make_cells(self.setups, self.exams, into=self.into, limit=self.limit, train_tasks=self.train_tasks)

    def load(self, listener: Listener) -> "GridRunner":
        """Load the base. Raises E-RUN for files of other runs, as far as possible before."""
        cells = self.cells()
        self.into.mkdir(parents=True, exist_ok=True)
        return GridRunner(self.into, cells, self._load_base(listener), listener)

    def _load_base(self, listener: Listener) -> BaseModel:
        if self.base is not None:
            return loaded(self.base, self.loading, listener)
        saved = next((setup for setup in self.setups if setup.is_saved), None)
        if saved is None:
            raise EvaluationError("E-EVAL", "no base was given, and no saved model to find one by.", "Give base=...")
        with saved.chosen(None).open(tell=listener.tell, **self.loading) as model:
            assert isinstance(model, RoutedModel)
            return model.base

    @property
    def needs(self) -> Needs:
        """Count the cells and those without a file. What a base takes that isn't on this machine yet is unknown: 0."""
        cells = self.cells()
        missing = [cell for cell in cells.values() if not (self.into / cell.file).exists()]
        return Needs(len(cells), len(missing), 0 if self.base is None else bytes_of(self.base))


def loaded(base: BaseModel | str, loading: Mapping[str, Any], listener: Listener) -> BaseModel:
    """Load a base by its name, saying so, with what `loading` holds for `load_base`; or take a loaded one."""
    if isinstance(base, BaseModel):
        return base
    listener.tell(f"loading base {base} ...")
    return load_base(base, **loading)


class GridRunner(Runner):
    """Evaluates cells, one after the other; a model stays open while the next cell is of the same."""

    def __init__(
        self,
        root: Path,
        cells: Mapping[str, Cell],
        base: BaseModel,
        listener: Listener,
        loading: Mapping[str, Any] | None = None,
    ) -> None:
        self.root, self.cells, self.base, self._listener, self._loading = root, cells, base, listener, loading or {}
        self._open: tuple[Setup, Tasks | None, LanguageModel] | None = None
        self._closing = ExitStack()
        for cell in cells.values():
            check_into(root / cell.file, cell.on(base.identity))
        self.jobs = [Job(name, cell.key(base.identity), (cell.file,), cell.n_examples) for name, cell in cells.items()]

    def choose(self, packs: Sequence[Pack], taken: Sequence[Pack]) -> Pack:
        """Prefer a cell of the model that is open, then one of a model on which nobody works."""
        busy = [self._setup_of(pack) for pack in taken]
        opened = self._open[0] if self._open else None

        def distance(pack: Pack) -> tuple[bool, bool]:
            setup = self._setup_of(pack)
            return setup != opened, setup in busy

        return min(packs, key=distance)

    def _setup_of(self, pack: Pack) -> Setup:
        return self.cells[pack.names[0]].setup

    def run(self, jobs: Sequence[Job], mine: Claim, report: Report) -> Written:
        """Evaluate a cell; what another worker has written of it is kept."""
        (job,) = jobs
        cell, model = self.cells[job.name], self._model(self.cells[job.name])

        def tell(done: int, total: int) -> None:
            report(JobStep(job.name, done, total))

        evaluate(
            cell.exam.evaluator, model, cell.exam.tasks, into=self.root / cell.file, name=cell.setup.label,
            limit=cell.limit, progress=tell, confirm=mine.confirm,
        )  # fmt: skip
        return Written()

    def commit(self, job: Job, product: Written) -> None:
        """Nothing: the file arrived by one rename."""

    def _model(self, cell: Cell) -> LanguageModel:
        setup = cell.setup
        if self._open is None or self._open[0] != setup or self._open[1] is not cell.fit:
            self._close()
            if setup.library is not None:
                self._listener.tell(f"routing {setup.label} ...")
            model = self.open(cell)
            self._closing.push(model)
            self._open = (setup, cell.fit, model)
        return self._open[2]

    def open(self, cell: Cell) -> BaseModel | RoutedModel:
        """Open the model of a cell, on the base that all share unless it has its own."""
        choice = cell.setup.chosen(cell.fit)
        return choice.open(**self._loading) if cell.setup.base else choice.open(base=self.base)

    def _close(self) -> None:
        self._open = None
        self._closing.close()

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Close the last model at the end."""
        try:
            yield
        finally:
            self._close()

    def check_made(self) -> None:
        """Raise E-JOBS if files are missing though all cells were evaluated."""
        missing = [cell.file for cell in self.cells.values() if not (self.root / cell.file).exists()]
        if missing:
            more = f", and {len(missing) - 1} more" if len(missing) > 1 else ""
            what = f"directory {str(self.root)!r}: {missing[0]!r} is missing though it was written"
            hint = "The same command evaluates what is missing."
            raise BuildError("E-JOBS", f"{what}{more}: somebody removed it.", hint)
