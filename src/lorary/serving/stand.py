"""One library as it is served: a model for each of its routers and one for its single experts, which share memory.

It is never changed: an edit makes another stand, beside which the present one goes on answering who asked it.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from lorary.adapters.contract import Mix
from lorary.library.adapter.expert import Expert
from lorary.library.library import Library
from lorary.model.base.base_model import BaseModel
from lorary.model.decoding.sequences import Caller
from lorary.model.routed.route import route
from lorary.model.routed.routed_model import RoutedModel
from lorary.model.routed.twin import twin_base
from lorary.options import to_spec
from lorary.progress import Tell
from lorary.routing.contract import find_router


@dataclass(frozen=True)
class Found:
    """A model that a name means. desk: which of `Shelf.callers` answers; task: the expert that is to, if one is named.

    router: as a spec; "" for the base.
    """

    desk: str
    router: str = ""
    task: str = ""


@dataclass(frozen=True)
class Changes:
    """Experts that come, in the place of those of the same names if there are such, and names of those that go."""

    coming: Sequence[Expert] = ()
    leaving: Sequence[str] = ()

    def make(self, model: RoutedModel) -> None:
        """Change a model. Raises as its `add`, `replace` and `remove`."""
        for expert in self.coming:
            (model.replace if expert.name in model.names else model.add)(expert)
        for name in self.leaving:
            model.remove(name)


@dataclass(frozen=True, eq=False)
class Stand:
    """models: by the spec of their routers as it was given, the default first, and last "", who obeys orders.

    number: how many stands its library had before.
    """

    library: Library
    models: Mapping[str, RoutedModel]
    number: int = 0

    @property
    def experts(self) -> Mapping[str, Expert]:
        """The experts that answer."""
        return next(iter(self.models.values())).experts

    @property
    def callers(self) -> dict[str, Caller]:
        """Who answers at which desk."""
        return {self._desk(spec): model.caller for spec, model in self.models.items()}

    @property
    def found(self) -> dict[str, Found]:
        """What its names mean."""
        name, names = self.library.path.name, dict[str, Found]()
        for i, spec in enumerate(spec for spec in self.models if spec):
            router = to_spec(find_router(spec))
            for called in ([name] if i == 0 else []) + [f"{name}:{router}", f"{name}:{spec}"]:
                names[called] = Found(self._desk(spec), router)
        return names | {f"{name}/{expert}": Found(self._desk(""), "", expert) for expert in self.experts}

    def _desk(self, spec: str) -> str:
        return f"{self.library.path.name}:{spec}#{self.number}"

    def edited(self, changes: Changes) -> "Stand":
        """Make the stand that follows, whole or not at all; this one may be in calls meanwhile. Raises as the changes.

        Each model finds out what its own router has to know; the experts' weights are the first one's.
        """
        models: dict[str, RoutedModel] = {}
        with _detached_on_error(models):
            for spec, model in self.models.items():
                models[spec] = twin = model.twin()
                changes.make(twin)
                if len(models) > 1:
                    twin.share_memory(next(iter(models.values())))
        return Stand(self.library, models, self.number + 1)

    def close(self) -> None:
        """Detach all models."""
        _detach(self.models)


def make_stand(base: BaseModel, library: Library, routers: Sequence[str], mix: Mix, tell: Tell | None = None) -> Stand:
    """Route a library for each router. tell: hears of what takes long. Raises as `route`."""
    models: dict[str, RoutedModel] = {}
    with _detached_on_error(models):
        models[routers[0]] = first = route(twin_base(base), library, find_router(routers[0]), mix=mix, tell=tell)
        for spec in [*routers[1:], ""]:
            if spec not in models:
                models[spec] = first.twin()
                models[spec].set_router(spec or "oracle")
    return Stand(library, models)


def _detach(models: Mapping[str, RoutedModel]) -> None:
    for model in models.values():
        model.detach()


@contextlib.contextmanager
def _detached_on_error(models: Mapping[str, RoutedModel]) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        stack.callback(_detach, models)
        yield
        stack.pop_all()
