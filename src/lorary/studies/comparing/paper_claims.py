"""Claims of a paper that one row of a table is better than another, and what became of them in a run."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lorary.evaluation.bootstrap import central_interval
from lorary.evaluation.compare import compare
from lorary.evaluation.scores import Scores
from lorary.studies.contract import Results, Verdict

_DRAWS, _SEED = 10_000, 0
_FEWEST_TASKS = 6
"""Of fewer tasks an interval over tasks of 95 % can't be had: five signs fall alike by chance in 2 of 32 cases."""


@dataclass(frozen=True)
class Said:
    """A claim of the paper.

    number: as the paper's claims are counted, e.g. C3. paper: what the paper found. meaning: what it means for a user.
    """

    number: str
    text: str
    paper: str
    meaning: str

    def verdict(
        self,
        holds: bool | None,
        numbers: str,
        interval: Sequence[float] | None = None,
        *,
        only_in_sign: bool = False,
    ) -> Verdict:
        """Say what became of it; interval: a difference with its ends, better being more."""
        three = None if interval is None else (interval[0], interval[1], interval[2])
        return Verdict(
            f"{self.number}: {self.text}", holds, numbers, only_in_sign, three, paper=self.paper, meaning=self.meaning
        )

    def by_interval(self, interval: tuple[float, float, float], numbers: str, *, over_tasks: bool = True) -> Verdict:
        """Hold it if a difference is clearly above 0; over_tasks: whether it would be so of other tasks too."""
        _, low, high = interval
        holds = True if low > 0 else False if high < 0 else None
        return self.verdict(holds, numbers, interval, only_in_sign=bool(holds) and not over_tasks)


@dataclass(frozen=True)
class Claim(Said):
    """That one row beats another on a group of tasks; with `margin`, that neither is better by more than that."""

    group: str
    better: str
    worse: str
    margin: float | None = None

    def judge(self, results: Results) -> Verdict:
        """Say what became of it; of rows that weren't measured nothing can be told."""
        rows = results.get(self.group, {})
        if not {self.better, self.worse} <= {*rows}:
            missing = next(name for name in (self.better, self.worse) if name not in rows)
            return self.verdict(None, f"{missing} on {self.group} was not measured.")
        one, other = rows[self.better], rows[self.worse]
        return self._alike(one, other) if self.margin is not None else self._ahead(one, other)

    def _ahead(self, one: Scores, other: Scores) -> Verdict:
        found, sign = compare(one, other), 1 if one.higher_is_better else -1
        low, high = over_tasks(one, other)
        numbers = f"{found}; over tasks {_interval(low, high)}."
        ends = sorted((sign * found.low, sign * found.high))
        interval = (sign * found.difference, *ends)
        holds = sign * found.difference > 0 if found.is_clear else None
        in_sign = bool(holds) and not (low > 0 or high < 0)
        return self.verdict(holds, numbers, interval, only_in_sign=in_sign)

    def _alike(self, one: Scores, other: Scores) -> Verdict:
        assert self.margin is not None
        found, sign = compare(one, other), 1 if one.higher_is_better else -1
        ends = sorted((sign * found.low, sign * found.high))
        inside = -self.margin <= ends[0] and ends[1] <= self.margin
        outside = ends[0] > self.margin or ends[1] < -self.margin
        holds = True if inside else False if outside else None
        return self.verdict(holds, f"{found}; alike within {self.margin:g}.", (sign * found.difference, *ends))


def judge_all(claims: Sequence[Claim], results: Results) -> list[Verdict]:
    """Judge every claim, those too whose rows weren't measured."""
    return [claim.judge(results) for claim in claims]


def over_tasks(one: Scores, other: Scores) -> tuple[float, float]:
    """Give the 95 % interval of the difference, had other tasks been drawn; nan for fewer than 6 tasks."""
    left, right = one.per_task(), other.per_task()
    return of_tasks([left[task] - right[task] for task in left])


def of_tasks(values: Sequence[float]) -> tuple[float, float]:
    """Give the 95 % interval of the mean of a value of each task; nan for fewer than 6 tasks."""
    differences = np.array(values)  # (n_tasks,)
    if len(differences) < _FEWEST_TASKS:
        return math.nan, math.nan
    places = np.random.default_rng(_SEED).integers(0, len(differences), size=(_DRAWS, len(differences)))
    return central_interval(differences[places].mean(axis=1), 0.95)


def _interval(low: float, high: float) -> str:
    return "[too few tasks for an interval]" if math.isnan(low) else f"[{low:+.3g}, {high:+.3g}]"
