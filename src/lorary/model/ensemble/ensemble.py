"""What is routed into a base, and how: experts, router, its state, mix. Immutable; an edit makes a new one."""

import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import get_args

from torch import Tensor

from lorary.adapters.contract import Bank, Experts, Mix, Site, Weights
from lorary.adapters.low_rank import LowRankBank
from lorary.errors import AdapterError, ModelError, OptionError, RoutingError, TaskError, known_names
from lorary.formats.peft import read_weights
from lorary.hashing import short_key
from lorary.library.adapter.expert import Expert, hash_experts
from lorary.library.adapter.provenance import is_padded, padding_hint
from lorary.library.adapter.site_keys import is_of_mixture
from lorary.library.adapter.targets import INNER
from lorary.library.adapter.tensor_keys import AS_PARAMETERS
from lorary.library.library import Library
from lorary.model.base.base_model import BaseModel
from lorary.model.base.calls import require_whole
from lorary.model.base.fingerprint import tensor_facts
from lorary.model.base.named_bases import remember_fit
from lorary.model.ensemble.paging import PagedBank, PagedExpert, Pager, parse_size
from lorary.options import to_spec
from lorary.routing.contract import Gate, Router, State
from lorary.routing.directions import prototypes
from lorary.routing.task_skills import task_numbers
from lorary.tasks.task import Tasks

Parts = dict[str, tuple[Bank, Gate]]
"""Site -> the bank and the gate that work there."""


_IDLE = "W-IDLE"


@dataclass(frozen=True, eq=False)
class Ensemble:
    """Experts that are routed together, by name, sorted; what follows from them is derived.

    members: the experts as their library has them. experts: their weights, memory-mapped: files that are replaced or
    removed later don't change them. sites: where any of them sits, in the base's order. tasks: training data, for
    routers that need it. library: keeps the router's states. pager: fetches weights on demand; None: all are resident.
    left: name, experts and state of the router before, if a builder learned that state: a saved model can't fetch it.
    """

    members: Mapping[str, Expert]
    experts: Experts
    sites: Mapping[str, Site]
    router: Router
    mix: Mix
    state: State
    tasks: Tasks | None
    library: Library
    pager: Pager | None = None
    left: tuple[str, Mapping[str, Expert], State] | None = None

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The experts' names, sorted; a routing's index i is the i-th of them."""
        return tuple(sorted(self.members))

    @cached_property
    def owned(self) -> dict[str, tuple[str, ...]]:
        """Expert -> the tasks it was trained on."""
        return {name: tuple(self.members[name].provenance.tasks) for name in self.names}

    @cached_property
    def owners(self) -> dict[str, int]:
        """Task -> the index of the expert that was trained on it, or of what was learned for it."""
        trained = {task: index for index, name in enumerate(self.names) for task in self.owned[name]}
        return task_numbers(self.state) or trained

    def numbers_of(self, tasks: Sequence[str]) -> list[int]:
        """Look up each task among `owners`. Raises E-TASK for one that nobody was trained on."""
        for task in tasks:
            if task not in self.owners:
                raise TaskError(
                    "E-TASK",
                    f"no expert was trained on task {task!r}, so {to_spec(self.router)!r} can't choose one.",
                    "Use a router that doesn't need the task.",
                )
        return [self.owners[task] for task in tasks]

    @cached_property
    def hash(self) -> str:
        """Identity of the experts; that of a library which holds just them."""
        return hash_experts(self.members, recorded=self.pager is not None)

    @cached_property
    def knowledge(self) -> str:
        """Hash of what the router uses beside the experts: its state, and the owner of each task if it needs that."""
        return short_key(*tensor_facts(self.state), self.owners if "task" in self.router.needs else None)

    def make_bank(self, site: Site) -> Bank:
        """Pack the weights of all experts at one site, or handles that fetch them."""
        if self.pager is not None:
            return PagedBank([self.experts[name] for name in self.names], site, self.pager)
        return LowRankBank([self.experts[name].get(site.name) for name in self.names], site)


def make_pager(base: BaseModel, memory: str | int | None) -> Pager | None:
    """Make the pager for a budget as "2GiB"; None for None. Raises E-OPTION."""
    return None if memory is None else Pager(parse_size(memory), base.dtype, base.device)


def open_expert(expert: Expert, pager: Pager | None) -> Mapping[str, Weights]:
    """Read an expert's weights, or open it for a pager."""
    return read_weights(expert) if pager is None else PagedExpert(expert)


