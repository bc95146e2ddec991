"""Any router's choice, with no expert above a share, and a share of its own for the base."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lorary.adapters.contract import Site
from lorary.options import refuse_value
from lorary.routing.contract import Context, Gate, Router, Routing, State
from lorary.routing.nested import OuterRouter, state_of
from lorary.routing.routers.arrow import Arrow

_ARROW = Arrow()


@dataclass(frozen=True)
class Bounded(OuterRouter):
    """Take another router's weights, cap the share of each expert, and leave a share to the base.

    max_share: at each token and site no expert gets more. rest="others": what is cut off goes to the other experts that
    the router `of` chose, in proportion to their weights, however small, up to the bound: w_i = min(max_share, c u_i),
    u its weights and c such that sum w = 1; where that can't be, since k experts with weights can't take more than
    k max_share together, the rest is left to the base. rest="base": all of it is, w_i = min(max_share, u_i).
    base: the mixture's answer counts (1 - base) times, whichever the mix, on top of the strength that `of` gives it; so
    the base alone decides as much of every layer as if it were an expert with that share, which changes nothing.
    With both as they are by default, it is `of`, to the bit. Needs what `of` needs.
    A cap bounds what one expert can do to a token, hostile or right: `max_share` of `lo.route` leaves out experts that
    take too much of any text instead (decision 16), and both can be had.
    Cost: a sort of the kept weights at each token and site; no scores and no state of its own.
    Source: ours.
    """

    of: Router = _ARROW
    """The router whose weights are bounded."""
    max_share: float = 1.0
    """The most that one expert gets of a token; 1: no bound."""
    rest: Literal["others", "base"] = "others"
    """Who gets what is cut off: the other experts that were chosen, or the base."""
    base: float = 0.0
    """The share that is left to the base at every token."""

    def __post_init__(self) -> None:
        """Refuse options that have no meaning."""
        super().__post_init__()
        if not 0 < self.max_share <= 1:
            refuse_value(self, "max_share", "a number above 0, at most 1")
        if not 0 <= self.base < 1:
            refuse_value(self, "base", "a number from 0 to below 1")

    @property
    def inner(self) -> tuple[Router, ...]:
        """The one router."""
        return (self.of,)

    def gate(self, site: Site, state: State, names: Sequence[str]) -> Gate:
        """Make the gate of the router within, and bound what it gives."""
        return _BoundedGate(self.of.gate(site, state_of(state, 0), names), self)

    def instant_gate(self, site: Site, state: State, names: Sequence[str]) -> Gate:
        """Make the gate within that judges each token by itself, and bound what it gives."""
        return _BoundedGate(self.of.instant_gate(site, state_of(state, 0), names), self)


class _BoundedGate(Gate):
    def __init__(self, of: Gate, options: Bounded) -> None:
        super().__init__()
        self.of, self.options = of, options
        if isinstance(members := getattr(of, "members", None), Tensor):
            self.register_buffer("members", members, persistent=False)  # (P,)

    @property
    def keeps_evidence(self) -> bool:  # type: ignore[override]
        """True if the gate within does."""
        return self.of.keeps_evidence

    @property
    def n_chosen(self) -> int | None:
        """The number that the gate within keeps."""
        return self.of.n_chosen

    def forward(self, h: Tensor, context: Context) -> Routing:
        return self._bounded(self.of(h, context))

    def among(self, h: Tensor, context: Context, allowed: Tensor) -> Routing:
        return self._bounded(self.of.among(h, context, allowed))

    def _bounded(self, routing: Routing) -> Routing:
        weights, options = routing.weights, self.options
        share = weights.new_full((1, 1, 1, 1), 1 - options.base)
        if options.max_share < 1:
            weights, taken = _capped(weights, options.max_share, shared_out=options.rest == "others")
            share = share * taken
        elif not options.base:
            return routing
        strength = share if routing.strength is None else routing.strength * share
        return Routing(weights, routing.experts, strength)


def _capped(weights: Tensor, bound: float, *, shared_out: bool) -> tuple[Tensor, Tensor]:
    """Cap shares (B, T, S, k): the shares of what is left, as many, and how much that is of all, (B, T, 1, 1).

    shared_out: what is cut off is shared out among the others. Blocks (S > 1) take the mean of what is left.
    """
    total = weights.sum(-1, keepdim=True)
    shares = (weights / total).where(total > 0, 0.0)
    capped = (shares * _scale(shares, bound) if shared_out else shares).clamp(max=bound)
    taken = capped.sum(-1, keepdim=True)
    left = (capped / taken).where(taken > 0, 0.0) * total
    return left, taken.clamp(max=1).mean(2, keepdim=True).where(total.mean(2, keepdim=True) > 0, 1.0)


def _scale(shares: Tensor, bound: float) -> Tensor:
    """Find c (B, T, S, 1).

    With the shares in falling order, the first j are at the bound and the others c times theirs, c = (1 - j bound) /
    (their sum); j is the smallest for which none of them is above it.
    """
    ordered = shares.sort(-1, descending=True)[0]
    places = torch.arange(shares.shape[-1], device=shares.device)
    rest = ordered.flip(-1).cumsum(-1).flip(-1)  # (..., k): the sum from each place on
    scale = ((1 - places * bound) / rest.clamp(min=_NOTHING)).clamp(min=0)  # (..., k), if so many are at the bound
    fits = ordered * scale <= bound * (1 + _ROUNDING)
    first = fits.int().argmax(-1, keepdim=True)  # the smallest number at the bound; 0 if none fits
    found: Tensor = scale.gather(-1, first).where(fits.any(-1, keepdim=True), _MANY)
    return found


_NOTHING, _ROUNDING, _MANY = 1e-30, 1e-6, 1e30
