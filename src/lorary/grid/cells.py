"""The cells of a grid: one model by one exam each, and the file of its scores. Refused early what can't be right."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorary.disk.writing import check_writable
from lorary.errors import EvaluationError, OptionError
from lorary.evaluation.benchmarking.contract import Exam
from lorary.evaluation.run import check_into, check_tasks, foresee
from lorary.grid.setup import Setup, file_part
from lorary.hashing import short_key
from lorary.options import require_each
from lorary.tasks.task import Tasks


@dataclass(frozen=True)
class Cell:
    """One model by one exam. header: what is known of its run's header before its base is loaded.

    library_hash: of all experts; max_share may leave out some, and then the header has another.
    """

    setup: Setup
    exam: Exam
    header: Mapping[str, Any]
    library_hash: str = ""

    @property
    def name(self) -> str:
        """What progress and messages call it: model and exam."""
        return f"{file_part(self.setup.label)}.{file_part(self.exam.name)}"

    @property
    def file(self) -> str:
        """Where its scores go, in the grid's directory."""
        return f"{self.name}.jsonl"

    def on(self, base: Mapping[str, Any]) -> dict[str, Any]:
        """Tell what is known of the header once a base is loaded, by its identity."""
        return {**self.header, "model": {**base, **self.header["model"]}}

    def key(self, base: Mapping[str, Any]) -> str:
        """Hash all that decides the scores."""
        return short_key(self.on(base), self.setup.max_share, self.library_hash)


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
    for exam in exams:
        check_tasks(exam.evaluator, exam.tasks)
    cells: dict[str, Cell] = {}
    for setup in setups:
        facts = setup.chosen(train_tasks).identity
        whole = str(facts.get("library", ""))
        if setup.max_share is not None:
            facts.pop("library", None)
        for exam in exams:
            header = foresee(exam.evaluator, exam.tasks, name=setup.label, limit=limit, model=facts)
            cell = Cell(setup, exam, header, whole)
            check_into(into / cell.file, header)
            cells[cell.name] = cell
    _check_names([Cell(setup, exam, {}) for setup in setups for exam in exams])
    return cells


def _check_directory(into: Path) -> None:
    if into.exists() and not into.is_dir():
        what = f"{str(into)!r} is a file, expected a directory for one file of scores per router and metric."
        raise EvaluationError("E-RUN", what, "Give a directory.")
    check_writable(into)


def _check_names(cells: Sequence[Cell]) -> None:
    """Refuse two cells of one file. Raises E-NAME."""
    seen: dict[str, Cell] = {}
    for cell in cells:
        twin = seen.setdefault(cell.file.lower(), cell)
        if twin is not cell:
            one, other = (f"{found.setup.label!r} by {found.exam.name!r}" for found in (twin, cell))
            how = f"{one} is given twice" if one == other else f"{one} and {other} would be one file, {cell.file}"
            raise OptionError("E-NAME", f"{how}.", "Give each once; in Python, setups that differ other labels.")
