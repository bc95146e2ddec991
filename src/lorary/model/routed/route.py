"""Library + router -> routed model: load the weights, fetch or fit the state, attach."""

import itertools
from collections.abc import Callable
from dataclasses import replace
from types import NoneType
from typing import TypeVar

import torch

from lorary.adapters.contract import Mix
from lorary.errors import LibraryError, quote
from lorary.folder import DEFAULT_ROUTER
from lorary.library.library import Library
from lorary.model.attached.attachment import Attachment
from lorary.model.attached.slot import Slot
from lorary.model.base.base_model import BaseModel
from lorary.model.ensemble.ensemble import (
    Ensemble,
    check_library,
    check_mix,
    find_sites,
    make_pager,
    make_part,
    open_expert,
)
from lorary.model.ensemble.state import fetch_or_fit, require_tasks
from lorary.model.routed.hijack import require_share, watch_shares
from lorary.model.routed.routed_model import RoutedModel
from lorary.options import require
from lorary.progress import Progress, Tell, unheard
from lorary.routing.contract import Router, find_router
from lorary.tasks.task import Tasks

T = TypeVar("T")


@torch.inference_mode(False)  # what is made in that mode can take part in no training
def route(
    base: BaseModel,
    library: Library,
    router: Router | str = DEFAULT_ROUTER,
    *,
    mix: Mix = "factors",
    tasks: Tasks | None = None,
    memory: str | int | None = None,
    max_share: float | None = None,
    progress: Progress | None = None,
    tell: Tell | None = None,
) -> RoutedModel:
    """Route a library into a base. Close the model, or leave its `with`, to have the base back.

    mix: "factors" is the paper's, "outputs" PEFT's; see adapters/mixing/mix.py. `tasks`: training data, for routers
    that need examples. `memory`: None keeps all weights in memory; "2GiB" keeps at most so much, and fetches them as
    experts are used, for libraries of thousands (see model/ensemble/paging.py). The router's state is kept in the
    library's derived/ under the hash of its origins; one that is damaged, or that others fitted, is fitted again, with
    a warning. `max_share`: leave out experts that take more than that of a plain text about nothing in particular
    (`RoutedModel.shares`), which otherwise is only warned of (W-HIJACK), when a state is fitted. `progress` hears how
    many parts are done, and of how many: experts read, then layers packed; `tell` that a state has to be fitted from
    data or texts, which may take a while.
    Raises E-EMPTY for a library without experts, or if `max_share` leaves none, E-BASE for another base, E-RANK for
    ranks that `mix` can't hold, E-FILE for an expert that is no longer what it was when the library was opened.
    """
    require("base", base, BaseModel, "a base model", "Load one: load_base().")
    require("library", library, Library, "a library", "Open it: Library.open(path).")
    require("tasks", tasks, (Tasks, NoneType), "Tasks", "Read them: read_tasks(path).")
    router = find_router(router)
    require_share(max_share)
    check_routable(library, router, mix, tasks)
    check_library(base, library)
    members = {name: library[name] for name in sorted(library)}
    sites = find_sites(base, members)
    pager = make_pager(base, memory)
    tick = _counter(len(members) + len(sites), progress or unheard)
    experts = {name: tick(open_expert(expert, pager)) for name, expert in members.items()}
    fitting = Ensemble(members, experts, sites, router, mix, {}, tasks, library, pager)
    is_new: list[None] = []
    ensemble = replace(fitting, state=fetch_or_fit(base, fitting, tell or unheard, lambda: is_new.append(None)))
    parts = {name: tick(make_part(base, ensemble, site)) for name, site in sites.items()}
    model = RoutedModel(base, Attachment(base.hf, parts, Slot(mix)), ensemble)
    if is_new or max_share is not None:
        watch_shares(model, f"library {quote(library.path.name)}", limit=max_share, notes=library)
    return model


def check_routable(library: Library, router: Router, mix: Mix, tasks: Tasks | None) -> None:
    """Refuse what no base would make right: so it is told before one is loaded. Raises E-EMPTY, E-RANK, E-PROBE."""
    if not library:
        raise LibraryError("E-EMPTY", f"library {str(library.path)!r} holds no experts.", "Add or build some first.")
    check_mix(library, mix)
    require_tasks(router, tasks)


def _counter(total: int, progress: Progress) -> Callable[[T], T]:
    done = itertools.count(1)

    def tick(part: T) -> T:
        progress(next(done), total)
        return part

    return tick
