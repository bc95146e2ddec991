"""The mean over benchmarks."""

from collections.abc import Sequence
from dataclasses import dataclass

from lorary.errors import EvaluationError
from lorary.evaluation.bootstrap import central_interval, resampled_means
from lorary.evaluation.scores import Scores


@dataclass(frozen=True)
class Mean:
    """The plain mean of several benchmarks' scores, with its 95 % interval over examples."""

    n_benchmarks: int
    mean: float
    low: float
    high: float


def mean_over(runs: Sequence[Scores]) -> Mean:
    """Average one model's scores on benchmarks, each by the same weight whatever its size.

    The interval resamples the examples of each benchmark; the benchmarks are kept.
    Raises E-EVAL for none, and for scores in several units or of several models.
    """
    kinds = {(run.name, run.unit, run.higher_is_better) for run in runs}
    if len(kinds) != 1:
        found = ", ".join(f"{name} ({unit})" for name, unit, _ in sorted(kinds)) or "no runs"
        raise EvaluationError("E-EVAL", f"there is no mean over {found}.", "Give runs of one model, in one unit.")
    values = [task for run in runs for task in run.values().values()]
    low, high = central_interval(resampled_means(values, draws=2000, seed=0), 0.95)
    return Mean(len(runs), sum(run.mean for run in runs) / len(runs), low, high)