def make_parts(base: BaseModel, ensemble: Ensemble) -> Parts:
    """Pack the bank and make the gate of every site, where its layer is, with a state that comes from elsewhere.

    Raises E-STATE where there is none and the router has one.
    """
    if not ensemble.state and _needs_state(ensemble):
        what = f"there is no state for router {to_spec(ensemble.router)!r}, without which no expert would be used."
        raise RoutingError("E-STATE", what, "Save the model again.")
    return {name: make_part(base, ensemble, site) for name, site in ensemble.sites.items()}


def _needs_state(ensemble: Ensemble) -> bool:
    """Tell whether a router needs a state for these experts: not if `fit` finds nothing without a probe."""
    try:
        return bool(ensemble.router.fit(ensemble.experts, ensemble.sites, None))
    except RoutingError:
        return True


def require_listeners(ensemble: Ensemble, parts: Parts) -> None:
    """Refuse a state by which an expert would never be used at a site that it changes, or at one that it lacks.

    For gates that score their `members`. Raises E-STATE.
    """
    for site, (_, gate) in parts.items():
        members = getattr(gate, "members", None)
        if not isinstance(members, Tensor):
            continue
        here = {i for i, name in enumerate(ensemble.names) if site in ensemble.experts[name]}
        odd = sorted(here ^ set(members.tolist()))
        for index in odd:
            name = ensemble.names[index]
            if index not in here or prototypes({name: ensemble.experts[name]}, [site])[site]:
                what = f"site {site!r}: the router's state is not of these experts: it is wrong about {name!r}."
                raise RoutingError("E-STATE", what, "Fit anew.")


def make_part(base: BaseModel, ensemble: Ensemble, site: Site) -> tuple[Bank, Gate]:
    """Pack the bank and make the gate of one site, where its layer is."""
    return make_bank(base, ensemble, site), make_gate(base, ensemble, site)


def make_bank(base: BaseModel, ensemble: Ensemble, site: Site) -> Bank:
    """Pack the bank of one site, where its layer is, in the precision of the base."""
    return ensemble.make_bank(site).cast(base.dtype).to(base.device_of(site.name))


def make_gate(base: BaseModel, ensemble: Ensemble, site: Site) -> Gate:
    """Make the gate of one site, where its layer is.

    Raises E-ROWS for one that keeps evidence, at a layer that is given some of the tokens only.
    """
    gate, device = ensemble.router.gate(site, ensemble.state, ensemble.names), base.device_of(site.name)
    if gate.keeps_evidence:
        require_whole(base.calls, [site.name])
    return gate if device.type == "cpu" else gate.to(device)  # where states are


def check_base(base: BaseModel, fingerprint: Mapping[str, object] | None, what: str) -> None:
    """Refuse what was made on another base (E-BASE). Without a fingerprint it passes; shapes still must fit."""
    known, found = base.fingerprint, fingerprint or {}
    if differing := [key for key in known if key in found and found[key] != known[key]]:
        hint = "Load the base it was made on; `lorary show` names it."
        if is_padded(known, found):
            hint = f"{hint} {padding_hint(found)}"
        raise ModelError("E-BASE", f"{what} was made on another base: {', '.join(differing)} differ.", hint)


def check_library(base: BaseModel, library: Library) -> None:
    """Refuse a library that was made on another base (E-BASE); note where the right one is, to find it again."""
    check_base(base, library.base, f"library {str(library.path)!r}")
    remember_fit(base)


def find_sites(base: BaseModel, members: Mapping[str, Expert]) -> dict[str, Site]:
    """List the base's sites that any expert adapts, in the base's order, without those it never calls (W-IDLE).

    Raises as `check_fit`, and E-TARGET if the base calls none of them.
    """
    for _, expert in sorted(members.items()):
        check_fit(base, expert)
    return choose_live(base, {site for expert in members.values() for site in expert.sites})


