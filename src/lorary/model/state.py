"""A router's state: fetched by the hash of its origins, or fitted and kept."""

from collections.abc import Callable
from pathlib import Path

from safetensors.torch import load_file, save_file

from lorary.errors import LibraryError, RoutingError
from lorary.hashing import short_key
from lorary.library import derived
from lorary.library.library import Library
from lorary.model.base_model import BaseModel
from lorary.model.ensemble import Ensemble
from lorary.model.learned import LearnedProbe
from lorary.model.probe import DataProbe
from lorary.options import to_spec
from lorary.routing.base import Probe, State
from lorary.routing.members import RoomyState
from lorary.tasks.task import Tasks


def fetch_or_fit(base: BaseModel, ensemble: Ensemble, on_fit: Callable[[], None] | None = None) -> State:
    """Give the router's state for these experts. `base` carries no experts. Raises E-PROBE where data is missing.

    `on_fit` is called before one is fitted by more than a look at the experts.
    """
    router, tasks = ensemble.router, ensemble.tasks
    probe = make_probe(base, ensemble)
    if "learned" in router.needs:
        return in_rows(router.fit(ensemble.experts, ensemble.sites, probe))  # it stands in the library as it is
    origins = [router.deciding_options(), ensemble.hash, sorted(ensemble.sites)]
    if probe is not None:
        origins.append(base.identity["base"])
    if "examples" in router.needs and tasks is not None:
        known = [tasks[t].hash for names in ensemble.owned.values() for t in names if t in tasks]
        origins.append(known)
    kind, key = to_spec(router).partition(":")[0], short_key(*origins)
    if found := derived.get(ensemble.library, kind, key, "safetensors"):
        return in_rows(load_file(found))
    if on_fit is not None and probe is not None:
        on_fit()
    state = in_rows(router.fit(ensemble.experts, ensemble.sites, probe))
    if state:
        _keep(ensemble.library, kind, key, state)
    return state


def in_rows(state: State) -> RoomyState:
    """Copy a state to where its rows may grow, unless it is there.

    Also for the bits: products with numbers that lie otherwise, or unaligned in a mapped file, differ in their last.
    """
    return state if isinstance(state, RoomyState) else RoomyState(state)


def make_probe(base: BaseModel, ensemble: Ensemble) -> Probe | None:
    """Make what answers the router's questions; None if it has none. Raises E-PROBE."""
    needs = ensemble.router.needs
    if "learned" in needs:
        return LearnedProbe(ensemble.library)
    if "examples" not in needs:
        return DataProbe(base, ensemble.experts, ensemble.sites, {}, Tasks([])) if "base" in needs else None
    if ensemble.tasks is None:
        raise RoutingError(
            "E-PROBE",
            f"router {to_spec(ensemble.router)!r} needs the tasks that the library was built from.",
            "Pass tasks=..., or on the command line --tasks DIR.",
        )
    return DataProbe(base, ensemble.experts, ensemble.sites, ensemble.owned, ensemble.tasks)


def _keep(library: Library, kind: str, key: str, state: State) -> None:
    def write(path: Path) -> None:
        save_file(state, path)

    try:
        derived.put(library, kind, key, "safetensors", write)
    except LibraryError as error:
        if error.code != "E-PERM":  # a read-only library works, it just fits again next time
            raise
