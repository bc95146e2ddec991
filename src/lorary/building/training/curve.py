"""How one pupil's training went."""

import math
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Curve:
    """Losses in nats per completion token, one row of metrics per step, and where the best validation was.

    n_worse: validations since the best one. diverged: why it ended before its time, with a loss that is no number.
    """

    best_loss: float = math.inf
    best_step: int = 0
    n_worse: int = 0
    diverged: str = ""
    rows: list[dict[str, Any]] = field(default_factory=list)
