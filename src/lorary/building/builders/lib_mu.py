"""New tasks, from the mean of a library."""

from collections.abc import Sequence
from dataclasses import dataclass

from lorary.building.training.adaptation import AdaptedBuilder
from lorary.library.library import Library


@dataclass(frozen=True, kw_only=True)
class LibMu(AdaptedBuilder):
    """Train one LoRA per new task, starting from the mean of a library's factors, A and B apart.

    Before the first step it is what the router `uniform` with mix="factors" makes of the library.
    Source: Ostapenko et al. 2024 (2405.11157) section 4, "<library>-mu".
    """

    def chosen(self, library: Library) -> Sequence[str]:
        """Take all experts."""
        return sorted(library)
