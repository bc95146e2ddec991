"""Resampling: how much a score would change with other examples of the same tasks."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lorary.errors import OptionError
from lorary.options import require_count

_CELLS_AT_ONCE = 1 << 22  # 32 MB of indices


def resampled_means(values: Sequence[NDArray[np.float64]], *, draws: int, seed: int) -> NDArray[np.float64]:
    """Draw macro means by resampling examples within each task.

    `values`: one array (N_t,) per task. Returns (draws,): the mean over tasks of the resampled task means.
    The tasks themselves are kept: the spread is that of the examples, not of the choice of tasks.
    Raises E-OPTION for draws below 1 and a seed below 0.
    """
    require_count("draws", draws)
    require_count("seed", seed, least=0)
    generator = np.random.default_rng(seed)
    return np.mean([_task_means(task, draws, generator) for task in values], axis=0)  # type: ignore[no-any-return]


def _task_means(values: NDArray[np.float64], draws: int, generator: np.random.Generator) -> NDArray[np.float64]:
    n = len(values)
    rows = max(1, _CELLS_AT_ONCE // n)
    return np.concatenate(
        [
            values[generator.integers(0, n, size=(min(rows, draws - done), n))].mean(axis=1)  # (rows,)
            for done in range(0, draws, rows)
        ]
    )


def central_interval(samples: NDArray[np.float64], level: float) -> tuple[float, float]:
    """Cut the same share off both ends, so that `level` of the samples stays between. Raises E-OPTION."""
    if not 0 < level < 1:
        raise OptionError("E-OPTION", f"level={level}, expected above 0, below 1.")
    low, high = np.quantile(samples, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
