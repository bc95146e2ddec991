"""Per token and layer, the experts whose whole update is longest."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lorary.adapters.contract import Experts, Site, Weights
from lorary.hashing import SKIP_DEFAULT
from lorary.routing.contract import Gate, Probe, Router, State
from lorary.routing.directions import right_singular
from lorary.routing.members import stack_members
from lorary.routing.scored import ScoredGate, check_options


@dataclass(frozen=True)
class SpectR(Router):
    """Send each token to the experts that change it most, judged by all their singular directions; needs no data.

    Score |S_i V_i^T h| = |B_i A_i h|, with S_i (r,) the singular values and V_i (d_in, r) the right singular vectors;
    in float32; keep the top_k (None: all); softmax over the kept at `temperature`. Costs r times Arrow's scores.
    scaled=False: |V_i^T h|, the length of what the expert listens to, however strong it is there.
    Source: Fleshman and Van Durme 2025 (2504.03454): the whole spectrum in the place of Arrow's first direction.
    Differs: their public code keeps S_i on the output side, so that it scores by |V_i^T h|, and gives the four best
    equal weights: spectr:scaled=false with a temperature that makes all alike, such as 1e6.
    """

    top_k: int | None = 4
    """Experts kept at each token; None: all."""
    temperature: float = 1.0
    """Temperature of the softmax over the kept."""
    scaled: bool = field(default=True, metadata=SKIP_DEFAULT)
    """Weigh each direction by its singular value, as the update does."""

    def __post_init__(self) -> None:
        """Refuse options that have no meaning."""
        super().__post_init__()
        check_options(self)

    def fit(self, experts: Experts, sites: Mapping[str, Site], probe: Probe | None) -> State:
        """Compute the scaled directions of every site, shorter spectra padded with zeros."""
        state: State = {}
        for site in sites:
            spectra = {i: self._spectrum(experts[n][site]) for i, n in enumerate(sorted(experts)) if site in experts[n]}
            spectra = {index: rows for index, rows in spectra.items() if rows.any()}
            rank = max((len(rows) for rows in spectra.values()), default=0)
            padded = {i: torch.nn.functional.pad(rows, (0, 0, 0, rank - len(rows))) for i, rows in spectra.items()}
            state |= stack_members(site, padded)
        return state

    def _spectrum(self, weights: Weights) -> Tensor:
        directions, values = right_singular(weights)
        return directions * (values if self.scaled else (values > 0).float()).unsqueeze(1)  # (r, d_in)

    def gate(self, site: Site, state: State, names: Sequence[str]) -> Gate:
        """Make the gate of one site from its directions."""
        return ScoredGate(
            _length,
            site,
            state,
            n_experts=len(names),
            top_k=self.top_k,
            temperature=self.temperature,
            n_axes=3,
        )


def _length(h: Tensor, spectra: Tensor) -> Tensor:
    products = torch.matmul(h.float(), spectra.flatten(0, 1).T)  # (B, T, P * r)
    lengths: Tensor = torch.linalg.vector_norm(products.unflatten(-1, spectra.shape[:2]), dim=-1)
    return lengths  # (B, T, P)
