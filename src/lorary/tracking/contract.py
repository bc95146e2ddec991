"""What a tracker is: options, and a way to show one training. What was shown already isn't shown again."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lorary.options import Options


@dataclass(frozen=True)
class Training:
    """One training that is over. key: tells it from all others of any name, also from an earlier one of this name.

    group: the library, or whatever else it is part of; at: when it ended, in seconds since 1970.
    rows: what was measured of each step, as numbers.
    """

    group: str
    name: str
    key: str
    at: float
    rows: Sequence[Mapping[str, float]]

    @property
    def called(self) -> str:
        """Its name with the beginning of its key."""
        return f"{self.name}-{self.key[:8]}"

    def values(self, row: Mapping[str, float]) -> dict[str, float]:
        """Give what was measured at a row's step."""
        return {name: value for name, value in row.items() if name != "step"}


@dataclass(frozen=True)
class Tracker(Options, ABC):
    """Options of one place that trainings are shown in. Its package is imported when the first one is."""

    @abstractmethod
    def show(self, training: Training) -> bool:
        """Show a training, each step once, also where an earlier call was killed; False if it was shown before.

        Raises whatever the package does.
        """


def numbers_of(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, float]]:
    """Keep the numbers of rows."""
    return [{key: value for key, value in row.items() if type(value) in (int, float)} for row in rows]
