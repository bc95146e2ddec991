"""Per token and layer, the experts that a softmax over all of them was trained to choose."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from lorary.adapters.contract import Experts, Site
from lorary.errors import OptionError, RoutingError
from lorary.routing.contract import Gate, Probe, Router, State
from lorary.routing.members import members_at, stack_members
from lorary.routing.softmax_gate import TOP_K, SharesGate, row_name


@dataclass(frozen=True)
class SwitchRouter(Router):
    """Send each token to the experts with the largest shares of a softmax that was trained over all of them.

    p = softmax(W h), W (E, d_in) at each layer; the `top_k` best speak, each with its share p_i, in float32. What the
    others would have is nobody's, as in training, so that a token may leave the base almost as it is. For libraries of
    the builder switch, which keeps W under learned/; choose the mix that it was trained with.
    An expert that leaves takes its row along. One that joins has none: the gates must be trained anew.
    Raises E-LEARNED for experts without such gates.
    Source: Fedus et al. 2021 (2101.03961) for one expert a token, each answer times its share; Shazeer et al. 2017
    (1701.06538) for several; the code of Ostapenko et al. 2024 (2405.11157) has a like router, moe_rkhs.
    Differs: no noise on the scores, no limit to an expert's tokens; W is one matrix, not a product of two.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"learned"})

    top_k: int | Literal["trained"] | None = "trained"
    """Experts kept at each token; trained: as many as in training; None: all."""

    def __post_init__(self) -> None:
        """Refuse options that have no meaning."""
        super().__post_init__()
        if isinstance(self.top_k, int) and self.top_k < 1:
            raise OptionError("E-OPTION", f"switch: top_k={self.top_k}, expected 1 or more.")

    def fit(self, experts: Experts, sites: Mapping[str, Site], probe: Probe | None) -> State:
        """Fetch the rows of all experts."""
        learned = probe.learned("switch") if probe is not None else None
        if learned is None:
            hint = "Build a library of this one with --method switch --from it, and route that."
            raise RoutingError("E-LEARNED", "these experts have no gates that were trained with all of them.", hint)
        names = sorted(experts)
        state: State = {TOP_K: torch.tensor([_trained_top_k(learned)])}
        for site in sites.values():
            rows = {i: _row(learned, name, site) for i, name in enumerate(names) if site.name in experts[name]}
            state |= stack_members(site.name, rows)
        return state

    def gate(self, site: Site, state: State, names: Sequence[str]) -> Gate:
        """Make the gate of one site from all experts' rows."""
        vectors, members, _ = members_at(state, site, len(names))
        top_k = (_trained_top_k(state) or None) if self.top_k == "trained" else self.top_k
        return SharesGate(vectors, members, n_experts=len(names), top_k=top_k)


def _trained_top_k(state: State) -> int:
    """Read how many experts were kept in training; 0: all."""
    found = state.get(TOP_K, torch.zeros(0))
    if found.dtype != torch.long or found.shape != (1,) or found.item() < 0:
        raise _damaged(f"{TOP_K} of the gates is {tuple(found.shape)}, expected one whole number")
    return int(found.item())


def _row(learned: State, expert: str, site: Site) -> Tensor:
    row = learned.get(row_name(expert, site.name), torch.zeros(0))
    if not row.is_floating_point() or row.shape != (site.d_in,) or not bool(row.isfinite().all()):
        what = f"the row of expert {expert!r} at {site.name!r} is {tuple(row.shape)}"
        raise _damaged(f"{what}, expected {site.d_in} finite numbers")
    return row.float()


def _damaged(what: str) -> RoutingError:
    hint = "The file is damaged, or not of these experts: build the library again."
    return RoutingError("E-LEARNED", f"{what}.", hint)
