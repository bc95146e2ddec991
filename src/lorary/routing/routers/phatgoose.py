"""Per token and layer, the experts whose own gates were trained to open."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from lorary.adapters.contract import Experts, Site
from lorary.errors import RoutingError
from lorary.routing.contract import Gate, Probe, State
from lorary.routing.members import stack_members
from lorary.routing.scored import ScoredGate, ScoredRouter, standardised, standardised_dot


@dataclass(frozen=True)
class PhatgooseRouter(ScoredRouter):
    """Send each token to the experts whose gates fit it best; for libraries of the builder phatgoose.

    Score g_i . h / sqrt(d_in), with the gate g_i and the hidden state h each standardised: mean 0, variance 1 over
    their d_in entries. In float32; keep the top_k (none: all); softmax over the kept at `temperature`. The authors
    mix outputs.
    Raises E-LEARNED for an expert without gates under learned/.
    Source: Muqeeth et al. 2024 (2402.05859): two experts a token.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"learned"})

    top_k: int | None = 2
    """Experts kept at each token; None: all."""
    temperature: float = 1.0
    """Temperature of the softmax over the kept."""

    def fit(self, experts: Experts, sites: Mapping[str, Site], probe: Probe | None) -> State:
        """Fetch every expert's gates and standardise them."""
        gates = {name: probe.learned("phatgoose", name) if probe else None for name in sorted(experts)}
        state: State = {}
        for site in sites.values():
            found = {
                i: standardised(_checked(gates[name], name, site))
                for i, name in enumerate(sorted(experts))
                if site.name in experts[name]
            }
            state |= stack_members(site.name, found)
        return state

    def gate(self, site: Site, state: State, names: Sequence[str]) -> Gate:
        """Make the gate of one site from all experts' own."""
        return ScoredGate(
            standardised_dot, site, state, n_experts=len(names), top_k=self.top_k, temperature=self.temperature
        )


def _checked(gates: State | None, expert: str, site: Site) -> Tensor:
    if gates is None:
        hint = "Build a library of this one with --method phatgoose --from it, and route that."
        raise RoutingError("E-LEARNED", f"expert {expert!r} has no gates in this library.", hint)
    vector = gates.get(site.name, torch.zeros(0))
    is_one = vector.is_floating_point() and vector.shape == (site.d_in,)
    if not is_one or not bool(vector.isfinite().all()):
        raise RoutingError(
            "E-LEARNED",
            f"the gate of expert {expert!r} at {site.name!r} is {tuple(vector.shape)}, expected {site.d_in} finite "
            "numbers.",
            "The file is damaged: build the library again.",
        )
    return vector.float()
