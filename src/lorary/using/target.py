"""What is to be asked or evaluated, recognised by its path: a library, a saved model, or the bare base. No torch."""

import os
from dataclasses import dataclass
from pathlib import Path

from lorary.library.layout import is_saved_model
from lorary.library.library import Library, names_of_base
from lorary.model.base.embedded_needs import EMBEDDED, is_embedded, require_embedded

BARE = "base"
"""Stands for a library: the base alone. A directory of that name is ./base."""


@dataclass(frozen=True)
class Target:
    """A library, which is open, or if there is none a saved model or the bare base; base: which one the user named."""

    path: str
    base: str | None = None
    library: Library | None = None

    @property
    def is_bare(self) -> bool:
        """Whether it is the base alone."""
        return self.path == BARE

    @property
    def why_not_routed(self) -> str:
        """Say why a router can't be chosen for it; of what is no library."""
        return "the bare base has no experts" if self.is_bare else "a saved model has its own"

    @property
    def is_saved(self) -> bool:
        """Whether it is a saved model."""
        return not self.is_bare and self.library is None


def find_target(path: str | os.PathLike[str], base: str | None = None, *, needs_base: bool = True) -> Target:
    """Recognise what a path names; what is in a saved model isn't looked at.

    `needs_base`: its base will be loaded. Raises E-LIBRARY, and E-EMBEDDED for what the embedded base lacks here.
    """
    given = os.fspath(path)
    if given == BARE:
        if needs_base:
            require_base(base)
        return Target(BARE, base)
    if is_saved_model(Path(given)):
        return Target(given, base)
    library = Library.open(given)
    if needs_base:
        require_base(base, library)
    return Target(given, base, library)


def require_base(base: str | None, library: Library | None = None) -> None:
    """Tell what the embedded base lacks here, if it is meant, before anything slow is imported. Raises E-EMBEDDED.

    base: None means that of the library, or without one the embedded one.
    """
    names = names_of_base(library) if library is not None else [""]
    if base == EMBEDDED or (base is None and names and all(map(is_embedded, names))):
        require_embedded()
