"""What a request's `model` may name: a library, a library with one of its routers, one expert, or the base."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence

from lorary.adapters.contract import Mix
from lorary.errors import OptionError, known_names
from lorary.library.library import Library
from lorary.model.base.base_model import BaseModel
from lorary.model.decoding.answer import bare
from lorary.model.decoding.sequences import Caller
from lorary.model.routed.twin import twin_base
from lorary.progress import Tell
from lorary.serving.stand import Found as Found
from lorary.serving.stand import Stand, make_stand

BASE = "base"


class Shelf:
    """Libraries over one base, each with its routers, the first of which is its default. Close it after use."""

    def __init__(
        self, base: BaseModel, libraries: Sequence[Library], routers: Sequence[str], mix: Mix, tell: Tell | None = None
    ) -> None:
        self.base = base
        self._bare = bare(twin_base(base).hf)
        self._stands: dict[str, Stand] = {}
        with contextlib.ExitStack() as stack:
            stack.callback(self.close)
            for library in libraries:
                name = library.path.name
                if name in (BASE, *self._stands):
                    hint = "Give one of them another name, by renaming its directory."
                    raise OptionError("E-NAME", f"two of the models are called {name!r}.", hint)
                self._stands[name] = make_stand(base, library, routers, mix, tell)
            stack.pop_all()
        self._note()

    def _note(self) -> None:
        self._found = {BASE: Found(BASE)}
        for stand in self._stands.values():
            self._found |= stand.found

    @property
    def stands(self) -> Mapping[str, Stand]:
        """The libraries by name, as they stand."""
        return dict(self._stands)

    @property
    def callers(self) -> dict[str, Caller]:
        """Who answers at which desk."""
        desks = {desk: caller for stand in self._stands.values() for desk, caller in stand.callers.items()}
        return {BASE: self._bare, **desks}

    def put(self, stand: Stand) -> Stand:
        """Let a stand take the place of its library's present one; give that, which is to be closed."""
        name = stand.library.path.name
        before, self._stands[name] = self._stands[name], stand
        self._note()
        return before

    def close(self) -> None:
        """Detach all models."""
        while self._stands:
            self._stands.popitem()[1].close()

    @property
    def names(self) -> list[str]:
        """All names, sorted."""
        return sorted(self._found)

    def find(self, name: str) -> Found:
        """Find what a name means. Raises E-NAME."""
        if name not in self._found:
            raise OptionError("E-NAME", f"there is no model {name!r}.", known_names(name, self.names))
        return self._found[name]


@contextlib.contextmanager
def shelf(
    base: BaseModel, libraries: Sequence[Library], routers: Sequence[str], mix: Mix, tell: Tell | None = None
) -> Iterator[Shelf]:
    """Give a shelf for the block. tell: hears of what takes long."""
    made = Shelf(base, libraries, routers, mix, tell)
    try:
        yield made
    finally:
        made.close()
