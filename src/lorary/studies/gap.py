"""How much of the way from one score to a better one a third has gone, and how sure that is."""

import numpy as np

from lorary.evaluation.bootstrap import central_interval, resampled_means
from lorary.evaluation.scores import Scores

_DRAWS, _SEED = 2000, 0


def closed(scores: Scores, floor: Scores, ceiling: Scores) -> tuple[float, float, float] | None:
    """Give the share in percent with its 95 % interval, of runs on the same examples; None where there is no gap.

    Examples are drawn within each task, the same for all three runs.
    """
    if floor.mean == ceiling.mean:
        return None
    three = [run.values() for run in (scores, floor, ceiling)]
    # The same seed draws the same examples of runs on the same tasks.
    one, low, high = (resampled_means(list(values.values()), draws=_DRAWS, seed=_SEED) for values in three)
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = (low - one) / (low - high)
    share = (floor.mean - scores.mean) / (floor.mean - ceiling.mean)
    if not np.isfinite(shares).all():
        return 100 * share, float("nan"), float("nan")
    first, last = central_interval(100 * shares, 0.95)
    return 100 * share, first, last
