"""Who spoke, in few words: for each token and site the loudest experts, as JSON holds them."""

from dataclasses import dataclass, field

from torch import Tensor

MOST_WEIGHTS = 200_000
"""Weights that are told in full, for one request or one text."""
_MOST_EXPERTS = 8
DIGITS = 6


@dataclass(eq=False)
class ToldWeights:
    """The weights of a text's tokens, in turn. room: how many of them are kept; from the first that finds none, none.

    rows: for each token and site the pairs of an expert's number and its weight, the largest first.
    """

    room: int = MOST_WEIGHTS
    rows: list[list[list[tuple[int, float]]]] = field(default_factory=list)
    is_full: bool = False

    def add(self, weights: Tensor) -> bool:
        """Take in the next token's weights (L, E); give whether they are kept."""
        if self.is_full:
            return False
        experts = weights.abs().topk(min(_MOST_EXPERTS, weights.shape[1])).indices
        values = weights.gather(1, experts)
        told = [
            [(i, round(value, DIGITS)) for i, value in zip(*pair, strict=True) if value]
            for pair in zip(experts.tolist(), values.tolist(), strict=True)
        ]
        self.room -= sum(map(len, told))
        self.is_full = self.room < 0  # so that what is told is the text's beginning, without gaps
        if not self.is_full:
            self.rows.append(told)
        return not self.is_full
