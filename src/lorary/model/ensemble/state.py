"""A router's state: fetched by the hash of its origins, if this user's own lorary fitted it, or fitted and kept.

It decides the routing. A library from elsewhere may bring one that always picks a single expert: it doesn't count. The
name in derived/ ends with whose it is, so that users who share a library don't write over each other's.
"""

import warnings
from collections.abc import Callable
from pathlib import Path

from lorary.disk.seal import sealer
from lorary.errors import LibraryError, RoutingError, quote
from lorary.hashing import hash_json
from lorary.library import derived
from lorary.library.library import Library
from lorary.model.base.base_model import BaseModel
from lorary.model.ensemble.ensemble import Ensemble
from lorary.model.ensemble.learned import LearnedProbe
from lorary.model.ensemble.state_file import read_own, write_state
from lorary.model.probes.probe import DataProbe
from lorary.options import name_of, to_spec
from lorary.progress import Tell, unheard
from lorary.routing.contract import Probe, Router, State
from lorary.routing.members import RoomyState
from lorary.tasks.task import Tasks

_SHOWN = 16  # digits of the hash of the origins, in a file's name; its seal has them all


def fetch_or_fit(
    base: BaseModel,
    ensemble: Ensemble,
    tell: Tell = unheard,
    on_new: Callable[[], None] | None = None,
) -> State:
    """Give the router's state for these experts. `base` carries no experts. Raises E-PROBE where data is missing.

    `tell` hears of one that is fitted by more than a look at the experts; `on_new` is called after one was made that
    nobody saw before.
    """
    router, tasks, kind = ensemble.router, ensemble.tasks, name_of(ensemble.router)
    probe = make_probe(base, ensemble)
    if "learned" in router.needs:
        if ensemble.left is not None and ensemble.left[:2] == (learner_of(router), ensemble.members):
            return ensemble.left[2]
        if on_new is not None:
            on_new()
        return in_rows(router.fit(ensemble.experts, ensemble.sites, probe))  # it stands in the library as it is
    origins = [router.deciding_options(), ensemble.hash, sorted(ensemble.sites)]
    if probe is not None:
        origins.append(base.identity)  # its dtype, too: in another it computes other numbers; and how it reads texts
    if "examples" in router.needs and tasks is not None:
        known = [tasks[t].hash for names in ensemble.owned.values() for t in names if t in tasks]
        if "tasks" in router.needs:
            known += [tasks[t].hash for t in sorted(tasks)]
        origins.append(known)
    key = hash_json(origins)
    if found := _fetch(ensemble.library, kind, key):
        return found
    if probe is not None:
        tell(f"fitting {to_spec(router)} to {ensemble.library.path.name} ...")
    state = in_rows(router.fit(ensemble.experts, ensemble.sites, probe))
    if state:
        _keep(ensemble.library, kind, key, state)
        if on_new is not None:
            on_new()
    return state


def learner_of(router: Router) -> str:
    """Name what decides which learned state a router has: itself, and the routers that it asks."""
    inner = ",".join(map(learner_of, router.inner))
    return f"{name_of(router)}({inner})" if inner else name_of(router)


def in_rows(state: State) -> RoomyState:
    """Copy a state to where its rows may grow, unless it is there.

    Also for the bits: products with numbers that lie otherwise, or unaligned in a mapped file, differ in their last.
    """
    return state if isinstance(state, RoomyState) else RoomyState(state)


def make_probe(base: BaseModel, ensemble: Ensemble) -> Probe | None:
    """Make what answers the router's questions; None if it has none. Raises E-PROBE."""
    data = _data_probe(base, ensemble)
    return LearnedProbe(ensemble.members, data) if "learned" in ensemble.router.needs else data


def _data_probe(base: BaseModel, ensemble: Ensemble) -> Probe | None:
    needs = ensemble.router.needs
    if "examples" not in needs:
        return DataProbe(base, ensemble.experts, ensemble.sites, {}, Tasks([])) if "base" in needs else None
    tasks = require_tasks(ensemble.router, ensemble.tasks)
    probe = DataProbe(base, ensemble.experts, ensemble.sites, ensemble.owned, tasks)
    if "tasks" not in needs:
        probe.require_own()
    return probe


def require_tasks(router: Router, tasks: Tasks | None) -> Tasks:
    """Refuse to fit a router without the data that it needs. Raises E-PROBE."""
    if tasks is None and "examples" in router.needs:
        raise RoutingError(
            "E-PROBE",
            f"router {to_spec(router)!r} needs the tasks that the library was built from.",
            "Pass tasks=..., or on the command line --tasks TASKS.",
        )
    return tasks or Tasks([])


def _fetch(library: Library, kind: str, key: str) -> State | None:
    """Read a state that this user's lorary kept, if there is one. Any other is as good as none: it can be fitted."""
    if path := derived.get(library, kind, _name(key), "safetensors"):
        if (state := read_own(path, kind, key)) is not None:
            return state
        if not path.exists():  # another process collected it since we looked
            return None
        why = f"derived/{path.name} is damaged"
    elif others := derived.namesakes(library, kind, key[:_SHOWN], "safetensors"):
        why = f"derived/{others[0]} was not fitted by you on this machine or is an older lorary's"
    else:
        return None
    what = f"library {quote(library.path.name)}: {why}, the router is fitted again."
    warnings.warn(what, RuntimeWarning, stacklevel=2)
    return None


def _keep(library: Library, kind: str, key: str, state: State) -> None:
    def write(path: Path) -> None:
        write_state(state, path, kind, key)

    try:
        derived.put(library, kind, _name(key), "safetensors", write)
    except LibraryError as error:
        if error.code not in ("E-PATH", "E-PERM", "E-DISK"):  # the library works without, it just fits again next time
            raise


def _name(key: str) -> str:
    return f"{key[:_SHOWN]}_{sealer()}"
