"""States that hold a row for every expert that listens at a site: stacked, and kept up as experts come and go."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lorary.adapters.contract import Experts, Site
from lorary.adapters.growing_rows import Room, in_room, splice
from lorary.errors import RoutingError
from lorary.routing.contract import State

_NOBODY = torch.zeros(0, dtype=torch.long)


class RoomyState(dict[str, Tensor]):
    """A state in memory of its own, laid out row by row, with room for the rows of experts that are yet to come."""

    def __init__(self, state: State) -> None:
        """Copy a state. The layout is a file's: it decides the last bits of a product."""
        super().__init__()
        self.rooms: dict[str, Room | None] = {}
        for name, tensor in state.items():
            self.put(name, *(in_room([tensor]) if tensor.dim() else (tensor.clone(), None)))

    def put(self, name: str, rows: Tensor, room: Room | None) -> None:
        """Take rows and the room that they are in."""
        self[name], self.rooms[name] = rows, room


def stack_members(site: str, vectors: Mapping[int, Tensor]) -> State:
    """Name the vectors (P, d_in) of one site and the experts (P,) they stand for, as a state keeps them."""
    if not vectors:
        return {}
    return {
        f"{site}.vectors": torch.stack([vectors[i] for i in sorted(vectors)]),
        f"{site}.members": torch.tensor(sorted(vectors)),
    }


def members_at(state: State, site: Site, n_experts: int, *, n_axes: int = 2) -> tuple[Tensor, Tensor, bool]:
    """Read a site's vectors (P, ..., d_in), of `n_axes` axes, the experts (P,) they stand for, and whether all listen.

    Raises E-STATE for a state that isn't of so many experts, or no vectors and places of experts, in order.
    """
    vectors, members = state.get(f"{site.name}.vectors"), state.get(f"{site.name}.members")
    if vectors is None or members is None:
        vectors, members = torch.zeros(0, *[0] * (n_axes - 2), site.d_in), _NOBODY
    are_kinds = vectors.is_floating_point() and members.dtype == torch.long
    if not are_kinds or (vectors.dim(), members.dim()) != (n_axes, 1) or vectors.shape[-1] != site.d_in:
        raise _other_experts(site)
    all_listen = len(members) == n_experts and torch.equal(members, torch.arange(n_experts))
    are_in_order = bool(((members >= 0) & (members < n_experts)).all() and (members.diff() > 0).all())
    if len(vectors) != len(members) or not (all_listen or are_in_order):
        raise _other_experts(site)
    return vectors, members, all_listen


def _other_experts(site: Site) -> RoutingError:
    return RoutingError("E-STATE", f"site {site.name!r}: the router's state is not of these experts.", "Fit anew.")


def refit_members(
    fit: Callable[[Experts], State],
    state: State,
    experts: Experts,
    sites: Collection[str],
    *,
    before: Sequence[str],
    changed: Collection[str],
    parts: Sequence[str] = ("vectors",),
) -> State:
    """Do what `Router.refit` promises, by a `fit` to the changed experts alone.

    For routers whose state has a row for each of a site's members in each of its `parts`, and in each row nothing of
    other experts. Rows that come last are written behind the others; all else copies the rows.
    """
    fresh = fit({name: experts[name] for name in changed}) if changed else {}
    place = {name: i for i, name in enumerate(sorted(experts))}
    stays = torch.tensor([-1 if name in changed else place.get(name, -1) for name in before])  # (E before,)
    comes = torch.tensor([place[name] for name in sorted(changed)], dtype=torch.long)
    rooms = state.rooms if isinstance(state, RoomyState) else {}
    updated, change = RoomyState({}), None
    for site in sites:
        old, new = (s.get(f"{site}.members", _NOBODY) for s in (state, fresh))
        if change is None or not (torch.equal(old, change.old) and torch.equal(new, change.new)):
            change = _Change.between(old, new, stays, comes)
        if len(change.members):
            updated.put(f"{site}.members", change.members.clone(), None)
            for part in parts:
                key = f"{site}.{part}"
                updated.put(key, *change.apply(state.get(key), fresh.get(key), rooms.get(key)))
    return updated


@dataclass(frozen=True, eq=False)
class _Change:
    """What happens to the rows of a site: those from `start` to `stop` give place to those that `source` names.

    old: (P,) the members before. new: (Q,) those of the changed experts, by their places among these.
    source: rows of the old state, and from P on those of the new. members: (M,) who is there afterwards.
    """

    old: Tensor
    new: Tensor
    start: int
    stop: int
    source: Sequence[int]
    members: Tensor

    @classmethod
    def between(cls, old: Tensor, new: Tensor, stays: Tensor, comes: Tensor) -> "_Change":
        """Find it. stays: places afterwards of all that were there (-1: gone); comes: of the changed."""
        places = stays[old]  # (P,)
        rows = torch.cat([torch.arange(len(old))[places >= 0], len(old) + torch.arange(len(new))])
        members, order = torch.cat([places[places >= 0], comes[new]]).sort()
        source = rows[order].tolist()
        n = min(len(source), len(old))
        start = next((i for i in range(n) if source[i] != i), n)
        same = next((i for i in range(n - start) if source[-1 - i] != len(old) - 1 - i), n - start)
        return cls(old, new, start, len(old) - same, source[start : len(source) - same], members)

    def apply(self, old: Tensor | None, new: Tensor | None, room: Room | None) -> tuple[Tensor, Room | None]:
        """Change one part's rows: old (P, ...), new (Q, ...) -> (M, ...) and the room they are in."""
        rows = [t for t in (old, new) if t is not None]
        n = len(self.old)
        coming = [rows[0][i] if i < n else rows[-1][i - n] for i in self.source]
        kept = rows[0] if n else rows[0][:0]
        return splice(kept, self.start, self.stop, torch.stack(coming) if coming else kept[:0], room)
