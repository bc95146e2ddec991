"""A library with a router, a saved model, or a bare base -> a model that answers."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from types import NoneType
from typing import Any

from lorary.adapters.contract import Mix
from lorary.errors import OptionError
from lorary.folder import DEFAULT_ROUTER
from lorary.model.base.base_model import BaseModel, load_base
from lorary.model.base.embedded_needs import EMBEDDED
from lorary.model.routed.load import load
from lorary.model.routed.route import check_routable, route
from lorary.model.routed.routed_model import RoutedModel
from lorary.model.saved.format import Saved, read_saved
from lorary.options import require, to_spec
from lorary.progress import Progress, Tell, unheard
from lorary.routing.contract import Router, find_router
from lorary.tasks.task import Tasks
from lorary.using.base_of import base_of
from lorary.using.target import Target, find_target


@dataclass(frozen=True)
class Choice:
    """A model that can be opened: what can be known of it before anything is loaded was looked at."""

    target: Target
    router: Router | None = None
    mix: Mix = "factors"
    tasks: Tasks | None = None
    max_share: float | None = None
    saved: Saved | None = None

    @property
    def identity(self) -> dict[str, Any]:
        """What is known of the opened model's identity: how it routes, which library."""
        if self.saved is not None:
            return {"router": to_spec(self.saved.router), "mix": self.saved.mix}
        if self.target.library is None or self.router is None:
            return {}
        return {"library": self.target.library.hash, "router": to_spec(self.router), "mix": self.mix}

    def open(
        self,
        *,
        base: BaseModel | None = None,
        memory: str | int | None = None,
        progress: Progress | None = None,
        tell: Tell | None = None,
        **loading: object,
    ) -> BaseModel | RoutedModel:
        """Load it, into `base` if that is loaded already; see `open_model`."""
        say = tell or unheard
        if self.saved is not None:
            return self._open_saved(self.saved, base, memory, say, loading)
        library = self.target.library
        if base is None:
            base = _loaded(self.target.base or (EMBEDDED if library is None else base_of(library)), loading, say)
        if library is None or self.router is None:
            return base
        return route(
            base, library, self.router, mix=self.mix, tasks=self.tasks, memory=memory, max_share=self.max_share,
            progress=progress, tell=say,
        )  # fmt: skip

    def _open_saved(
        self, saved: Saved, base: BaseModel | None, memory: str | int | None, say: Tell, loading: Mapping[str, Any]
    ) -> RoutedModel:
        how = dict(loading)
        if how.get("dtype", "auto") == "auto":
            how["dtype"] = str(saved.base["dtype"])
        say(f"loading saved model {self.target.path} ...")
        if base is None and self.target.base is not None:
            base = _loaded(self.target.base, how, say)
        return load(saved, base=base, memory=memory, **how)


def choose_model(
    target: Target | str | os.PathLike[str],
    *,
    base: str | None = None,
    router: Router | str | None = None,
    mix: Mix | None = None,
    tasks: Tasks | None = None,
    max_share: float | None = None,
) -> Choice:
    """Say what to open, and refuse what no base would make right, before one is loaded.

    base: the name of one, save for a `Target`, which has its own. All else, and what is raised: see `open_model`.
    """
    found = target if isinstance(target, Target) else find_target(target, base)
    require("tasks", tasks, (Tasks, NoneType), "Tasks", "Read them: read_tasks(path).")
    if found.library is None:
        given = {"router": router, "mix": mix, "tasks": tasks, "max_share": max_share}
        for option, value in given.items():
            if value is not None:
                raise OptionError(
                    "E-OPTION", f"{option}: {found.why_not_routed}; this is for libraries.", "Leave it out."
                )
        return Choice(found, saved=read_saved(found.path) if found.is_saved else None)
    chosen = find_router(DEFAULT_ROUTER if router is None else router)
    check_routable(found.library, chosen, mix or "factors", tasks)
    return Choice(found, chosen, mix or "factors", tasks, max_share)


def open_model(
    target: Target | str | os.PathLike[str],
    *,
    base: BaseModel | str | None = None,
    router: Router | str | None = None,
    mix: Mix | None = None,
    tasks: Tasks | None = None,
    max_share: float | None = None,
    memory: str | int | None = None,
    progress: Progress | None = None,
    tell: Tell | None = None,
    **loading: object,
) -> BaseModel | RoutedModel:
    """Open what can be asked and evaluated: a library, a saved model, or with "base" the bare base.

    `base`: a base that is loaded, or the name of one; by default that of the library or saved model, if it is on this
    machine, or the embedded one. `router`, `mix`, `tasks`, `max_share`, `memory`: of a library, as in `route`.
    `progress` hears how many parts of a library are done, and of how many; `tell` what is being done. `loading`: what
    else `load_base` takes, as device and dtype.
    Use it in a `with` block, after which a loaded `base` is as it was. Raises E-LIBRARY for what is none of the three,
    E-OPTION for options of another one, and as `route`, `load` and `load_base` do.
    """
    named = base if isinstance(base, str) else None
    loaded = base if isinstance(base, BaseModel) else None
    require("base", base, (BaseModel, str, NoneType), "a base model or its name")
    if not isinstance(target, Target):
        target = find_target(target, named, needs_base=loaded is None)
    choice = choose_model(target, router=router, mix=mix, tasks=tasks, max_share=max_share)
    return choice.open(base=loaded, memory=memory, progress=progress, tell=tell, **loading)


def _loaded(name: str, loading: Mapping[str, Any], say: Tell) -> BaseModel:
    say(f"loading base {name} ...")
    return load_base(name, **loading)
