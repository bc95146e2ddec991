"""In how few dimensions a task can be learned."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from lorary.building.builders.private import Private
from lorary.building.builders.subspace import Subspace
from lorary.building.limits import check_adapter, check_positive
from lorary.errors import TaskError
from lorary.evaluation.evaluators.perplexity import Perplexity
from lorary.evaluation.scores import Scores
from lorary.formats.peft import open_experts
from lorary.options import refuse_value
from lorary.reporting.canvas import Picture
from lorary.reporting.measure_figures import Line, draw_lines
from lorary.reporting.table import Cell as TableCell
from lorary.reporting.table import Column, Table
from lorary.studies.comparing.paper_claims import Said
from lorary.studies.comparing.stock import BRIEF
from lorary.studies.contract import TRAINED, Bench, Build, Cell, Measure, Plan, Results, Study, Subject, Verdict
from lorary.studies.gap import closed

_FULL, _SIZE = "libs/full", "measures/size.json"
_ALL = "all"
_PAPER = "not measured; of a whole model's weights (2012.13255) hundreds to thousands of dimensions do"


@dataclass(frozen=True)
class _Size:
    """How many numbers an expert has when all are trained."""

    n_numbers: int

    def __post_init__(self) -> None:
        """Refuse a size that has no meaning."""
        if self.n_numbers < 1:
            raise ValueError("an expert has a number or more")


@dataclass(frozen=True)
class IntrinsicDimensionStudy(Study):
    """Train experts in random subspaces of D dimensions: D against the share of what training all numbers gives.

    Every task gets an expert whose numbers all learn, and one for each D whose numbers move in a random subspace of D
    dimensions, for the same steps at the same rate. Share: of the way in loss from the base to the full expert, on test
    examples. The intrinsic dimension at 90 % is the smallest D whose share is 90 % or more.
    Source: Li et al. 2018 (1804.08838) and Aghajanyan et al. 2020 (2012.13255), background of 2405.11157.
    Differs: there the subspace is one of all weights of the model, here of a LoRA's factors, which hold less than a
    hundredth as many numbers already; the share is of the loss's way, there of the accuracy.
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"paper": {"steps": 2500}}

    dimensions: tuple[int, ...] = (10, 30, 100, 300, 1000, 3000)
    """Dimensions of the subspaces."""
    share: float = 90.0
    """Share of the full way, in percent, that the intrinsic dimension stands for."""
    steps: int = 60
    """Optimiser steps of each expert."""
    batch_size: int = 4
    """Examples in each step."""
    lr: float = 2e-3
    """Peak learning rate; one for all D, as the subspace is scaled."""
    rank: int = 4
    """Rank of the adapters."""
    targets: tuple[str, ...] = ("attention",)
    """Layers with an adapter."""
    limit: int = 16
    """Test examples of each task to score."""
    seed: int = 42
    """Seed of all training, and of the subspaces."""

    def __post_init__(self) -> None:
        """Refuse options that have no meaning."""
        super().__post_init__()
        check_positive(self, "steps", "batch_size", "lr", "limit", "share")
        check_adapter(self._full())
        if min(self.dimensions, default=1) < 1 or len(set(self.dimensions)) < len(self.dimensions):
            refuse_value(self, "dimensions", "different numbers of 1 or more")

    # ---- plan -------------------------------------------------------------------------------------

    def plan(self, subject: Subject) -> Plan:
        """List libraries and scores. Raises E-TASK without a task, E-OPTION without a dimension."""
        if not self.dimensions:
            refuse_value(self, "dimensions", "one or more")
        tasks = subject.tasks
        if not tasks:
            raise TaskError("E-TASK", "study intrinsic_dimension: there is no task to learn.", "Give some.")
        builds = [Build(_FULL, self._full(), tasks)]
        for dimension in sorted(self.dimensions):
            builds.append(Build(_library(dimension), Subspace(dimension=dimension, **self._training), tasks))
        cells = [Cell("runs/base.jsonl", "base", TRAINED, Perplexity(), tasks, self.limit)]
        names = {**{str(d): _library(d) for d in sorted(self.dimensions)}, _ALL: _FULL}
        for name, library in names.items():
            path = f"runs/{name}.jsonl"
            cells.append(Cell(path, name, TRAINED, Perplexity(), tasks, self.limit, library, "oracle"))
        return Plan(builds, cells, [Measure(_SIZE, _count, _Size, [_FULL])])

    @property
    def _training(self) -> dict[str, Any]:
        options = {"steps": self.steps, "batch_size": self.batch_size, "lr": self.lr, "seed": self.seed}
        return {**options, "rank": self.rank, "targets": self.targets, **BRIEF}

    def _full(self) -> Private:
        return Private(**self._training)

    # ---- what came out ----------------------------------------------------------------------------

    def judge(self, results: Results) -> list[Verdict]:
        """Judge whether a hundredth of an expert's dimensions gives most of its gain."""
        text = f"a hundredth of an expert's dimensions gives {self.share:g} % of what all of them give"
        said = Said("I", text, _PAPER, "Tasks need few numbers: small experts are enough.")
        n = self._n_numbers(results)
        tried = [dimension for dimension in self.dimensions if dimension <= n / 100]
        found = dict(self._shares(results.get(TRAINED, {})))
        if not tried or (share := found.get(max(tried))) is None:
            return [said.verdict(None, f"An expert has {n:,} numbers; no dimension up to {n // 100:,} has a share.")]
        mean, low, high = share
        reached = self._reached(found)
        where = f"first reached at D = {reached:,}" if reached else "reached at no D"
        numbers = (
            f"D = {max(tried):,} of {n:,} gives {mean:.1f} % [{low:.1f}, {high:.1f}]; {self.share:g} % is {where}."
        )
        more = (mean - self.share, low - self.share, high - self.share)
        return [said.by_interval(more, numbers)]

    def tables(self, results: Results, title: str) -> list[Table]:
        """Put the share of the full way beside each score."""
        (table,) = super().tables(results, title)
        rows = results.get(TRAINED, {})
        if not rows:
            return [table]
        found, first = dict(self._shares(rows)), table.columns[0]
        share = Column(TRAINED, "share", "share of all", "%", True, first.n_tasks, first.n_examples)
        cells = {str(dimension): _as_cell(value) for dimension, value in found.items()}
        lines = tuple(replace(row, cells=(*row.cells, cells.get(row.name))) for row in table.rows)
        return [replace(table, columns=(*table.columns, share), rows=lines)]

    def figures(self, results: Results) -> list[Picture]:
        """Draw the share over D."""
        found = dict(self._shares(results.get(TRAINED, {})))
        if not found:
            return []
        means, lows, highs = zip(*found.values(), strict=True)
        reached, n = self._reached(found), self._n_numbers(results)
        said = f"{self.share:g} % at D = {reached:,}" if reached else f"{self.share:g} % at no D that was tried"
        marked = list(found).index(reached) if reached else None
        line = Line(f"of {n:,} numbers", list(found), means, lows, highs, marked, said)
        caption = (
            "Across: dimensions of the random subspace that an expert is trained in, logarithmic. Up: how much of the "
            "way in loss from the base to an expert that trains all of its numbers. Whiskers: 95 % interval, bootstrap "
            f"over examples. Dotted: {self.share:g} %. Ring: the first D that reaches it."
        )
        label, title = "share of the full way, %", "In how few dimensions tasks are learned"
        return [
            draw_lines(
                [line], x_label="dimensions", y_label=label, caption=caption, name="intrinsic-dimension", title=title,
                level=self.share,
            )
        ]  # fmt: skip

    def _shares(self, rows: Mapping[str, Scores]) -> Iterator[tuple[int, tuple[float, float, float]]]:
        """Give the share of the full way of each D, with its interval; none where the full experts are no better."""
        for dimension in sorted(self.dimensions):
            if {str(dimension), "base", _ALL} <= {*rows}:
                share = closed(rows[str(dimension)], rows["base"], rows[_ALL])
                if share is not None:
                    yield dimension, share

    def _reached(self, found: Mapping[int, tuple[float, float, float]]) -> int | None:
        return next((dimension for dimension, (mean, _, _) in found.items() if mean >= self.share), None)

    def _n_numbers(self, results: Results) -> int:
        return max((one.n_numbers for one in results.found(_SIZE)), default=0)


def _count(bench: Bench) -> _Size:
    expert = next(iter(open_experts(bench.libraries[_FULL]).values()))
    return _Size(sum(weights.rank * (weights.d_in + weights.d_out) for weights in expert.values()))


def _as_cell(share: tuple[float, float, float]) -> TableCell:
    mean, low, high = share
    return TableCell(mean, low, high) if math.isfinite(low) else TableCell(mean)


def _library(dimension: int) -> str:
    return f"libs/d{dimension}"
