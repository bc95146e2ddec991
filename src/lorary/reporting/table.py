"""One table of scores: configurations down, groups of tasks and metrics across."""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

from rich.table import Table as RichTable
from rich.text import Text

from lorary.errors import EvaluationError
from lorary.evaluation.scores import Scores
from lorary.pages.escape import escape
from lorary.reporting.terminal import FirstThatFits

NOTE = "Brackets: 95 % interval, bootstrap over examples. Bold: best of the column, oracles aside."


@dataclass(frozen=True)
class Column:
    """One metric on one group of tasks; `label` stands for the metric.

    higher_is_better: None where neither is. counted: stands for the numbers of tasks and examples.
    """

    group: str
    metric: str
    label: str
    unit: str
    higher_is_better: bool | None
    n_tasks: int
    n_examples: int
    counted: str = ""

    @property
    def decimals(self) -> int:
        """How many decimals are worth printing."""
        return 1 if self.unit in ("0-100", "%") else 3

    @property
    def arrow(self) -> str:
        """Which way is better, after a blank."""
        return {True: " ↑", False: " ↓", None: ""}[self.higher_is_better]


@dataclass(frozen=True)
class Cell:
    """A macro mean with its 95 % interval; `best`: no eligible row is better, and at least one is worse.

    low and high are None where nothing was drawn, so that there is no interval.
    """

    mean: float
    low: float | None = None
    high: float | None = None
    best: bool = False


@dataclass(frozen=True)
class Row:
    """One configuration; a cell is None where it was not measured. An oracle knows the task, so it can't win."""

    name: str
    cells: tuple[Cell | None, ...]
    is_oracle: bool = False


@dataclass(frozen=True)
class Table:
    """Configurations and their scores, ready to be shown anywhere."""

    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    title: str = ""
    note: str = NOTE

    def to_markdown(self) -> str:
        """Write a GitHub table; the best of a column in bold."""
        heads = ["", *(f"{c.group}: {c.label}{c.arrow} ({c.unit})" for c in self.columns)]
        lines = [heads, [":--", *("--:" for _ in self.columns)]]
        for row in self.rows:
            texts = [_text(cell, column) for cell, column in zip(row.cells, self.columns, strict=True)]
            lines.append([row.name, *(_marked(t, cell, "**") for t, cell in zip(texts, row.cells, strict=True))])
        table = "\n".join("| " + " | ".join(map(_markdown, line)) + " |" for line in lines)
        return f"{table}\n\n{self.note}\n"

    def to_rich(self) -> FirstThatFits:
        """Lay it out for the terminal: whole if there is room, else a table for each group of tasks, or each column.

        Where it is narrower still, intervals stand below their means. Names are never cut.
        """
        groups, columns = list(self._by_group().values()), [(column,) for column in self.columns]
        return FirstThatFits(
            [
                self._stacked([self.columns], " "),
                self._stacked(groups, " "),
                self._stacked(groups, "\n"),
                self._stacked(columns, "\n"),
                self._stacked(columns, "\n", fold_names=True),
            ]
        )

    def _by_group(self) -> dict[str, tuple[Column, ...]]:
        names = dict.fromkeys(column.group for column in self.columns)
        return {name: tuple(column for column in self.columns if column.group == name) for name in names}

    def _stacked(self, parts: Sequence[Sequence[Column]], between: str, *, fold_names: bool = False) -> list[RichTable]:
        """Lay out tables below one another; `between` a mean and its interval."""
        tables = [self._rich(part, between, fold_names) for part in parts]
        if tables and self.title:
            tables[0].title = Text(self.title, "table.title")
        if tables:
            tables[-1].caption = Text(self.note, "dim")
        return tables

    def _rich(self, columns: Sequence[Column], between: str, fold_names: bool) -> RichTable:
        rich = RichTable()
        rich.add_column("", no_wrap=not fold_names, overflow="fold")
        for column in columns:
            head = f"{column.group}\n{column.label}{column.arrow}\n{column.unit}"
            rich.add_column(Text(head), justify="right", no_wrap=True)
        for row in self.rows:
            found = dict(zip(self.columns, row.cells, strict=True))
            cells = [
                Text(_text(cell, column).replace(" ", between, 1), style="bold" if cell and cell.best else "")
                for column in columns
                for cell in [found[column]]
            ]
            rich.add_row(Text(row.name), *cells, style="dim" if row.is_oracle else "")
        return rich

    def to_html(self) -> str:
        """Write a `<table>` with two rows of headings; every text is escaped."""
        upper = "".join(
            f'<th colspan="{len(columns)}" scope="colgroup">{escape(group)}<small>{escape(_counted(columns[0]))}'
            "</small></th>"
            for group, columns in self._by_group().items()
        )
        lower = "".join(
            f'<th scope="col">{escape(c.label)}{c.arrow}<small>{escape(c.unit)}</small></th>' for c in self.columns
        )
        body = "\n".join(self._html_row(row) for row in self.rows)
        caption = f"<caption>{escape(self.title)}</caption>" if self.title else ""
        return (
            f'<table class="scores">{caption}<thead><tr><td rowspan="2"></td>{upper}</tr><tr>{lower}</tr></thead>\n'
            f"<tbody>\n{body}\n</tbody></table>"
        )

    def to_json(self) -> str:
        """Write everything in the table as JSON."""
        return json.dumps(asdict(self), ensure_ascii=False, indent=2)

    def _html_row(self, row: Row) -> str:
        cells = "".join(_html_cell(cell, column) for cell, column in zip(row.cells, self.columns, strict=True))
        kind = ' class="oracle"' if row.is_oracle else ""
        return f'<tr{kind}><th scope="row">{escape(row.name)}</th>{cells}</tr>'


