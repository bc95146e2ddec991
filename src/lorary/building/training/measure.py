"""What the loss of several rows is: the mean over all their tokens, or of the rows' own means.

By tokens a long answer counts more than a short one; by examples each counts as one, which is what evaluation reports.
"""

from typing import Literal

from torch import Tensor

from lorary.model.text.tokens import Encoded

Measure = Literal["tokens", "examples"]


def count(row: Encoded, measure: Measure) -> int:
    """Say how much a row counts in a mean."""
    return len(row.completion) if measure == "tokens" else 1


def addends(losses: Tensor, n_tokens: Tensor, measure: Measure) -> Tensor:
    """Make of the rows' losses in nats (B,) what they add to a sum that their counts divide."""
    return losses if measure == "tokens" else losses / n_tokens.clamp(min=1)
