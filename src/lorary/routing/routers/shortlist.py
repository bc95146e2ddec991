"""Per token and layer, one router's choice among the experts that another puts on a list."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lorary.adapters.contract import Site
from lorary.errors import OptionError
from lorary.options import check_positive
from lorary.routing.contract import Context, Gate, Router, Routing, State
from lorary.routing.nested import OuterRouter, common_members, state_of
from lorary.routing.routers.arrow import Arrow
from lorary.routing.routers.spectr import SpectR
from lorary.routing.scored import keep_best

_ARROW, _LONGEST = Arrow(), SpectR(top_k=1, scaled=False)


@dataclass(frozen=True)
class Shortlist(OuterRouter):
    """Let one router choose among the experts that another, `of`, finds the best: any router before any other.

    At each token and site, the `n` experts with the largest weights of `of` (ties: the lower index; whom it gives
    nothing is not listed) are all that `then` may use: its scores of the others don't count, neither in its top_k nor
    in its softmax. The top_k of `of` is n, whatever it says. With n experts or fewer in the library this is `then`, to
    the bit. It needs what the two need; both gather evidence about experts that aren't listed, too.
    By default it is LAG: shortlist:of=arrow,then=(spectr:top_k=1,scaled=false),n=20.
    Cost: each token pays the scores of both, for all experts; mixing costs what `then` keeps.
    Raises E-OPTION for two routers that both keep evidence, or that read whole prompts by different encoders.
    Source: Fleshman and Van Durme 2025 (2507.05346): Arrow keeps 20 experts, the longest |V_i^T h| of them answers.
    Differs: it scores only the listed by all their directions, which saves most of that cost; here all are scored.
    """

    of: Router = _ARROW
    """The router that lists experts."""
    then: Router = _LONGEST
    """The router that chooses among the listed."""
    n: int = 20
    """Experts on the list."""

    def __post_init__(self) -> None:
        """Refuse options that have no meaning."""
        super().__post_init__()
        check_positive(self, "n")

    @property
    def inner(self) -> tuple[Router, ...]:
        """The two routers."""
        return self.of, self.then

    def gate(self, site: Site, state: State, names: Sequence[str]) -> Gate:
        """Make both gates of one site, one behind the other."""
        of, then = self._listing.gate(site, state_of(state, 0), names), self.then.gate(site, state_of(state, 1), names)
        if of.keeps_evidence and then.keeps_evidence:
            hint = "Let one of them judge each token alone, such as arrow."
            raise OptionError("E-OPTION", "shortlist: `of` and `then` both gather evidence along the text.", hint)
        return _ShortlistGate(of, then, self.n, len(names))

    def instant_gate(self, site: Site, state: State, names: Sequence[str]) -> Gate:
        """Make both gates of one site, to judge each token by itself."""
        of = self._listing.instant_gate(site, state_of(state, 0), names)
        return _ShortlistGate(of, self.then.instant_gate(site, state_of(state, 1), names), self.n, len(names))

    @property
    def _listing(self) -> Router:
        """The router that lists, keeping as many as are listed."""
        keeps = any(field.name == "top_k" for field in dataclasses.fields(self.of))
        as_many: dict[str, Any] = {"top_k": self.n} if keeps else {}
        return dataclasses.replace(self.of, **as_many)


class _ShortlistGate(Gate):
    def __init__(self, of: Gate, then: Gate, n: int, n_experts: int) -> None:
        super().__init__()
        self.of, self.then, self.n, self.n_experts = of, then, n, n_experts
        self.lists_all = n >= n_experts
        if (members := common_members([then] if self.lists_all else [of, then])) is not None:
            self.register_buffer("members", members, persistent=False)  # (P,)

    @property
    def keeps_evidence(self) -> bool:  # type: ignore[override]
        """True if either does."""
        return self.then.keeps_evidence or (self.of.keeps_evidence and not self.lists_all)

    @property
    def n_chosen(self) -> int | None:
        """The number that the second keeps."""
        return self.then.n_chosen

    def forward(self, h: Tensor, context: Context) -> Routing:
        if self.lists_all:
            alone: Routing = self.then(h, context)
            return alone
        return self.then.among(h, context, self._listed(self.of(h, context)))

    def among(self, h: Tensor, context: Context, allowed: Tensor) -> Routing:
        """List the best of the allowed."""
        if self.lists_all:
            return self.then.among(h, context, allowed)
        return self.then.among(h, context, self._listed(self.of.among(h, context, allowed)) & allowed)

    def _listed(self, routing: Routing) -> Tensor:
        """Say of each expert whether it is listed: (B, T, E), B and T may be 1."""
        if routing.experts is not None:
            nobody = torch.zeros(
                *routing.experts.shape[:2], self.n_experts, dtype=torch.bool, device=routing.experts.device
            )
            return nobody.scatter(-1, routing.experts, value=True)
        weights = routing.weights.mean(2)  # (B, T, E)
        kept, index = keep_best(weights, self.n)
        return torch.zeros_like(weights, dtype=torch.bool).scatter(-1, index, kept > 0)
