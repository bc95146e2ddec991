"""What a request's `model` may name: a library, a library with one of its routers, one expert, or the base."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lorary.adapters.contract import Mix
from lorary.errors import OptionError, known_names
from lorary.library.library import Library
from lorary.model.base.base_model import BaseModel
from lorary.model.decoding.answer import bare
from lorary.model.decoding.rows import Caller
from lorary.model.routed.route import route
from lorary.model.routed.routed_model import RoutedModel
from lorary.model.routed.twin import twin_base
from lorary.options import to_spec
from lorary.routing.contract import find_router

BASE = "base"


@dataclass(frozen=True)
class Found:
    """A model that a name means. desk: which of `Shelf.callers` answers; task: the expert that is to, if one is named.

    router: as a spec; "" for the base.
    """

    desk: str
    router: str = ""
    task: str = ""


class Shelf:
    """Libraries over one base, each with its routers, the first of which is its default. Close it after use."""

    def __init__(self, base: BaseModel, libraries: Sequence[Library], routers: Sequence[str], mix: Mix) -> None:
        self.base = base
        self.callers: dict[str, Caller] = {}
        self._found: dict[str, Found] = {BASE: Found(BASE)}
        self._models: list[RoutedModel] = []
        with contextlib.ExitStack() as stack:
            stack.callback(self.close)
            for library in libraries:
                self._take(library, routers, mix)
            self.callers[BASE] = bare(twin_base(base).hf)
            stack.pop_all()

    def _take(self, library: Library, routers: Sequence[str], mix: Mix) -> None:
        name = library.path.name
        if name in self._found:
            hint = "Give one of them another name, by renaming its directory."
            raise OptionError("E-NAME", f"two of the models are called {name!r}.", hint)
        first = route(twin_base(self.base), library, find_router(routers[0]), mix=mix)
        self._models.append(first)
        for i, spec in enumerate(routers):
            router = to_spec(find_router(spec))
            model = first if i == 0 else self._twin(first, spec)
            desk = f"{name}:{router}"
            self.callers[desk] = model.caller
            for called in ([name] if i == 0 else []) + sorted({desk, f"{name}:{spec}"}):
                self._found[called] = Found(desk, router)
        desk = f"{name}/"
        self.callers[desk] = self._twin(first, "oracle").caller
        for expert in first.names:
            self._found[f"{name}/{expert}"] = Found(desk, "", expert)

    def _twin(self, model: RoutedModel, router: str) -> RoutedModel:
        twin = model.twin()
        self._models.append(twin)
        twin.set_router(router)
        return twin

    def close(self) -> None:
        """Detach all models."""
        while self._models:
            self._models.pop().detach()

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
def shelf(base: BaseModel, libraries: Sequence[Library], routers: Sequence[str], mix: Mix) -> Iterator[Shelf]:
    """Give a shelf for the block."""
    made = Shelf(base, libraries, routers, mix)
    try:
        yield made
    finally:
        made.close()
