"""Rows of the studies of libraries and routers: what each is called and how it is scored."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lorary.adapters.contract import Mix
from lorary.errors import OptionError, TaskError, known_names
from lorary.evaluation.evaluators.perplexity import Perplexity
from lorary.evaluation.evaluators.rouge_l import RougeL
from lorary.routing.contract import find_router
from lorary.studies.contract import TRAINED, UNSEEN, Cell, Subject, file_name
from lorary.tasks.task import Tasks

ANSWERS = "answers on "
"""Before the name of a group of tasks: its answers, scored by Rouge-L; the bare name: the loss of the right ones."""
ROUTERS: Mapping[str, str] = {
    "uniform": "uniform",
    "arrow": "arrow",
    "compass": "compass",
    "tp": "task_predictor:n_examples={n}",
    "cm": "centroid:n_examples={n}",
    "phatgoose": "phatgoose",
    "poly": "poly",
    "mhr": "mhr",
    "oracle": "oracle",
}
"""The paper's names for its routers, and others', beside our specs of them."""
OF_LIBRARY: Mapping[str, tuple[str, ...]] = {
    "private": ("uniform", "arrow", "compass", "tp", "cm", "oracle"),
    "mbc": ("uniform", "arrow", "compass", "tp", "cm", "oracle"),
    "gated": ("phatgoose",),
    "full": ("",),
    "shared": ("uniform",),
    "poly": ("uniform", "poly"),
    "mhr": ("uniform", "mhr"),
}
"""The libraries of the comparison, and the routers of each; of one expert any routing is the same."""


@dataclass(frozen=True)
class Row:
    """A library with a router, by the name that tables have. knows_task: as the oracle does."""

    name: str
    library: str | None = None
    router: str = "uniform"
    mix: Mix | None = None
    knows_task: bool = False

    def on(self, cell: Cell, fit: Tasks | None) -> Cell:
        """Make a cell of the base one of this row."""
        path = cell.path.replace("{row}", file_name(self.name))
        library = None if self.library is None else f"libs/{self.library}"
        return replace(
            cell, path=path, name=self.name, library=library, router=self.router, mix=self.mix, fit=fit or None
        )


def rows_of(libraries: Sequence[str], n_fit: int) -> list[Row]:
    """List the base and all libraries with their routers."""
    return [Row("base"), *(row for name in libraries for row in _of(name, n_fit))]


def _of(library: str, n_fit: int) -> Iterator[Row]:
    for router in OF_LIBRARY[library]:
        if not router:
            yield Row(library, library)
            continue
        name = library if library == "shared" else f"{library}-{router}"
        spec = ROUTERS[router].format(n=n_fit)
        mix: Mix | None = "outputs" if router == "phatgoose" else None  # as its authors do
        yield Row(name, library, spec, mix, "task" in find_router(spec).needs)


def measures(tasks: Tasks, group: str, limit: int, n_answer: int, max_new_tokens: int) -> Iterator[Cell]:
    """List what is scored on tasks: the loss, and the answers; cells of the base, to be those of each row."""
    file = group.partition(" ")[0]
    yield Cell(f"runs/{{row}}.{file}.loss.jsonl", "", group, Perplexity(), tasks, limit)
    answers = RougeL(max_new_tokens=max_new_tokens)
    yield Cell(f"runs/{{row}}.{file}.answers.jsonl", "", ANSWERS + group, answers, tasks, n_answer)


def benchmark_cells(subject: Subject, limit: int) -> Iterator[Cell]:
    """List the benchmarks that the subject brings, a group each."""
    for name, (evaluator, tasks) in subject.benchmarks.items():
        yield Cell(f"runs/{{row}}.{file_name(name)}.jsonl", "", name, evaluator, tasks, limit)


def trained_cells(subject: Subject, **how: Any) -> Iterator[Cell]:
    """List what is scored on new examples of the tasks that were trained on."""
    return measures(subject.tasks, TRAINED, **how)


def unseen_cells(subject: Subject, **how: Any) -> Iterator[Cell]:
    """List what is scored on tasks that were never trained on."""
    return measures(subject.heldout, UNSEEN, **how)


def all_cells(rows: Iterable[Row], cells: Sequence[Cell], fit: Tasks, *, told_task: bool) -> list[Cell]:
    """Score every row by every measure. told_task: whether the task of an example is one that the library knows."""
    return [row.on(cell, fit) for row in rows if told_task or not row.knows_task for cell in cells]


def require_subject(study: str, subject: Subject, *, least: int = 2, heldout: bool = False) -> None:
    """Refuse a subject that a comparison of libraries says nothing of. Raises E-TASK."""
    if len(subject.tasks) < least:
        found = f"{len(subject.tasks)} tasks to build from"
        raise TaskError("E-TASK", f"study {study}: {found}, expected at least {least}.", "Give more tasks.")
    if heldout and not subject.heldout:
        raise TaskError("E-TASK", f"study {study}: no task is held out.", "Name some: --heldout NAME.")


def require_known(study: str, option: str, names: Sequence[str], known: Iterable[str]) -> None:
    """Refuse names that an option doesn't know. Raises E-OPTION."""
    for name in names:
        if name not in {*known}:
            raise OptionError("E-OPTION", f"study {study}: {option}={name!r}.", known_names(name, sorted(known)))
