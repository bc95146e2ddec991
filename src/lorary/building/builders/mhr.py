"""A few experts that all tasks share, each task with its own mixture of their blocks."""

from dataclasses import dataclass
from typing import ClassVar

from lorary.building.limits import check_positive
from lorary.building.training.mixture import FreshMixture


@dataclass(frozen=True, kw_only=True)
class MHR(FreshMixture):
    """Train a few latent LoRAs jointly with matrices that say how much of each block of them a task takes.

    As Poly, but the d_in axis of A and the d_out axis of B are cut into n_heads blocks, each with weights of its own.
    The router `mhr` mixes them for the tasks that were trained; `uniform` is MHR-mu.
    Source: Caccia et al. 2023 (2211.03831); Ostapenko et al. 2024 (2405.11157) section 3: 8 skills. How many heads it
    used isn't known; 8 divides the widths of most models.
    """

    left: ClassVar[str] = "mhr"

    n_heads: int = 8
    """Blocks that each side of an expert is cut into."""

    def __post_init__(self) -> None:
        """Refuse options that have no meaning."""
        super().__post_init__()
        check_positive(self, "n_heads")

    @property
    def n_blocks(self) -> int:
        """The heads."""
        return self.n_heads
