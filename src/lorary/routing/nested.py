"""Routers that ask other routers: what they need, keep and say together."""

from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor

from lorary.adapters.contract import Experts, Site
from lorary.errors import OptionError
from lorary.options import name_of
from lorary.routing.contract import Gate, Probe, Router, State, Survey

_TEXT, _SURVEY, _LEARNED_OF_TASKS = "text", "survey", frozenset({"task", "learned"})


class OuterRouter(Router):
    """A router that asks those in `inner`; one state holds all of theirs, each under its number (`state_of`)."""

    def __post_init__(self) -> None:
        """Refuse routers that can't be asked together."""
        super().__post_init__()
        _check_inner(self)

    @property
    def needs(self) -> frozenset[str]:  # type: ignore[override]
        """What any of them needs."""
        return frozenset().union(*(router.needs for router in self.inner))

    def deciding_options(self) -> dict[str, object]:
        """List those of the inner routers: its own options are the gates' business."""
        return {"name": name_of(self), "inner": [router.deciding_options() for router in self.inner]}

    def fit(self, experts: Experts, sites: Mapping[str, Site], probe: Probe | None) -> State:
        """Fit each of them."""
        return _joined([router.fit(experts, sites, probe) for router in self.inner])

    def refit(
        self, state: State, experts: Experts, sites: Mapping[str, Site], probe: Probe | None, *,
        before: Sequence[str], changed: Collection[str],
    ) -> State:  # fmt: skip
        """Refit each of them."""
        states = [
            router.refit(state_of(state, i), experts, sites, probe, before=before, changed=changed)
            for i, router in enumerate(self.inner)
        ]
        return _joined(states)

    def survey(self, sites: Mapping[str, Site], state: State, names: Sequence[str]) -> Survey | None:
        """Give the survey of the one that needs it."""
        for number, router in enumerate(self.inner):
            if _SURVEY in router.needs:
                return router.survey(sites, state_of(state, number), names)
        return None


def _joined(states: Sequence[State]) -> State:
    return {f"{i}/{name}": tensor for i, state in enumerate(states) for name, tensor in state.items()}


def _check_inner(outer: Router) -> None:
    """Refuse routers that can't be asked together, or by another at all. Raises E-OPTION."""
    for router in outer.inner:
        if router.needs >= _LEARNED_OF_TASKS:
            what = f"{name_of(outer)}: {name_of(router)} can't be asked by another router"
            raise OptionError("E-OPTION", f"{what}: its tasks have numbers of their own.", "Route by it alone.")
    readers = [router for router in outer.inner if {_TEXT, _SURVEY} & router.needs]
    encoders = {encoder_of(router) if _TEXT in router.needs else "" for router in readers}
    if len(encoders) > 1 or (len(readers) > 1 and "" in encoders):
        names = " and ".join(name_of(router) for router in readers)
        what = f"{name_of(outer)}: {names} read whole prompts in different ways"
        raise OptionError("E-OPTION", f"{what}.", "Give them the same encoder, or take another router for one of them.")


def encoder_of(router: Router) -> str:
    """Name the text encoder of a router that needs "text": its own, or that of the router it asks."""
    inner = [encoder_of(one) for one in router.inner if _TEXT in one.needs]
    return inner[0] if inner else str(getattr(router, "encoder"))  # noqa: B009


def state_of(state: State, number: int) -> State:
    """Take the state of one of the inner routers, by its number, out of that of all."""
    start = f"{number}/"
    return {name.removeprefix(start): tensor for name, tensor in state.items() if name.startswith(start)}


def common_members(gates: Sequence[Gate]) -> Tensor | None:
    """Find the experts (P,) that every gate with `members` listens for; None if no gate tells."""
    known = [members for gate in gates if isinstance(members := getattr(gate, "members", None), Tensor)]
    common = set.intersection(*(set(members.tolist()) for members in known)) if known else None
    return None if common is None else torch.tensor(sorted(common), dtype=torch.long)
