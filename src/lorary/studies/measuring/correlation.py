"""How strongly two things go together, and how sure that is."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lorary.evaluation.bootstrap import central_interval

_DRAWS, _SEED = 2000, 0
FEWEST = 6
"""Points for an interval; as many as a comparison of two runs needs."""

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Correlation:
    """Pearson's r of n points with its 95 % interval; the ends are nan for fewer than 6 points.

    x (G,), fit, fit_low, fit_high (G,): a grid over the points, the line of least squares, and its 95 % band.
    """

    r: float
    low: float
    high: float
    n: int
    x: Numbers
    fit: Numbers
    fit_low: Numbers
    fit_high: Numbers

    @property
    def holds(self) -> bool | None:
        """Whether they go together: True or False if the interval says so, else None."""
        return True if self.low > 0 else False if self.high < 0 else None

    @property
    def zero(self) -> float:
        """Where the fitted line crosses zero; nan for a flat one."""
        slope = (self.fit[-1] - self.fit[0]) / (self.x[-1] - self.x[0]) if self.x[-1] > self.x[0] else 0.0
        return float(self.x[0] - self.fit[0] / slope) if slope else math.nan

    def __str__(self) -> str:
        interval = f"[{self.low:.2f}, {self.high:.2f}]" if math.isfinite(self.low) else "[too few for an interval]"
        return f"r = {self.r:.2f} {interval} over {self.n} pairs"


def correlate(x: Sequence[float], y: Sequence[float]) -> Correlation | None:
    """Compute r, its bootstrap interval over the points, and the fitted line; None for what doesn't vary.

    Points are drawn as if they were independent; pairs that share a task are so only nearly.
    """
    xs, ys = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    if len(xs) < 3 or not np.ptp(xs) or not np.ptp(ys):
        return None
    grid = np.linspace(xs.min(), xs.max(), 41)
    (r,), (fit,) = _fit(xs[None], ys[None], grid)
    chosen = np.random.default_rng(_SEED).integers(0, len(xs), size=(_DRAWS, len(xs)))
    # Draws that don't vary have no line.
    chosen = chosen[(np.ptp(xs[chosen], axis=1) > 0) & (np.ptp(ys[chosen], axis=1) > 0)]
    rs, lines = _fit(xs[chosen], ys[chosen], grid)
    low, high = central_interval(rs, 0.95) if len(xs) >= FEWEST else (math.nan, math.nan)
    band = np.quantile(lines, [0.025, 0.975], axis=0)
    return Correlation(float(r), low, high, len(xs), grid, fit, band[0], band[1])


def _fit(xs: Numbers, ys: Numbers, grid: Numbers) -> tuple[Numbers, Numbers]:
    """Give r (M,) and the line of least squares on the grid (M, G), of M sets of n points, (M, n)."""
    middle, height = xs.mean(1, keepdims=True), ys.mean(1, keepdims=True)
    one, other = xs - middle, ys - height
    both, square = (one * other).sum(1, keepdims=True), (one * one).sum(1, keepdims=True)
    r = both / np.sqrt(square * (other * other).sum(1, keepdims=True))
    return r[:, 0], height + both / square * (grid - middle)
