"""How much of what knowing the task would give each router closes, on a library and tasks."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from lorary.adapters.contract import Mix
from lorary.building.limits import check_positive
from lorary.errors import BuildError
from lorary.evaluation.scores import Scores
from lorary.folder import EVALUATORS
from lorary.reporting.table import Cell as TableCell
from lorary.reporting.table import Column, Table
from lorary.routing.contract import find_router
from lorary.studies.contract import (
    GIVEN,
    TRAINED,
    UNSEEN,
    Cell,
    Plan,
    Results,
    Study,
    Subject,
    Verdict,
    file_name,
    judge,
)
from lorary.studies.gap import closed
from lorary.tasks.task import Tasks

_FLOOR, _CEILING = "uniform", "oracle"


@dataclass(frozen=True)
class RoutingStudy(Study):
    """Compare routers on a library: how much of the gap between uniform and the oracle each of them closes.

    Trained: new examples of the tasks that the library's experts were trained on. Unseen: the other tasks, for which no
    expert is the right one, so that routers that must be told the task have no answer. The base alone stands beside.
    Source: 2405.11157 compares routers so, without the gap.
    """

    routers: tuple[str, ...] = ("arrow", "compass")
    """Routers to compare, with their options; uniform and oracle are always among them."""
    champion: str = "compass"
    """The router of which the study claims that it closes more of the gap than its rival."""
    rival: str = "arrow"
    """The router to beat."""
    metric: str = "perplexity"
    """How to score, with its options."""
    mix: Mix = "factors"
    """How experts combine: factors or outputs."""
    limit: int = 16
    """Test examples of each task to score."""

    def __post_init__(self) -> None:
        """Refuse options that have no meaning."""
        super().__post_init__()
        check_positive(self, "limit")

    def plan(self, subject: Subject) -> Plan:
        """List the scores. Raises E-SOURCE without a library, E-NAME and E-OPTION for routers and metrics."""
        if subject.source is None:
            raise BuildError("E-SOURCE", "study routing: there is no library to route.", "Give one: --from LIBRARY.")
        cells = list(self._cells("base", subject))
        for router in dict.fromkeys((_FLOOR, *self.routers, self.rival, self.champion, _CEILING)):
            knows_task = "task" in find_router(router).needs
            for cell in self._cells(router, subject):
                if cell.group == TRAINED or not knows_task:
                    cells.append(replace(cell, library=GIVEN, router=router, mix=self.mix, fit=subject.tasks or None))
        return Plan(cells=cells)

    def _cells(self, name: str, subject: Subject) -> Iterator[Cell]:
        evaluator = EVALUATORS.parse(self.metric)
        groups: tuple[tuple[str, Tasks], ...] = ((TRAINED, subject.tasks), (UNSEEN, subject.heldout))
        for group, tasks in groups:
            if tasks:
                file = file_name(f"{name} {self.mix}")
                path = f"runs/{file}.{group.partition(' ')[0]}.{self.metric.partition(':')[0]}.jsonl"
                yield Cell(path, name, group, evaluator, tasks, self.limit)

    def judge(self, results: Results) -> list[Verdict]:
        """Judge whether the champion beats its rival, on the trained tasks and on the others."""
        claim = f"{self.champion} routes better than {self.rival}"
        both = {self.champion, self.rival}
        measured = {group: rows for group, rows in results.items() if both <= {*rows}}
        return [judge(f"On {group} {claim}", rows[self.champion], rows[self.rival]) for group, rows in measured.items()]

    def tables(self, results: Results, title: str) -> list[Table]:
        """Put the share of the gap that each router closes beside the scores."""
        return [_with_gap(table, results.get(TRAINED, {})) for table in super().tables(results, title)]


def _with_gap(table: Table, rows: Mapping[str, Scores]) -> Table:
    """Append a column of gaps closed; a table without uniform and oracle stays as it is."""
    if not {_FLOOR, _CEILING} <= {*rows}:
        return table
    found = {name: closed(scores, rows[_FLOOR], rows[_CEILING]) for name, scores in rows.items()}
    first = next(column for column in table.columns if column.group == TRAINED)
    gap = Column(TRAINED, "gap", "gap closed", "%", True, first.n_tasks, first.n_examples)
    cells = {name: share and TableCell(*share) for name, share in found.items()}
    at = 1 + table.columns.index(first)
    lines = [replace(row, cells=(*row.cells[:at], cells.get(row.name), *row.cells[at:])) for row in table.rows]
    return replace(table, columns=(*table.columns[:at], gap, *table.columns[at:]), rows=tuple(lines))
