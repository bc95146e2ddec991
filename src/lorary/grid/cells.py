"""The cells of a grid: one model by one exam each, and the file of its scores. Refused early what can't be right."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorary.disk.writing import check_writable
from lorary.errors import EvaluationError, OptionError
from lorary.evaluation.benchmarking.contract import Exam
from lorary.evaluation.evaluate import check_into, check_tasks, foresee
from lorary.grid.setup import Setup, file_part
from lorary.hashing import short_key
from lorary.options import require_each
from lorary.tasks.task import Tasks


@dataclass(frozen=True)
class Cell:
    """One model by one exam. file: where its scores go, below the root of the work.

    fit: tasks for routers that need examples. limit: at most so many examples per task. header: what is known of its
    run's header before its base is loaded. library_hash: of all experts; max_share may leave out some, and then the
    header has another.
    """

    setup: Setup
    exam: Exam
    file: str
    header: Mapping[str, Any]
    library_hash: str = ""
    limit: int | None = None
    fit: Tasks | None = None

    @property
    def name(self) -> str:
        """What progress and messages call it: its file, without what all files end in."""
        return self.file.removesuffix(".jsonl")

    @property
    def n_examples(self) -> int:
        """How many examples it scores."""
        return sum(len(task.first(test=self.limit).test) for task in self.exam.tasks.values())

    def on(self, base: Mapping[str, object]) -> dict[str, object]:
        """Tell what is known of the header once a base is loaded, by its identity."""
        known = {} if self.setup.base else base
        return {**self.header, "model": {**known, **self.header["model"]}}

    def key(self, base: Mapping[str, object]) -> str:
        """Hash all that decides the scores."""
        return short_key(self.on(base), self.setup.max_share, self.library_hash, *filter(None, [self.setup.base]))


def facts_of(setup: Setup, fit: Tasks | None) -> dict[str, object]:
    """Tell what is known of a model before a base is loaded; of a library, its hash. Raises what no base would mend."""
    return setup.chosen(fit).identity


def make_cell(
    setup: Setup, exam: Exam, file: str, facts: Mapping[str, object], *, limit: int | None, fit: Tasks | None
) -> Cell:
    """Make a cell. facts: of its model, as `facts_of`."""
    facts = dict(facts)
    whole = str(facts.get("library", ""))
    if setup.max_share is not None:
        facts.pop("library", None)
    header = foresee(exam.evaluator, exam.tasks, name=setup.label, limit=limit, model=facts)
    return Cell(setup, exam, file, header, whole, limit, fit)


def make_cells(
    setups: Sequence[Setup],
    exams: Sequence[Exam],
    *,
    into: Path,
    limit: int | None,
    train_tasks: Tasks | None,
) -> dict[str, Cell]:
    """List the cells by name, setup by setup. Raises whatever can be known to be wrong before a base is loaded."""
    require_each("setups", setups, Setup, "setups, as Setup(library, router)")
    if not setups or not exams:
        raise OptionError("E-OPTION", f"{len(setups)} setups and {len(exams)} metrics: expected 1 or more of each.")
    _check_directory(into)
    _check_names([(setup, exam) for setup in setups for exam in exams])
    for exam in exams:
        check_tasks(exam.evaluator, exam.tasks)
    cells: dict[str, Cell] = {}
    for setup in setups:
        facts = facts_of(setup, train_tasks)
        for exam in exams:
            cell = make_cell(setup, exam, _file_of(setup, exam), facts, limit=limit, fit=train_tasks)
            check_into(into / cell.file, cell.header)
            cells[cell.name] = cell
    return cells


def _file_of(setup: Setup, exam: Exam) -> str:
    return f"{file_part(setup.label)}.{file_part(exam.name)}.jsonl"


def _check_directory(into: Path) -> None:
    if into.exists() and not into.is_dir():
        what = f"{str(into)!r} is a file, expected a directory for one file of scores per router and metric."
        raise EvaluationError("E-RUN", what, "Give a directory.")
    check_writable(into)


def _check_names(pairs: Sequence[tuple[Setup, Exam]]) -> None:
    """Refuse two cells of one file. Raises E-NAME."""
    seen: dict[str, tuple[Setup, Exam]] = {}
    for pair in pairs:
        file = _file_of(*pair)
        twin = seen.setdefault(file.lower(), pair)
        if twin is not pair:
            one, other = (f"{setup.label!r} by {exam.name!r}" for setup, exam in (twin, pair))
            how = f"{one} is given twice" if one == other else f"{one} and {other} would be one file, {file}"
            raise OptionError("E-NAME", f"{how}.", "Give each once; in Python, setups that differ other labels.")
