"""Who spoke, in few words: for each token and site the loudest experts, as JSON holds them."""

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

MOST_WEIGHTS = 200_000
"""Weights that are told in full, for one request or one text."""
_MOST_EXPERTS = 8
_MOST_EVIDENCE = 32
DIGITS = 6


@dataclass(eq=False)
class ToldWeights:
    """The weights of a text's tokens, in turn. room: how many of them are kept; from the first that finds none, none.

    rows: for each token and site the pairs of an expert's number and its weight, the largest first. evidence: for each
    token such pairs, of a router that keeps some.
    """

    room: int = MOST_WEIGHTS
    rows: list[list[list[tuple[int, float]]]] = field(default_factory=list)
    evidence: list[list[tuple[int, float]]] = field(default_factory=list)
    is_full: bool = False

    def add(self, weights: Tensor, evidence: Tensor | None = None) -> bool:
        """Take in the next token's weights (L, E), and its evidence (E); give whether they are kept."""
        if self.is_full:
            return False
        experts = weights.abs().topk(min(_MOST_EXPERTS, weights.shape[1])).indices
        values = weights.gather(1, experts)
        told = [
            [(i, round(value, DIGITS)) for i, value in zip(*pair, strict=True) if value]
            for pair in zip(experts.tolist(), values.tolist(), strict=True)
        ]
        shown = [] if evidence is None else _largest(evidence)
        self.room -= sum(map(len, told)) + len(shown)
        self.is_full = self.room < 0  # so that what is told is the text's beginning, without gaps
        if not self.is_full:
            self.rows.append(told)
            if shown:
                self.evidence.append(shown)
        return not self.is_full

    def to_json(self) -> dict[str, list[Any]]:
        """Give it as JSON: weights, and evidence where there is some."""
        return {"weights": self.rows, **({"evidence": self.evidence} if self.evidence else {})}


def _largest(evidence: Tensor) -> list[tuple[int, float]]:
    values, experts = evidence.topk(min(_MOST_EVIDENCE, len(evidence)))
    return [(i, round(value, DIGITS)) for i, value in zip(experts.tolist(), values.tolist(), strict=True)]
