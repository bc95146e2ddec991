"""New tasks, from all experts of a library and how to mix them."""

from dataclasses import dataclass

from lorary.building.training.adaptation import LibraryMixture


@dataclass(frozen=True, kw_only=True)
class LibPoly(LibraryMixture):
    """Train all experts of a library on new tasks, jointly with the weights by which each task mixes them, per layer.

    The router `poly` reads the weights. They start almost equal, so that training starts from the library's mean.
    Source: Ostapenko et al. 2024 (2405.11157) section 4, "<library>-Poly", the variant with normalised sigmoids.
    """
