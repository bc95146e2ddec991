"""What the studies of all libraries and routers have in common."""

from dataclasses import dataclass, replace
from typing import Self

from lorary.building.limits import check_positive
from lorary.studies.comparing.rows import OF_LIBRARY
from lorary.studies.comparing.stock import StockStudy


@dataclass(frozen=True, kw_only=True)
class ComparedStudy(StockStudy):
    """A study that compares libraries under routers; not all of them need to be repeated with every seed."""

    libraries: tuple[str, ...] = tuple(OF_LIBRARY)
    """The libraries to compare; full is the base with all its weights trained."""
    again: tuple[str, ...] = ()
    """Those of them to repeat with further seeds; none named: all."""
    n_fit: int = 24
    """Training prompts of each task for the routers that need data."""
    max_new_tokens: int = 64
    """Longest answer."""

    def __post_init__(self) -> None:
        """Refuse options that have no meaning."""
        super().__post_init__()
        check_positive(self, "n_fit", "max_new_tokens")

    def repeat(self, seed: int) -> Self:
        """Give the study with a further seed, of the libraries that are repeated."""
        repeated = tuple(name for name in self.libraries if name in self.again)
        return replace(self, seed=seed, libraries=repeated or self.libraries)
