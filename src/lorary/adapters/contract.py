"""Site, Weights, Bank: the three words of an adapted layer.

Shape letters: B batch, T time, E experts, k kept, r rank, R sum of ranks at a site.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
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


@dataclass(frozen=True, eq=False)
class Weights:
    """One expert at one site: scale · B A; immutable.

    a: input-side factor (r, d_in), PEFT's lora_A (the paper's B transposed).
    b: output-side factor (d_out, r), PEFT's lora_B (the paper's A).
    """

    a: Tensor
    b: Tensor
    scale: float

    @property
    def d_in(self) -> int:
        """Width of the input."""
        return self.a.shape[1]

    @property
    def d_out(self) -> int:
        """Width of the output."""
        return self.b.shape[0]

    @property
    def rank(self) -> int:
        """Rows of a."""
        return self.a.shape[0]

    def delta(self) -> Tensor:
        """Compute scale · B A in float32: what the expert adds to the base weight, (d_out, d_in)."""
        return self.scale * (self.b.float() @ self.a.float())

    def factors(self) -> tuple[Tensor, Tensor]:
        """Give a (r, d_in) and scale · b (d_out, r) in float32."""
        return self.a.float(), self.scale * self.b.float()


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