def choose_live(base: BaseModel, wanted: Collection[str]) -> dict[str, Site]:
    """List the sites of some names that the base calls, telling of others. Raises E-TARGET if none is called."""
    named = {name: site for name, site in base.routable.items() if name in wanted}
    idle = [name for name in named if name in base.calls.idle]
    if not idle:
        return named
    what = f"adapts {idle[0]!r}{f' and {len(idle) - 1} more' if idle[1:] else ''}, which this base never calls"
    if len(idle) == len(named):
        hint = "It reads the weights, past any adapter. Train experts on other layers."
        raise AdapterError("E-TARGET", f"no expert would change anything: each {what}.", hint)
    warnings.warn(f"warning[{_IDLE}] an expert {what}: there it changes nothing.", RuntimeWarning, stacklevel=4)
    return {name: site for name, site in named.items() if name not in base.calls.idle}


def check_fit(base: BaseModel, expert: Expert) -> None:
    """Refuse an expert of another base (E-BASE), and as `check_places`."""
    check_base(base, expert.provenance.base_fingerprint, f"expert {expert.name!r}")
    check_places(base, [expert])


def check_places(base: BaseModel, experts: Iterable[Expert]) -> None:
    """Refuse experts at a site that a base, real or in outline, lacks (E-TARGET), or of other widths (E-SHAPE).

    Raises E-FEATURE for experts within a mixture of experts that the base keeps fused.
    """
    known = base.routable
    for expert in experts:
        for site, factors in expert.sites.items():
            if site not in known and is_of_mixture(factors.pattern.removesuffix(INNER)):
                raise AdapterError(
                    "E-FEATURE",
                    f"expert {expert.name!r} adapts {site!r}, of a mixture of experts, which this base keeps in "
                    "another form: it can't be routed.",
                    AS_PARAMETERS if base.slices else "Take it out: `lorary remove`.",
                )
            if site not in known:
                raise AdapterError(
                    "E-TARGET",
                    f"expert {expert.name!r} adapts {site!r}, which this base doesn't have.",
                    "Load the base that it was trained on, or take it out: `lorary remove`.",
                )
            (_, d_in), (d_out, _) = factors.shapes(expert.header)
            if (d_in, d_out) != (known[site].d_in, known[site].d_out):
                raise AdapterError(
                    "E-SHAPE",
                    f"expert {expert.name!r} is {d_in} -> {d_out} at {site!r}, the base is {known[site].d_in} -> "
                    f"{known[site].d_out}.",
                    "Load the base that it was trained on, or take it out: `lorary remove`.",
                )
            if factors.of and f"{factors.pattern}.{factors.of}" in known:
                raise AdapterError(
                    "E-SHAPE",
                    f"expert {expert.name!r} is for {factors.of} experts of a mixture at {factors.pattern!r}, the base "
                    "has more.",
                    "Load the base that it was trained on, or take it out: `lorary remove`.",
                )


def check_mix(members: Mapping[str, Expert], mix: Mix) -> None:
    """Refuse mix="factors" for experts of unequal rank at a site, by name (E-RANK), and an unknown mix (E-OPTION)."""
    if mix not in get_args(Mix):
        raise OptionError("E-OPTION", f"unknown mix {mix!r}.", known_names(mix, get_args(Mix)))
    first: dict[str, tuple[str, int]] = {}
    for name in sorted(members) if mix == "factors" else ():
        for site, found in members[name].ranks.items():
            other, rank = first.setdefault(site, (name, found))
            if found != rank:
                raise AdapterError(
                    "E-RANK",
                    f'expert {name!r}: rank {found} at {site!r}, but mix="factors" needs one rank for all '
                    f"({other!r}: {rank}).",
                    'Use mix="outputs" (--mix outputs), or bring all to one rank: '
                    f"`lorary build --method svd:rank={rank} --from LIBRARY --into NEW`.",
                )
