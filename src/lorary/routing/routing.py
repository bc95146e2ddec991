"""Routing: what a gate answers."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lorary.adapters.contract import Mix


@dataclass(frozen=True)
class Routing:
    """Which experts are mixed, and with what weights.

    weights: (B, T, S, k), any of B, T, S may be 1 = shared by all.
    experts: (B, T, k) indices into the library's names; None = all experts, in order.
    strength: (B, T, 1, 1), how many times the mixture's answer counts, whichever the mix; None = once.
    """

    weights: Tensor
    experts: Tensor | None = None
    strength: Tensor | None = None

    def weights_for(self, mix: Mix) -> Tensor:
        """Give the weights (B, T, S, k) by which experts combine; those of "factors" are multiplied in twice."""
        if self.strength is None:
            return self.weights
        return self.weights * (self.strength.sqrt() if mix == "factors" else self.strength)

    @property
    def n_tokens(self) -> int:
        """T, as far as tokens are routed apart."""
        return self.weights.shape[1]

    def changed(self, change: Callable[[Tensor], Tensor]) -> "Routing":
        """Change all parts alike, as by choosing rows."""
        experts, strength = (part if part is None else change(part) for part in (self.experts, self.strength))
        return Routing(change(self.weights), experts, strength)

    def among(self, allowed: Tensor) -> "Routing":
        """Give each token's experts outside `allowed` (B, T, E) nothing, and the others theirs, in proportion.

        A token none of whose experts is allowed is left to the base alone.
        """
        weights = over_all(self, allowed.shape[-1])
        left = weights * allowed.unsqueeze(2)
        before, after = weights.sum(-1, keepdim=True), left.sum(-1, keepdim=True)
        return Routing(left * (before / after).where(after > 0, 0.0), None, self.strength)

    def spread(self, n_rows: int, n_tokens: int) -> "Routing":
        """Give each of so many tokens of each row a routing of its own."""
        return self.changed(lambda part: part.expand(n_rows, n_tokens, *part.shape[2:]))

    def followed_by(self, other: "Routing") -> "Routing":
        """Join the routings of more tokens of the same rows, by the same gate and spread."""
        return Routing(
            torch.cat([self.weights, other.weights], 1),
            joined(self.experts, other.experts),
            joined(self.strength, other.strength),
        )

    def beside(self, other: "Routing") -> "Routing":
        """Put the routings of other rows behind these; the shorter ones are padded on the left with nothing."""
        width = max(self.n_tokens, other.n_tokens)
        one, two = (r.changed(lambda part: _from_left(part, width)) for r in (self, other))
        return Routing(
            torch.cat([one.weights, two.weights]),
            joined(one.experts, two.experts, 0),
            joined(one.strength, two.strength, 0),
        )


def over_all(routing: Routing, n_experts: int) -> Tensor:
    """Spread a routing's weights over all experts: (B, T, S, E), any of B, T, S may be 1."""
    if routing.experts is None:
        return routing.weights
    index = routing.experts.unsqueeze(2)
    shape = torch.broadcast_shapes(index.shape, routing.weights.shape)
    nothing = routing.weights.new_zeros(*shape[:3], n_experts)
    return nothing.scatter(-1, index.expand(shape), routing.weights.expand(shape))


def _from_left(part: Tensor, width: int) -> Tensor:
    return torch.cat([part.new_zeros(len(part), width - part.shape[1], *part.shape[2:]), part], 1)


def joined(one: Tensor | None, other: Tensor | None, dim: int = 1) -> Tensor | None:
    """Put two parts one behind the other, along an axis; None where there are none."""
    return None if one is None or other is None else torch.cat([one, other], dim)
