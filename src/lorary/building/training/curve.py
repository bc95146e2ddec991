"""Losses of one pupil's training."""

import math
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Curve:
    """Losses in nats per completion token, one row of metrics per step, and of which step the weights are kept.

    best_loss: their validation loss; lowest: the lowest of all, and n_worse: validations since it. Apart from training
    that keeps the last weights the two are one. diverged: why it ended before its time, with a loss that is no number.
    """

    best_loss: float = math.inf
    lowest: float = math.inf
    best_step: int = 0
    n_worse: int = 0
    diverged: str = ""
    rows: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Take up a curve from before `lowest` was noted: the best were kept then."""
        self.lowest = min(self.lowest, self.best_loss)
