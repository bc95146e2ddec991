"""Edits of a running model: add, remove or replace an expert, change the router or the mix.

No argument is modified: each function makes a new ensemble and new parts, equal to those of a model built anew, and
computes only what changed. The model then switches to them at one instant.
"""

from collections.abc import Mapping
from dataclasses import replace
from types import NoneType

from lorary.adapters.contract import Site
from lorary.adapters.low_rank import LowRankBank
from lorary.errors import LibraryError, OptionError, RoutingError, known_names
from lorary.library.adapter.expert import Expert
from lorary.library.layout import check_free
from lorary.model.base.base_model import BaseModel
from lorary.model.ensemble.ensemble import (
    Ensemble,
    Parts,
    check_fit,
    check_mix,
    choose_live,
    make_bank,
    make_gate,
    open_expert,
)
from lorary.model.ensemble.paging import PagedBank
from lorary.model.ensemble.state import fetch_or_fit, in_rows, learner_of, make_probe
from lorary.model.routed.twin import twin_part
from lorary.options import require, to_spec
from lorary.routing.contract import Router, State
from lorary.routing.task_skills import task_numbers
from lorary.tasks.task import Tasks

Edited = tuple[Ensemble, Parts]


def add_expert(base: BaseModel, ensemble: Ensemble, parts: Parts, expert: Expert) -> Edited:
    """Add one more expert.

    Raises E-OPTION, E-EXISTS, E-BASE, E-TARGET, E-SHAPE, E-RANK, E-NONFINITE, E-FILE, E-LEARNED.
    """
    _require_expert(expert)
    if expert.name in ensemble.members:
        hint = "Replace it, or add it under another name."
        raise LibraryError("E-EXISTS", f"expert {expert.name!r} is routed already.", hint)
    check_free(expert.name, ensemble.members)
    return _edited(base, ensemble, parts, expert.name, expert)


def replace_expert(base: BaseModel, ensemble: Ensemble, parts: Parts, expert: Expert) -> Edited:
    """Replace the expert of the same name. Raises E-NAME, and as `add_expert`."""
    _require_expert(expert)
    _require(ensemble, expert.name)
    return _edited(base, ensemble, parts, expert.name, expert)


def remove_expert(base: BaseModel, ensemble: Ensemble, parts: Parts, name: str) -> Edited:
    """Remove one expert. Raises E-NAME, and E-EMPTY for the last one."""
    _require(ensemble, name)
    if len(ensemble.members) == 1:
        raise LibraryError("E-EMPTY", f"expert {name!r} is the last one.", "Detach the model instead.")
    return _edited(base, ensemble, parts, name, None)


def change_router(base: BaseModel, ensemble: Ensemble, parts: Parts, router: Router, tasks: Tasks | None) -> Edited:
    """Route the same experts with another router. Raises E-PROBE if it needs data that isn't there."""
    require("tasks", tasks, (Tasks, NoneType), "Tasks", "Read them: read_tasks(path).")
    learned = "learned" in ensemble.router.needs
    left = (learner_of(ensemble.router), ensemble.members, ensemble.state) if learned else ensemble.left
    fitting = replace(ensemble, router=router, tasks=tasks or ensemble.tasks, state={}, left=left)
    changed = replace(fitting, state=fetch_or_fit(base, fitting))
    return changed, {n: (parts[n][0], make_gate(base, changed, site)) for n, site in changed.sites.items()}


def share_experts(base: BaseModel, ensemble: Ensemble, parts: Parts, other: Ensemble, theirs: Parts) -> Edited:
    """Use the memory of another ensemble that mixes the same experts. Raises E-OPTION for one of others."""
    if ensemble.members != other.members or ensemble.mix != other.mix or parts.keys() != theirs.keys():
        raise OptionError("E-OPTION", "the two models mix other experts.", "Make a twin: model.twin().")
    shared = replace(ensemble, experts=other.experts, pager=other.pager)
    return shared, {site: (twin_part(theirs[site][0]), gate) for site, (_, gate) in parts.items()}


def _require_expert(expert: Expert) -> None:
    require("expert", expert, Expert, "an expert or its name", "Take one out of a library: library[name].")


def _require(ensemble: Ensemble, name: str) -> None:
    require("name", name, str, "the name of an expert")
    if name not in ensemble.members:
        raise OptionError("E-NAME", f"no expert {name!r} is routed.", known_names(name, ensemble.names))


def _edited(base: BaseModel, ensemble: Ensemble, parts: Parts, name: str, coming: Expert | None) -> Edited:
    """Give the name to `coming`, or to no expert, instead of the one that has it now."""
    leaving = ensemble.members.get(name)
    members = {other: expert for other, expert in ensemble.members.items() if other != name}
    experts = {other: ensemble.experts[other] for other in members}
    if coming is not None:
        check_fit(base, coming)
        check_mix({name: coming, **_first_at_each_site(members, coming)}, ensemble.mix)
        members = dict(sorted({**members, name: coming}.items()))
        experts = dict(sorted({**experts, name: open_expert(coming, ensemble.pager)}.items()))
    sites = _sites(base, ensemble, members, leaving, coming)
    draft = replace(ensemble, members=members, experts=experts, sites=sites)
    changed = {name} if coming is not None else set[str]()
    new = replace(draft, state=in_rows(_refit(base, ensemble, draft, changed)))
    return new, _make_parts(base, ensemble, new, parts, name)


def _refit(base: BaseModel, before: Ensemble, draft: Ensemble, changed: set[str]) -> State:
    try:
        return draft.router.refit(
            before.state, draft.experts, draft.sites, make_probe(base, draft), before=before.names, changed=changed
        )
    except RoutingError as error:
        if error.code != "E-LEARNED" or task_numbers(before.state) is None:
            raise
        what = f"what router {to_spec(draft.router)!r} knows was learned for just these experts, all together."
        hint = "Take another router first (set_router), or route a library that was built with the change."
        raise RoutingError("E-LEARNED", what, hint) from error


def _first_at_each_site(members: Mapping[str, Expert], coming: Expert) -> dict[str, Expert]:
    """Find the experts that are already at the sites of the new one: they agree with all others."""
    found = {next((n for n, other in members.items() if site in other.sites), None) for site in coming.sites}
    return {n: members[n] for n in found if n is not None}


def _sites(
    base: BaseModel, ensemble: Ensemble, members: Mapping[str, Expert], leaving: Expert | None, coming: Expert | None
) -> dict[str, Site]:
    """List the sites where any of the members sits, in the base's order, by what changed."""
    gone = (leaving.sites.keys() if leaving else set()) - (coming.sites.keys() if coming else set())
    wanted = ensemble.sites.keys() | (coming.sites.keys() if coming else set())
    wanted -= {site for site in gone if not any(site in expert.sites for expert in members.values())}
    return choose_live(base, wanted)


def _make_parts(base: BaseModel, old: Ensemble, new: Ensemble, parts: Parts, name: str) -> Parts:
    """Make the banks from those that are there, with another expert, or none, in the place of a name."""
    leaving = int(name in old.members)
    index = sorted({*old.members, name}).index(name)
    coming = [new.experts[name]] if name in new.experts else []
    made: Parts = {}
    like: LowRankBank | None = None
    for place, site in new.sites.items():
        bank = parts[place][0] if place in parts else make_bank(base, new, site)
        if place in parts and isinstance(bank, LowRankBank):
            like = bank = bank.splice(index, leaving, [expert.get(place) for expert in coming], site, like=like)
        elif place in parts and isinstance(bank, PagedBank):
            bank = bank.splice(index, leaving, coming)
        made[place] = bank, make_gate(base, new, site)
    return made
