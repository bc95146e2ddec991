"""What is evaluated: the base alone, a library with a router, or a saved model."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorary.adapters.contract import Mix
from lorary.errors import EvaluationError
from lorary.evaluation.contract import LanguageModel
from lorary.folder import DEFAULT_ROUTER
from lorary.hashing import short_key
from lorary.library.library import Library
from lorary.model.base.base_model import BaseModel
from lorary.model.routed.load import load
from lorary.model.routed.route import check_routable, route
from lorary.model.saved.format import MODEL, read_saved
from lorary.options import to_spec
from lorary.routing.contract import Router, find_router
from lorary.tasks.task import Tasks

_MOST_LETTERS = 80  # of a label or a metric in a file's name


@dataclass(frozen=True)
class Setup:
    """A model to evaluate. `library`: a library or its directory, a saved model's directory, or None: the base alone.

    label: what tables call it; by default the names of library and router, as "private-arrow:top_k=4". router, mix,
    max_share: of a library, see `route`; a saved model has its own. Raises E-EVAL for a router without a library.
    """

    library: Path | str | Library | None = None
    router: Router | str | None = None
    label: str = ""
    mix: Mix = "factors"
    max_share: float | None = None

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
        return self.library is not None and (self._place / MODEL).is_file()

    @property
    def has_experts(self) -> bool:
        """Whether it is a library with a router to choose among its experts."""
        return self.library is not None and not self.is_saved

    def facts(self, train_tasks: Tasks | None) -> dict[str, Any]:
        """Tell what is known of the model before a base is loaded, as its identity says it.

        Raises what no base would make right: E-LIBRARY, E-MODEL, E-EMPTY, E-RANK, E-PROBE.
        """
        if self.library is None:
            return {}
        if self.is_saved:
            saved = read_saved(self._place)
            return {"router": to_spec(saved.router), "mix": saved.mix}
        library, router = Library.open(self._place), find_router(self.router or DEFAULT_ROUTER)
        check_routable(library, router, self.mix, train_tasks)
        return {"library": library.hash, "router": to_spec(router), "mix": self.mix}

    @contextmanager
    def opened(self, base: BaseModel, train_tasks: Tasks | None) -> Iterator[LanguageModel]:
        """Give the model, on a base that is as before when the block ends."""
        if self.library is None:
            yield base
        elif self.is_saved:
            with load(self._place, base=base) as model:
                yield model
        else:
            router, share = find_router(self.router or DEFAULT_ROUTER), self.max_share
            library = Library.open(self._place)
            with route(base, library, router, mix=self.mix, tasks=train_tasks, max_share=share) as model:
                yield model


def file_part(text: str) -> str:
    """Make a part of a file's name of a label or a spec, readable and safe on any disk; other texts, other parts.

    "arrow:top_k=4" becomes "arrow-top_k=4"; what loses more than its colon gets a hash of what it was.
    """
    plain = re.sub(r"[^A-Za-z0-9_=,+.-]+", "-", text).strip("-.,=+_")[:_MOST_LETTERS]
    if plain and plain == text.replace(":", "-"):
        return plain
    return f"{plain or 'x'}-{short_key(text)[:6]}"
