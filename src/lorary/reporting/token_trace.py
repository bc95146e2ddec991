"""Who spoke at each token, in numbers, for figures."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lorary.errors import EvaluationError


@dataclass(frozen=True, eq=False)
class TokenTrace:
    """One text with the routing weights of its tokens.

    `tokens`: T pieces of text, white space included. `names`: E experts. `weights` (T, E): averaged over sites.
    `by_site` (L, T, E), with the L names `sites`: the same for each site or layer.
    Raises E-REPORT if the sizes don't agree, and for weights that aren't finite.
    """

    tokens: tuple[str, ...]
    names: tuple[str, ...]
    weights: NDArray[np.floating[Any]]
    title: str = ""
    sites: tuple[str, ...] = ()
    by_site: NDArray[np.floating[Any]] | None = None

    def __post_init__(self) -> None:
        """Look at sizes and numbers."""
        wanted: tuple[int, ...] = (len(self.tokens), len(self.names))
        if 0 in wanted or self.weights.shape != wanted:
            self._refuse("weights", self.weights.shape, wanted)
        if self.by_site is not None and self.by_site.shape != (len(self.sites), *wanted):
            self._refuse("by_site", self.by_site.shape, (len(self.sites), *wanted))
        for field in ("weights", "by_site"):
            if (given := getattr(self, field)) is not None and not np.isfinite(given).all():
                message = f"trace {self.title!r}: {field} holds NaN or infinity, expected finite numbers."
                raise EvaluationError("E-REPORT", message)

    def _refuse(self, field: str, found: tuple[int, ...], wanted: tuple[int, ...]) -> None:
        letters = "tokens, experts" if len(wanted) == 2 else "sites, tokens, experts"
        message = f"trace {self.title!r}: {field} has shape {found}, expected {wanted} ({letters})."
        raise EvaluationError("E-REPORT", message, "An empty text has no trace." if 0 in wanted else "")
