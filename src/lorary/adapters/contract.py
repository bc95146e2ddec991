"""Site, Weights, Bank, Kind: the four words of an adapted layer.

Shape letters: B batch, T time, E experts, k kept, r rank, R sum of ranks at a site.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

Mix = Literal["factors", "outputs"]


@dataclass(frozen=True, order=True)
class Site:
    """Where an adapter sits: one linear layer of the base, by module path."""

    name: str
    d_in: int
    d_out: int


class Weights(ABC):
    """One expert at one site; immutable."""

    d_in: int
    d_out: int

    @property
    @abstractmethod
    def rank(self) -> int:
        """Number of rows of the input-side factor."""

    @abstractmethod
    def delta(self) -> Tensor:
        """Compute what the expert adds to the base weight, (d_out, d_in), scale included."""

    @abstractmethod
    def factors(self) -> tuple[Tensor, Tensor]:
        """Give the input-side factor (r, d_in) and the output-side factor (d_out, r), scale included in the latter."""


Experts = Mapping[str, Mapping[str, Weights]]
"""Expert name -> site name -> weights; names sorted."""


class Bank(nn.Module, ABC):
    """All experts' weights at one site, packed; expert i of a routing is the i-th of the list it was packed from."""

    n_experts: int

    @abstractmethod
    def cast(self, dtype: torch.dtype) -> "Bank":
        """Store the weights in the dtype the base computes in."""

    def tune(self, n_kept: int | None) -> None:
        """Get ready for routings that keep n_kept experts per token (None: all); changes the rounding at most."""

    @abstractmethod
    def forward(self, x: Tensor, y: Tensor, weights: Tensor, experts: Tensor | None, mix: Mix) -> Tensor:
        """Add what the weighted experts make of x (B, T, d_in) to y (B, T, d_out)."""


@dataclass(frozen=True)
class Kind(ABC):
    """Options of fresh experts of one form."""

    @abstractmethod
    def fresh(self, site: Site, generator: torch.Generator) -> Weights:
        """Make weights for one site that change nothing yet."""

    @abstractmethod
    def pack(self, weights: Sequence[Weights | None], site: Site) -> Bank:
        """Pack the experts of one site; None stands for an expert that has no weights here."""

    @abstractmethod
    def peft_config(self, sites: Sequence[str]) -> dict[str, object]:
        """Write these options as PEFT's adapter_config.json has them."""
