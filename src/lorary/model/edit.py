"""Experts in, out and exchanged, another router, another mix: what a running model is changed to.

Nothing given is modified: each function makes a new ensemble and new parts, equal to those of a model built anew, at
the cost of what changed. The model then takes them over at one instant.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace

from lorary.adapters.base import Bank, Experts, Site, Weights
from lorary.adapters.low_rank import LowRankBank, LowRankWeights
from lorary.errors import LibraryError, known_names
from lorary.library.expert import Expert
from lorary.model.base_model import BaseModel
from lorary.model.ensemble import Ensemble, Parts, check_mix, find_sites, make_gate, open_expert
from lorary.model.state import fetch_or_fit, in_rows, make_probe
from lorary.routing.base import Router
from lorary.tasks.task import Tasks

Edited = tuple[Ensemble, Parts]
EditBank = Callable[[LowRankBank, Site], LowRankBank]


def add_expert(base: BaseModel, ensemble: Ensemble, parts: Parts, expert: Expert) -> Edited:
    """Take in one more expert. Raises E-EXISTS, E-BASE, E-TARGET, E-SHAPE, E-RANK, E-NONFINITE."""
    if expert.name in ensemble.members:
        hint = "Replace it, or add it under another name."
        raise LibraryError("E-EXISTS", f"expert {expert.name!r} is routed already.", hint)
    members, experts = _with(ensemble, expert)
    index = sorted(members).index(expert.name)

    def edit(bank: LowRankBank, site: Site) -> LowRankBank:
        return bank.insert(index, _at(experts, expert.name, site), site)

    return _edited(base, ensemble, parts, members, experts, {expert.name}, edit)


def replace_expert(base: BaseModel, ensemble: Ensemble, parts: Parts, expert: Expert) -> Edited:
    """Put an expert in the place of the one that has its name. Raises E-NAME, and as `add_expert`."""
    index = _index(ensemble, expert.name)
    members, experts = _with(ensemble, expert)

    def edit(bank: LowRankBank, site: Site) -> LowRankBank:
        return bank.insert(index, _at(experts, expert.name, site), site).remove(index + 1)

    return _edited(base, ensemble, parts, members, experts, {expert.name}, edit)


def remove_expert(base: BaseModel, ensemble: Ensemble, parts: Parts, name: str) -> Edited:
    """Leave one expert out. Raises E-NAME, and E-EMPTY for the last one."""
    index = _index(ensemble, name)
    if len(ensemble.members) == 1:
        raise LibraryError("E-EMPTY", f"expert {name!r} is the last one.", "Detach the model instead.")
    members = {other: expert for other, expert in ensemble.members.items() if other != name}
    experts = {other: ensemble.experts[other] for other in members}
    return _edited(base, ensemble, parts, members, experts, (), lambda bank, _: bank.remove(index))


def change_router(base: BaseModel, ensemble: Ensemble, parts: Parts, router: Router, tasks: Tasks | None) -> Edited:
    """Let another router choose among the same experts. Raises E-PROBE if it needs data that isn't there."""
    fitting = replace(ensemble, router=router, tasks=tasks or ensemble.tasks, state={})
    changed = replace(fitting, state=fetch_or_fit(base, fitting))
    return changed, {name: (parts[name][0], make_gate(base, changed, site)) for name, site in changed.sites.items()}


def _index(ensemble: Ensemble, name: str) -> int:
    if name not in ensemble.members:
        raise LibraryError("E-NAME", f"no expert {name!r} is routed.", known_names(name, ensemble.names))
    return ensemble.names.index(name)


def _with(ensemble: Ensemble, expert: Expert) -> tuple[dict[str, Expert], dict[str, Mapping[str, Weights]]]:
    expert.hash  # noqa: B018 - raises when its file isn't what expert.json promises
    members = dict(sorted({**ensemble.members, expert.name: expert}.items()))
    return members, dict(sorted({**ensemble.experts, expert.name: open_expert(expert, ensemble.pager)}.items()))


def _at(experts: Experts, name: str, site: Site) -> LowRankWeights | None:
    weights = experts[name].get(site.name)
    assert weights is None or isinstance(weights, LowRankWeights)
    return weights


def _edited(
    base: BaseModel,
    ensemble: Ensemble,
    parts: Parts,
    members: Mapping[str, Expert],
    experts: Experts,
    changed: Collection[str],
    edit: EditBank,
) -> Edited:
    sites = find_sites(base, members)
    check_mix(members, ensemble.mix)
    draft = replace(ensemble, members=members, experts=experts, sites=sites)
    state = draft.router.refit(
        ensemble.state, experts, sites, make_probe(base, draft), before=ensemble.names, changed=changed
    )
    new = replace(draft, state=in_rows(state))

    def bank_of(site: Site) -> Bank:
        bank = parts[site.name][0] if site.name in parts else None
        if isinstance(bank, LowRankBank):
            return edit(bank, site)
        return new.make_bank(site).cast(base.dtype).to(base.device)

    return new, {name: (bank_of(site), make_gate(base, new, site)) for name, site in sites.items()}
