"""The unit of work of builders that make one expert of a library's, without training."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lorary.hashing import hash_json
from lorary.library.library import Library
from lorary.tasks.example import Example


@dataclass(frozen=True)
class LoneJob(ABC):
    """Make one expert, of the job's name, from `source`."""

    name: str
    source: Library = field(compare=False)

    @property
    def experts(self) -> tuple[str, ...]:
        """The one expert it makes."""
        return (self.name,)

    @property
    def n_steps(self) -> int:
        """0, unless it searches."""
        return 0

    @property
    @abstractmethod
    def tasks(self) -> tuple[str, ...]:
        """The tasks that the expert is for."""

    @property
    def examples(self) -> Sequence[Example]:
        """The examples that it sees."""
        return ()

    @property
    def data_hash(self) -> str:
        """sha256 of the examples it sees."""
        return hash_json(self.examples)

    @abstractmethod
    def key(self, base_facts: Mapping[str, Any]) -> str:
        """Hash of all that decides the result."""

    def describe(self) -> dict[str, Any]:
        """What --dry-run prints."""
        examples = {"train": len(self.examples), "valid": 0}
        return {"expert": self.name, "tasks": list(self.tasks), "steps": self.n_steps, "examples": examples}
