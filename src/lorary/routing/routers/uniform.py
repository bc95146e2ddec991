"""All experts, equally loud."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lorary.adapters.contract import Experts, Site
from lorary.routing.contract import Context, Gate, Probe, Router, Routing, State


@dataclass(frozen=True)
class Uniform(Router):
    """Give every expert of the library the same weight, 1 / |L|, at every token (the paper's mu).

    An expert without weights at a site adds nothing there and still counts in |L|, as in a mean of the updates.
    Source: Ostapenko et al. 2024 (2405.11157) section 4.
    """

    def fit(self, experts: Experts, sites: Mapping[str, Site], probe: Probe | None) -> State:
        """Learn nothing."""
        return {}

    def gate(self, site: Site, state: State, names: Sequence[str]) -> Gate:
        """Make a gate that answers 1 / |L|."""
        return _UniformGate(len(names))


class _UniformGate(Gate):
    weights: Tensor

    def __init__(self, n_experts: int) -> None:
        super().__init__()
        self.register_buffer("weights", torch.full((1, 1, 1, n_experts), 1 / n_experts), persistent=False)

    def forward(self, h: Tensor, context: Context) -> Routing:
        return Routing(self.weights)
