"""New tasks, from one expert."""

from collections.abc import Sequence
from dataclasses import dataclass

from lorary.building.training.adaptation import AdaptedBuilder
from lorary.errors import OptionError
from lorary.library.library import Library


@dataclass(frozen=True, kw_only=True)
class FromExpert(AdaptedBuilder):
    """Train one LoRA per new task, starting from one expert of a library, such as the shared one.

    Source: Ostapenko et al. 2024 (2405.11157) section 4, "Shared".
    """

    expert: str | None = None
    """The expert to start from; None: the only one there is."""

    def chosen(self, library: Library) -> Sequence[str]:
        """Take the one. Raises E-NAME for an unknown one, E-OPTION if none is named and there are several."""
        if self.expert is None and len(library) > 1:
            hint = "Write from_expert:expert=NAME."
            raise OptionError("E-OPTION", f"from_expert: the library holds {len(library)} experts.", hint)
        name = self.expert or next(iter(library))
        library[name]
        return [name]
