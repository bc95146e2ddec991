"""Whether tasks whose experts are alike gain from being trained together."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from typing import Any, ClassVar, Literal

import numpy as np

from lorary.building.builders.per_cluster import PerCluster
from lorary.building.builders.private import Private
from lorary.building.clustering.clusters import Clusters
from lorary.building.contract import Builder
from lorary.building.limits import check_positive, check_targets
from lorary.errors import TaskError
from lorary.evaluation.bootstrap import central_interval, resampled_means
from lorary.evaluation.evaluate import evaluate
from lorary.evaluation.evaluators.perplexity import Perplexity
from lorary.formats.peft import open_experts
from lorary.model.probes.lone import alone
from lorary.reporting.canvas import Picture
from lorary.reporting.measure_figures import Fit, Points, draw_points
from lorary.reporting.table import Cell, Column, Row, Table
from lorary.studies.comparing.paper_claims import Said
from lorary.studies.comparing.stock import BRIEF
from lorary.studies.contract import Bench, Build, Measure, Plan, Results, Study, Subject, Verdict
from lorary.studies.measuring.correlation import Correlation, correlate
from lorary.studies.measuring.pairs import SPACES, Likeness, draw_pairs, likeness
from lorary.tasks.task import Tasks

_PRIVATE, _PAIRS, _DRAWN = "libs/private", "libs/pairs", "measures/pairs.json"
_GAIN_MORE = "tasks whose experts are more alike gain more from joint training"
_MEANING = "Train tasks together whose experts are alike; keep the others apart."
_FIGURE = "r = 0.51 (Phi-2), 0.75 (GPT-Neo)"
_CLAIMED = {
    "embedding": ("C1", _FIGURE), "factors": ("C1 (factors)", "not measured"),
    "products": ("C1 (products)", "not measured"),
}  # fmt: skip
"""Number of the claim, and what the paper found, for each of the cosines."""
_IN_WORDS = {"factors": "raw factors", "embedding": "MBC's embedding", "products": "product space"}


@dataclass(frozen=True)
class _Drawn:
    """How alike the private experts are, and the pairs of tasks that were drawn."""

    likeness: Likeness
    pairs: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class _Gain:
    """Losses of two tasks' test examples, by each task's own expert and by that of the pair, and the cosines."""

    tasks: tuple[str, str]
    cosines: dict[str, float]
    apart: tuple[tuple[float, ...], tuple[float, ...]]
    joint: tuple[tuple[float, ...], tuple[float, ...]]

    def __post_init__(self) -> None:
        """Compare the sizes."""
        if [*map(len, self.apart)] != [*map(len, self.joint)] or not all(self.apart):
            raise ValueError("there must be as many losses apart as joint")

    @property
    def each(self) -> list[np.ndarray[Any, np.dtype[np.float64]]]:
        """What each test example gains, (N,) of both tasks."""
        return [np.array(a) - np.array(j) for a, j in zip(self.apart, self.joint, strict=True)]

    @property
    def mean(self) -> float:
        """The gain in log-likelihood per token: the mean of both tasks."""
        return float(np.mean([task.mean() for task in self.each]))


@dataclass(frozen=True)
class SimilarityStudy(Study):
    """Test whether tasks whose private experts are more alike gain more from being trained together.

    Every task gets an expert of its own; then pairs of tasks are drawn that cover all degrees of likeness, and each
    pair gets one expert, trained on both for twice the steps, so that it has seen each task as often as the task's own
    expert. x: the cosine of both experts. y: the loss of the own experts less that of the pair's, on test examples,
    mean of both tasks: what the joint training adds to the log-likelihood of the right answers, in nats per token.
    x is measured on the factors as they are written, on the embedding that MBC clusters by, and on the products B A.
    Source: Ostapenko et al. 2024 (2405.11157) Figure 2, r = 0.51 for Phi-2 and 0.75 for GPT-Neo; the drawing of pairs,
    one for each of 50 bins of the embedding's cosine, from its code.
    Differs: where bins are empty further rounds are drawn, so that there are as many pairs as asked for.
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"paper": {"steps": 2500}}

    n_pairs: int = 40
    """Pairs of tasks to train together; all there are, if they are fewer."""
    n_bins: int = 50
    """Bins of the cosine that pairs are drawn from in turn."""
    drawn_by: Literal["embedding", "factors", "products"] = "embedding"
    """The cosine that pairs are drawn by."""
    steps: int = 60
    """Optimiser steps of each private expert; a pair's expert takes twice as many."""
    batch_size: int = 4
    """Examples in each step."""
    lr: float = 2e-3
    """Peak learning rate."""
    targets: tuple[str, ...] = ("attention",)
    """Layers with an adapter; the paper's figure has the feed-forward ones."""
    limit: int = 16
    """Test examples of each task to score."""
    seed: int = 42
    """Seed of all training, and of the draw."""

    def __post_init__(self) -> None:
        """Refuse options that have no meaning."""
        super().__post_init__()
        check_positive(self, "n_pairs", "n_bins", "steps", "batch_size", "lr", "limit")
        check_targets(self)

    # ---- plan -------------------------------------------------------------------------------------

    def plan(self, subject: Subject) -> Plan:
        """List libraries and measures. Raises E-TASK for fewer than three tasks, of which no line can be drawn."""
        tasks = subject.tasks
        if len(tasks) < 3:
            found = f"{len(tasks)} tasks to pair"
            raise TaskError("E-TASK", f"study similarity: {found}, expected at least 3.", "Give more tasks.")
        some = list(combinations(tasks, 2))[: self.n_pairs]  # as many, and of the same length on average
        like = self.pairs(some), tasks
        builds = [
            Build(_PRIVATE, Private(steps=self.steps, targets=self.targets, **self._training), tasks, is_shared=True),
            Build(_PAIRS, self._of_drawn, tasks, like=like, after=[_DRAWN]),
        ]
        tested = Tasks(task.first(train=0, valid=0, test=self.limit) for task in tasks.values())
        how = {"n_pairs": self.n_pairs, "n_bins": self.n_bins, "drawn_by": self.drawn_by, "seed": self.seed}
        measures = [Measure(_DRAWN, partial(self._draw, tasks), _Drawn, [_PRIVATE], options=how)]
        for place, pair in enumerate(some):
            examples = [example for name in pair for example in tested[name].test]
            gain = partial(_measure_gain, tested, place)
            libraries = [_PRIVATE, _PAIRS]
            measures.append(
                Measure(_of_pair(place), gain, _Gain, libraries, tested, [_DRAWN], examples=examples, passes=2)
            )
        return Plan(builds, measures=measures)

    @property
    def _training(self) -> dict[str, Any]:
        return {"batch_size": self.batch_size, "lr": self.lr, "seed": self.seed, **BRIEF}

    def pairs(self, pairs: Sequence[tuple[str, str]]) -> PerCluster:
        """Options of the experts of pairs."""
        groups = Clusters({_name(place): pair for place, pair in enumerate(pairs)})
        return PerCluster(groups, steps=2 * self.steps, targets=self.targets, **self._training)

    def _of_drawn(self, bench: Bench) -> Builder:
        return self.pairs(bench.measured[_DRAWN].pairs)

    def _draw(self, tasks: Tasks, bench: Bench) -> _Drawn:
        found, library = likeness(open_experts(bench.libraries[_PRIVATE])), bench.libraries[_PRIVATE]
        drawn = draw_pairs(found.of(self.drawn_by), self.n_pairs, n_bins=self.n_bins, seed=self.seed)
        task_of = [library[name].provenance.tasks[0] for name in found.names]
        return _Drawn(found, tuple((task_of[one], task_of[other]) for one, other in drawn))

    # ---- what came out ----------------------------------------------------------------------------

    def judge(self, results: Results) -> list[Verdict]:
        """Judge whether likeness and gain go together, by each of the cosines, the paper's first."""
        return [self._verdict(space, results) for space in ("embedding", "factors", "products")]

    def _verdict(self, space: str, results: Results) -> Verdict:
        number, paper = _CLAIMED[space]
        said = Said(number, f"{_GAIN_MORE} ({_IN_WORDS[space]})", paper, _MEANING)
        if (found := self.correlation(results, space)) is None:
            return said.verdict(None, "The points don't vary." if results.measured else "Nothing was measured.")
        return said.by_interval((found.r, found.low, found.high), f"{found}.")

    def correlation(self, results: Results, space: str) -> Correlation | None:
        """Correlate one of the cosines with the gain, over the pairs of all seeds; None for what doesn't vary."""
        gains = list(_gains(results))
        return correlate([gain.cosines[space] for gain in gains], [gain.mean for gain in gains])

    def tables(self, results: Results, title: str) -> list[Table]:
        """Lay out r for each of the cosines, and what each pair gained."""
        gains = list(_gains(results))
        rows = []
        for space in SPACES:
            found = self.correlation(results, space)
            is_sure = found is not None and math.isfinite(found.low)
            cell = None if found is None else Cell(found.r, found.low, found.high) if is_sure else Cell(found.r)
            rows.append(Row(_IN_WORDS[space], (cell,)))
        counted, n = f"{len(gains)} pairs of tasks", len(gains)
        r = Column("likeness and gain", "pearson", "Pearson's r", "-1 to 1", None, n, n, counted)
        note = "Brackets: 95 % interval, bootstrap over pairs."
        return [Table((r,), tuple(rows), title, note), _table_of_pairs(gains, title)]

    def figures(self, results: Results) -> list[Picture]:
        """Draw gain against likeness, a panel for each of the cosines."""
        gains, panels = list(_gains(results)), []
        for space in SPACES:
            found = self.correlation(results, space)
            fit = None if found is None else Fit(*map(tuple, (found.x, found.fit, found.fit_low, found.fit_high)))
            x, y = [gain.cosines[space] for gain in gains], [gain.mean for gain in gains]
            panels.append(Points(_IN_WORDS[space], x, y, fit, str(found or "")))
        caption = (
            f"Each of {len(gains)} points: two tasks. Across: the cosine of their own experts. Up: what one expert, "
            "trained on both, adds to the log-likelihood of the right answers over the own experts. Line and band: "
            "least squares and its 95 % interval, bootstrap over pairs."
            + _crossing(self.correlation(results, "embedding"))
        )
        label = "gain of joint training, nats per token"
        title = "Likeness of experts and gain of joint training"
        return [
            draw_points(
                panels, x_label="cosine", y_label=label, caption=caption, name="similarity", title=title, level=0
            )
        ]


