"""Experts weighted by how much they change."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

import lorary as lo


@dataclass(frozen=True)
class BySize(lo.Router):
    """Weigh experts by how much they change at a site.

    Weight of expert i: |s B_i A_i|^power, the Frobenius norm, over the sum of all; the same at every token.
    """

    power: float = 1.0

    def fit(self, experts: lo.Experts, sites: Mapping[str, lo.Site], probe: lo.Probe | None) -> lo.State:
        """Measure every expert at every site; one that has no weights there has size 0."""
        names = sorted(experts)
        return {site: torch.stack([_size(experts[name].get(site)) for name in names]) for site in sites}  # (E,)

    def gate(self, site: lo.Site, state: lo.State, names: Sequence[str]) -> lo.Gate:
        """Make a gate that gives every token the same weights."""
        powers = state[site.name].pow(self.power)  # (E,)
        total = powers.sum()
        return _Fixed(powers / total if total > 0 else torch.full_like(powers, 1 / len(names)))


def _size(weights: lo.Weights | None) -> Tensor:
    return torch.zeros(()) if weights is None else weights.delta().norm()


class _Fixed(lo.Gate):
    weights: Tensor

    def __init__(self, weights: Tensor) -> None:
        super().__init__()
        self.register_buffer("weights", weights[None, None, None], persistent=False)  # (1, 1, 1, E)

    def forward(self, h: Tensor, context: lo.Context) -> lo.Routing:
        return lo.Routing(self.weights)
