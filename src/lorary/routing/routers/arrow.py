"""Per token and layer, the experts whose update listens to the hidden state."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lorary.adapters.contract import Experts, Site
from lorary.adapters.tied import tied_groups
from lorary.hashing import SKIP_DEFAULT
from lorary.routing.contract import Gate, Probe, State
from lorary.routing.directions import group_prototypes
from lorary.routing.members import stack_members
from lorary.routing.scored import ScoredGate, ScoredRouter


@dataclass(frozen=True)
class Arrow(ScoredRouter):
    """Send each token to the experts that would change it most; needs no data and no training.

    Prototype v_i (d_in,): first right singular vector of B_i A_i, computed from the factors alone.
    Logits |v_i · h| in float32, neither h nor v rescaled; keep the top_k (ties: the lower index; None:
    all); softmax over the kept at `temperature`. top_k is clamped to the experts present at the site; experts that
    change nothing are left out. The sign of v_i is irrelevant. Reads no data, changes no expert.
    Layers that `tie` names, such as a module's q_proj, k_proj and v_proj, are taken for the one layer that gives all
    their outputs: v_i is the first right singular vector of their B_i A_i, one below the other, and the three choose
    the same experts. A layer that is one already, as Phi-2's Wqkv, needs no tie.
    Source: Ostapenko et al. 2024 (2405.11157) Algorithm 2; k = 4 and temperature 1 are the paper's, whose Phi-2 ties
    q, k and v (tie_op="concat" in its code) and whose Mistral doesn't.
    Differs: its code ties experts alone whose A is one for the tied layers; here others, too.
    """

    top_k: int | None = 4
    """Experts kept at each token; None: all."""
    temperature: float = 1.0
    """Temperature of the softmax over the kept."""
    tie: tuple[str, ...] = field(default=(), metadata=SKIP_DEFAULT)
    """Layers of one module, by the last parts of their paths, that are routed as one."""

    def fit(self, experts: Experts, sites: Mapping[str, Site], probe: Probe | None) -> State:
        """Compute the prototypes of every site."""
        state: State = {}
        for site, vectors in group_prototypes(experts, tied_groups(sites, self.tie)).items():
            state |= stack_members(site, vectors)
        return state

    def gate(self, site: Site, state: State, names: Sequence[str]) -> Gate:
        """Make the gate of one site from its prototypes."""
        return ScoredGate(
            _abs_dot,
            site,
            state,
            n_experts=len(names),
            top_k=self.top_k,
            temperature=self.temperature,
            never_negative=True,
        )


def _abs_dot(h: Tensor, vectors: Tensor) -> Tensor:
    return torch.nn.functional.linear(h.float(), vectors).abs()  # (B, T, P)