def _measure_gain(tested: Tasks, place: int, bench: Bench) -> _Gain:
    drawn, private = bench.measured[_DRAWN], bench.libraries[_PRIVATE]
    pair = drawn.pairs[place]
    expert_of = {private[name].provenance.tasks[0]: name for name in private}
    names = [expert_of[task] for task in pair]
    i, j = (drawn.likeness.names.index(name) for name in names)
    apart = [_losses(bench, _PRIVATE, name, tested, task) for name, task in zip(names, pair, strict=True)]
    joint = [_losses(bench, _PAIRS, _name(place), tested, task) for task in pair]
    cosines = {space: drawn.likeness.of(space)[i][j] for space in SPACES}
    return _Gain(pair, cosines, (apart[0], apart[1]), (joint[0], joint[1]))


def _losses(bench: Bench, library: str, expert: str, tested: Tasks, task: str) -> tuple[float, ...]:
    weights = open_experts({expert: bench.libraries[library][expert]})[expert]
    with alone(bench.base, weights):
        scores = evaluate(Perplexity(), bench.base, tested.only(task))
    return tuple(outcome.value for outcome in scores.outcomes)


def _gains(results: Results) -> Iterator[_Gain]:
    for measured in results.measured:
        yield from (found for found in measured.values() if isinstance(found, _Gain))


