"""A few experts that all tasks share, each task with its own mixture of them."""

from dataclasses import dataclass

from lorary.building.training.mixture import FreshMixture


@dataclass(frozen=True, kw_only=True)
class Poly(FreshMixture):
    """Train a few latent LoRAs jointly with a matrix that says how much of each a task takes, per layer.

    The router `poly` mixes them for the tasks that were trained; `uniform` is Poly-mu. `steps` None = `epochs` over the
    union of all tasks.
    Source: Ponti et al. 2023 (2202.13914); Ostapenko et al. 2024 (2405.11157) section 3: 8 skills.
    Differs: no epsilon in the normalisation.
    """
