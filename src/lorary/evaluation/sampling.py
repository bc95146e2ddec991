"""How an answer's tokens are chosen, as plain numbers: what those who ask a model say, and what a decoder does."""

import hashlib
import math
from dataclasses import dataclass, replace

from lorary.errors import OptionError


@dataclass(frozen=True)
class Sampling:
    """Options of sampling. temperature 0 takes the likeliest token; top_k 0 keeps all; the same seed draws the same."""

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int | None = None

    def __post_init__(self) -> None:
        """Refuse what no distribution can be made of. Raises E-OPTION."""
        if not (0.0 <= self.temperature < math.inf):
            raise OptionError("E-OPTION", f"temperature={self.temperature!r}, expected 0 or more.")
        if not 0.0 < self.top_p <= 1.0:
            raise OptionError("E-OPTION", f"top_p={self.top_p!r}, expected a number above 0, at most 1.")
        if self.top_k < 0:
            raise OptionError("E-OPTION", f"top_k={self.top_k!r}, expected 0 or more.")

    def of_row(self, row: int) -> "Sampling":
        """Give the sampling of one of many answers: its seed follows from ours and the row's number."""
        if self.seed is None:
            return self
        digest = hashlib.sha256(f"{self.seed}:{row}".encode()).digest()
        return replace(self, seed=int.from_bytes(digest[:7]))


GREEDY = Sampling()