def _table_of_pairs(gains: Sequence[_Gain], title: str) -> Table:
    rows = []
    for gain in sorted(gains, key=lambda gain: gain.cosines["embedding"]):
        low, high = central_interval(resampled_means(gain.each, draws=2000, seed=0), 0.95)
        cosines = (Cell(gain.cosines[space]) for space in SPACES)
        rows.append(Row(" + ".join(gain.tasks), (*cosines, Cell(gain.mean, low, high))))
    n, counted = sum(len(task) for gain in gains for task in gain.apart), f"{len(gains)} pairs of tasks"
    heads = [Column("cosine of the own experts", space, _IN_WORDS[space], "-1 to 1", None, len(gains), n, counted)
             for space in SPACES]  # fmt: skip
    own = Column("gain", "gain", "joint over own", "nats per token", True, len(gains), n, f"{n} test examples")
    note = "Brackets: 95 % interval, bootstrap over test examples."
    return Table((*heads, own), tuple(rows), f"{title}: the pairs" if title else "the pairs", note)


def _crossing(found: Correlation | None) -> str:
    if found is None or not found.x[0] <= found.zero <= found.x[-1]:
        return ""
    return f" By MBC's embedding the line crosses zero at {found.zero:.2f}."


def _of_pair(place: int) -> str:
    return f"measures/{_name(place)}.json"


def _name(place: int) -> str:
    return f"pair{place:03}"
