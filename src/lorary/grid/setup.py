"""What is evaluated: the base alone, a library with a router, or a saved model."""

import re
from dataclasses import dataclass
from pathlib import Path

from lorary.adapters.contract import Mix
from lorary.errors import EvaluationError
from lorary.folder import DEFAULT_ROUTER
from lorary.hashing import short_key
from lorary.library.layout import is_saved_model
from lorary.library.library import Library
from lorary.options import to_spec
from lorary.routing.contract import Router, find_router
from lorary.tasks.task import Tasks
from lorary.using.open_model import Choice, choose_model
from lorary.using.target import BARE, find_target

_MOST_LETTERS = 80  # of a label or a metric in a file's name


@dataclass(frozen=True)
class Setup:
    """A model to evaluate. `library`: a library or its directory, a saved model's directory, or None: the base alone.

    label: what tables call it; by default the names of library and router, as "private-arrow:top_k=4". router, mix,
    max_share: of a library, see `route`; a saved model has its own. base: of the base alone, another one than that
    which all share, as a fine-tuned copy. Raises E-EVAL for a router without a library.
    """

    library: Path | str | Library | None = None
    router: Router | str | None = None
    label: str = ""
    mix: Mix = "factors"
    max_share: float | None = None
    base: str | None = None

    def __post_init__(self) -> None:
        """Make it independent of the current directory, and fit to be sent to other processes."""
        place = self.library.path if isinstance(self.library, Library) else self.library
        object.__setattr__(self, "library", None if place is None else Path(place).absolute())
        if self.has_experts:
            object.__setattr__(self, "router", find_router(self.router or DEFAULT_ROUTER))
        elif self.router is not None:
            why = "a saved model has its own" if self.is_saved else "the bare base has no experts to choose from"
            raise EvaluationError("E-EVAL", f"router {self.router!r} was given, but {why}.", "Leave it out.")
        if not self.label:
            object.__setattr__(self, "label", self._default_label())

    def _default_label(self) -> str:
        name = "base" if self.library is None else self._place.name
        return f"{name}-{to_spec(self.router)}" if self.has_experts else name

    @property
    def _place(self) -> Path:
        assert isinstance(self.library, Path)
        return self.library

    @property
    def is_saved(self) -> bool:
        """Whether it is a saved model."""
        return self.library is not None and is_saved_model(self._place)

    @property
    def has_experts(self) -> bool:
        """Whether it is a library with a router to choose among its experts."""
        return self.library is not None and not self.is_saved

    def chosen(self, train_tasks: Tasks | None) -> Choice:
        """Say what to open, and what is known of it before a base is loaded.

        Raises what no base would make right: E-LIBRARY, E-MODEL, E-EMPTY, E-RANK, E-PROBE.
        """
        target = find_target(BARE if self.library is None else self._place, self.base, needs_base=False)
        if not self.has_experts:
            return choose_model(target)
        return choose_model(target, router=self.router, mix=self.mix, tasks=train_tasks, max_share=self.max_share)


def file_part(text: str) -> str:
    """Make a part of a file's name of a label or a spec, readable and safe on any disk; other texts, other parts.

    "arrow:top_k=4" becomes "arrow-top_k=4"; what loses more than its colon gets a hash of what it was.
    """
    plain = re.sub(r"[^A-Za-z0-9_=,+.-]+", "-", text).strip("-.,=+_")[:_MOST_LETTERS]
    if plain and plain == text.replace(":", "-"):
        return plain
    return f"{plain or 'x'}-{short_key(text)[:6]}"