def make_table(
    groups: Mapping[str, Iterable[Scores]],
    *,
    title: str = "",
    oracles: Collection[str] | None = None,
    labels: Mapping[str, str] | None = None,
) -> Table:
    """Lay out scores: a row for each name, a column for each metric on each group of tasks, both as they first come.

    `oracles`: rows that may not be marked as best; by default those whose name ends in "oracle". `labels`: what to
    call a metric. Raises E-REPORT if two scores want one cell, or a column holds scores on different test examples.
    """
    found: dict[tuple[str, str], dict[str, Scores]] = {}
    names: dict[str, None] = {}
    for group, runs in groups.items():
        for scores in runs:
            column = found.setdefault((group, scores.metric), {})
            _check_fits(column, group, scores)
            column[scores.name] = scores
            names[scores.name] = None
    kept_out = {name for name in names if (name.endswith("oracle") if oracles is None else name in oracles)}
    order = sorted(found, key=lambda key: list(groups).index(key[0]))
    columns = [_column(group, next(iter(found[group, metric].values())), labels or {}) for group, metric in order]
    cells = [_cells(found[key], kept_out) for key in order]
    rows = [Row(name, tuple(column.get(name) for column in cells), name in kept_out) for name in names]
    return Table(tuple(columns), tuple(rows), title)


def _check_fits(column: Mapping[str, Scores], group: str, scores: Scores) -> None:
    where = f"column {group!r}, {scores.metric}"
    if scores.name in column:
        raise EvaluationError("E-REPORT", f"{where}: two runs are called {scores.name!r}.", "Give each its own name.")
    for other in column.values():
        if other.header["tasks"] != scores.header["tasks"]:
            raise EvaluationError(
                "E-REPORT",
                f"{where}: {other.name!r} and {scores.name!r} were measured on different test examples.",
                "Evaluate both on the same tasks with the same limit.",
            )


def _column(group: str, scores: Scores, labels: Mapping[str, str]) -> Column:
    n_tasks, n_examples = len(scores.header["tasks"]), len(scores.outcomes)
    label = labels.get(scores.metric, scores.metric)
    return Column(group, scores.metric, label, scores.unit, scores.higher_is_better, n_tasks, n_examples)


def _cells(column: Mapping[str, Scores], oracles: Collection[str]) -> dict[str, Cell]:
    means = {name: scores.mean for name, scores in column.items()}
    rivals = [mean for name, mean in means.items() if name not in oracles]
    pick = max if next(iter(column.values())).higher_is_better else min
    told_apart = len(rivals) == 1 or len(set(rivals)) > 1  # where all are equal, none is better than another
    best = pick(rivals) if rivals and told_apart else None
    return {
        name: Cell(means[name], *scores.interval(), best=name not in oracles and means[name] == best)
        for name, scores in column.items()
    }


def _counted(column: Column) -> str:
    return column.counted or f"{column.n_tasks} tasks, {column.n_examples} examples"


def _text(cell: Cell | None, column: Column) -> str:
    if cell is None:
        return "–"
    if cell.low is None or cell.high is None:
        return f"{cell.mean:.{column.decimals}f}"
    mean, low, high = (f"{value:.{column.decimals}f}" for value in (cell.mean, cell.low, cell.high))
    return f"{mean} [{low}, {high}]"


def _marked(text: str, cell: Cell | None, mark: str) -> str:
    mean, space, rest = text.partition(" ")
    return f"{mark}{mean}{mark}{space}{rest}" if cell and cell.best else text


def _markdown(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")


def _html_cell(cell: Cell | None, column: Column) -> str:
    mean, _, interval = _text(cell, column).partition(" ")
    kind = ' class="best"' if cell and cell.best else ""
    return f'<td{kind}><span class="mean">{mean}</span> <span class="interval">{interval}</span></td>'
