"""Whether several ways to do a thing stand in an order, and how sure that is."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from lorary.evaluation.bootstrap import central_interval, resampled_means
from lorary.evaluation.scores import Scores

_DRAWS, _SEED = 2000, 0
_FEWEST = 6


def difference(one: Sequence[float], other: Sequence[float]) -> tuple[float, float, float]:
    """Give the mean of one set of values less that of another, with its 95 % interval over both sets.

    The ends are nan for sets of fewer than 6 values.
    """
    sets = [np.asarray(values, dtype=float) for values in (one, other)]
    found = float(sets[0].mean() - sets[1].mean())
    if min(map(len, sets)) < _FEWEST:
        return found, math.nan, math.nan
    drawn = [resampled_means([values], draws=_DRAWS, seed=seed) for seed, values in enumerate(sets)]
    return found, *central_interval(drawn[0] - drawn[1], 0.95)


def rank_correlation(amounts: Sequence[float], runs: Sequence[Scores]) -> tuple[float, float, float]:
    """Give Spearman's rho of an amount with the mean score, over n ways, and its 95 % interval over test examples.

    The same examples are drawn for all ways. nan for fewer than 3 ways, and where the amounts don't vary.
    """
    if len(runs) < 3 or not np.ptp(amounts):
        return math.nan, math.nan, math.nan
    means = np.array([run.mean for run in runs])
    drawn = [resampled_means(list(run.values().values()), draws=_DRAWS, seed=_SEED) for run in runs]  # (n,) of (draws,)
    rhos = _rhos(np.asarray(amounts, dtype=float), np.stack(drawn, axis=1))
    low, high = central_interval(rhos, 0.95) if np.isfinite(rhos).all() else (math.nan, math.nan)
    return float(_rhos(np.asarray(amounts, dtype=float), means[None])[0]), low, high


def _rhos(amounts: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Correlate the ranks of amounts (n,) with those of each row of values (M, n): (M,)."""
    one, other = rankdata(amounts), rankdata(values, axis=1)
    one, other = one - one.mean(), other - other.mean(axis=1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        found: NDArray[np.float64] = other @ one / np.sqrt((one @ one) * (other * other).sum(axis=1))
    return found
