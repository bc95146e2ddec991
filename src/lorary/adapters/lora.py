"""The form of an adapter: LoRA or rsLoRA."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from lorary.adapters.contract import Site, Weights
from lorary.errors import OptionError

Init = Literal["peft", "paper"]
"""How A starts: uniform in ±1/sqrt(d_in) as in PEFT, or in ±1/sqrt(3 d_in) as in the code of 2405.11157."""


@dataclass(frozen=True)
class LoRA:
    """Add a product of two thin matrices, scaled by alpha / rank (rsLoRA: alpha / sqrt(rank)).

    Input-side factor A (r, d_in) starts uniform in ±1/sqrt(d_in), output-side factor B (d_out, r) at zero.
    Source: Hu et al. 2021 (2106.09685); Kalajdzievski 2023 (2312.03732) for rsLoRA.
    Differs: Hu et al. draw A from a normal distribution; the bound is that of PEFT.
    """

    rank: int = 4
    """Rank of the adapter."""
    alpha: float = 16.0
    """The adapter's scale is alpha / rank."""
    rslora: bool = False
    """Scale by alpha / sqrt(rank) instead."""

    def __post_init__(self) -> None:
        """Refuse a rank below 1 and an alpha that isn't above 0. Raises E-OPTION."""
        for name, value in (("rank", self.rank), ("alpha", self.alpha)):
            if not value > 0:
                raise OptionError("E-OPTION", f"LoRA: {name}={value}, expected more than 0.")

    @property
    def scale(self) -> float:
        """The number that multiplies B A."""
        return self.alpha / (math.sqrt(self.rank) if self.rslora else self.rank)

    def fresh(self, site: Site, generator: torch.Generator, init: Init = "peft") -> Weights:
        """Draw A from the generator, set B to zero."""
        bound = 1 / math.sqrt(site.d_in if init == "peft" else 3 * site.d_in)
        a = torch.empty(self.rank, site.d_in, dtype=torch.float32).uniform_(-bound, bound, generator=generator)
        return Weights(a, torch.zeros(site.d_out, self.rank), self.scale)

    def peft_config(self, sites: Sequence[str]) -> dict[str, object]:
        """Write the fields by which PEFT finds rank, scale and places again."""
        return {
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "r": self.rank,
            "lora_alpha": self.alpha,
            "use_rslora": self.rslora,
            "target_modules": sorted(sites),
            "lora_dropout": 0.0,
            "bias": "none",
            "fan_in_fan_out": False,
            "inference_mode": True,
            "init_lora_weights": True,
        }
