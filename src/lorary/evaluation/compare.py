"""Is a better than b? Paired bootstrap between two runs on the same examples."""

import math
from dataclasses import dataclass

import numpy as np

from lorary.errors import EvaluationError
from lorary.evaluation.bootstrap import central_interval, resampled_means
from lorary.evaluation.scores import Scores
from lorary.options import require

_FEWEST = 6  # examples for an interval of 95 %: five signs fall alike by chance in 2 of 32 cases


@dataclass(frozen=True)
class Comparison:
    """How far run `a` is from run `b` on the same examples.

    `difference`: macro mean of a minus that of b, with its 95 % interval `low` … `high`, in `unit`; both are nan for
    fewer than 6 examples, which can't tell so much.
    `wins`: examples where a is better (in the metric's own direction); `losses`, `ties` likewise.
    `p_value`: two-sided; how often resampled examples put the difference on the other side of zero, or on it.
    """

    a: str
    b: str
    metric: str
    unit: str
    difference: float
    low: float
    high: float
    p_value: float
    wins: int
    losses: int
    ties: int
    higher_is_better: bool = True

    @property
    def is_clear(self) -> bool:
        """Whether the two can be told apart: the interval lies on one side of zero."""
        return self.low > 0 or self.high < 0  # no interval of nan does

    @property
    def verdict(self) -> str:
        """Say which one is better, or that they can't be told apart."""
        one, other = self.a or "the first", self.b or "the second"
        if not self.is_clear:
            why = "too few examples" if math.isnan(self.low) else "the interval holds zero"
            return f"{one} and {other} can't be told apart here: {why}."
        is_better = (self.difference > 0) == self.higher_is_better
        return f"{one} is better than {other}." if is_better else f"{other} is better than {one}."

    def __str__(self) -> str:
        n = self.wins + self.losses + self.ties
        names = f"{self.a or 'the first'} - {self.b or 'the second'}"
        interval = f"[{self.low:+.3g}, {self.high:+.3g}]"
        if math.isnan(self.low):
            interval = "[too few examples for an interval]"
        return (
            f"{names}: {self.difference:+.3g} {interval} {self.metric} "
            f"({self.unit}), p = {self.p_value:.2g}; better on {self.wins}, worse on {self.losses}, "
            f"equal on {self.ties} of {n} examples"
        )


def compare(a: Scores, b: Scores, *, draws: int = 10_000, seed: int = 0) -> Comparison:
    """Compare two runs example by example, by resampling the differences within each task.

    The p-value counts the actual sample as one draw, so it is never 0 and at least 2 / (draws + 1). Nor is it below
    what n examples that differ can show: their signs fall alike by chance in 2 of 2**n cases.
    Raises E-PAIR if the runs differ in metric, tasks or test examples, E-OPTION for what is no run.
    """
    for run in (a, b):
        require("run", run, Scores, "scores", "evaluate() gives them.")
    _check_pair(a, b)
    left, right = a.values(), b.values()
    differences = [left[task] - right[task] for task in left]  # (N_t,) each
    samples = resampled_means(differences, draws=draws, seed=seed)  # (draws,)
    low, high = central_interval(samples, 0.95)
    if sum(map(len, differences)) < _FEWEST:
        low = high = math.nan
    tail = min(np.count_nonzero(samples <= 0), np.count_nonzero(samples >= 0))
    signs = np.sign(np.concatenate(differences)) * (1 if a.higher_is_better else -1)
    chance = max(2 * (tail + 1) / (draws + 1), 2.0 ** (1 - np.count_nonzero(signs)))
    return Comparison(
        a=a.name,
        b=b.name,
        metric=a.metric,
        unit=a.unit,
        difference=float(np.mean([task.mean() for task in differences])),
        low=low,
        high=high,
        p_value=min(1.0, float(chance)),
        wins=int(np.count_nonzero(signs > 0)),
        losses=int(np.count_nonzero(signs < 0)),
        ties=int(np.count_nonzero(signs == 0)),
        higher_is_better=a.higher_is_better,
    )


def _check_pair(a: Scores, b: Scores) -> None:
    if a.metric != b.metric or a.header["options"] != b.header["options"]:
        _refuse(a, b, f"metric {a.metric!r} and {b.metric!r}", "Evaluate both with the same metric.")
    one, two = a.header["tasks"], b.header["tasks"]
    for task in sorted({*one, *two}):
        if task not in one or task not in two:
            _refuse(
                a, b, f"only {(a if task in one else b).name!r} has task {task!r}", "Evaluate both on the same tasks."
            )
        if one[task] != two[task]:
            counts = f"{one[task]['n_examples']} and {two[task]['n_examples']} examples"
            _refuse(
                a, b, f"task {task!r} has different test examples ({counts})", "Use the same data and the same limit."
            )


def _refuse(a: Scores, b: Scores, reason: str, hint: str) -> None:
    raise EvaluationError("E-PAIR", f"{a.name!r} and {b.name!r} can't be paired: {reason}.", hint)
