"""Find the best of many points without gradients: ask for one, tell its loss, ask for the next.

A search that is told the same losses asks for the same points, so that one which was broken off is replayed.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from lorary.extras import require_extra

Point = tuple[float, ...]


class Search(Protocol):
    """A search for the point in a box with the lowest loss."""

    def ask(self) -> Point:
        """Give the next point to try."""

    def tell(self, loss: float) -> None:
        """Hear the loss of the point that was asked for last."""


@dataclass
class Evolution:
    """A (1+1) evolution strategy in a box [-limit, limit]^n, with the one-fifth rule (Rechenberg 1973).

    Tries first nothing (all 0), then the mean (all 1/n), then, if there are at least three times as many tries, each
    coordinate alone at 1; from the best of them it takes normal steps, which grow by 1.5 after a success and shrink by
    the fourth root of that after a failure.
    """

    n: int
    n_tries: int
    limit: float
    seed: int
    best: tuple[float, Point] = field(init=False, default=(np.inf, ()))

    def __post_init__(self) -> None:
        self._generator = np.random.default_rng(self.seed)
        self._step = self.limit / 5
        alone = np.eye(self.n) if self.n_tries >= 3 * self.n else np.empty((0, self.n))
        first = np.concatenate([np.zeros((1, self.n)), np.full((1, self.n), 1 / self.n), alone])
        self._queue = [tuple(map(float, row)) for row in np.clip(first, -self.limit, self.limit)]
        self._asked: Point = ()

    def ask(self) -> Point:
        """Give the next point to try."""
        self._is_step = not self._queue
        if self._queue:
            self._asked = self._queue.pop(0)
        else:
            moved = np.asarray(self.best[1]) + self._step * self._generator.standard_normal(self.n)
            self._asked = tuple(map(float, np.clip(moved, -self.limit, self.limit)))
        return self._asked

    def tell(self, loss: float) -> None:
        """Hear the loss of the point that was asked for last."""
        is_better = loss < self.best[0]
        if is_better:
            self.best = (loss, self._asked)
        if self._is_step:
            self._step *= 1.5 if is_better else 1.5**-0.25


def require_nevergrad() -> None:
    """Raise E-EXTRA unless nevergrad is here."""
    require_extra("lorahub", "search=nevergrad")


class Nevergrad:
    """Nevergrad's NGOpt in the same box, from 0: what LoraHub's authors use."""

    def __init__(self, n: int, n_tries: int, limit: float, seed: int) -> None:
        require_nevergrad()
        import nevergrad

        box = nevergrad.p.Array(init=np.zeros(n)).set_bounds(-limit, limit)
        box.random_state.seed(seed)
        self._optimizer: Any = nevergrad.optimizers.NGOpt(parametrization=box, budget=n_tries)
        self._asked: Any = None

    def ask(self) -> Point:
        """Give the next point to try."""
        self._asked = self._optimizer.ask()
        return tuple(map(float, self._asked.value))

    def tell(self, loss: float) -> None:
        """Hear the loss of the point that was asked for last."""
        self._optimizer.tell(self._asked, loss)


def replay(search: Search, losses: Sequence[float]) -> list[Point]:
    """Tell a fresh search the losses that it was told before; give the points that it asked for."""
    points = []
    for loss in losses:
        points.append(search.ask())
        search.tell(loss)
    return points
