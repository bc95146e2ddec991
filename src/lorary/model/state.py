"""A router's state: fetched by the hash of its origins, or fitted and kept."""

import warnings
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError, safe_open

from lorary.adapters.tensor_file import write_tensors
from lorary.errors import LibraryError, RoutingError
from lorary.hashing import hash_json, short_key
from lorary.library import derived
from lorary.library.findings import quote
from lorary.library.library import Library
from lorary.model.base_model import BaseModel
from lorary.model.ensemble import Ensemble
from lorary.model.fingerprint import tensor_facts
from lorary.model.learned import LearnedProbe
from lorary.model.probe import DataProbe
from lorary.options import name_of, to_spec
from lorary.routing.base import Probe, State
from lorary.routing.members import RoomyState
from lorary.tasks.task import Tasks

_SEAL = "seal"


def fetch_or_fit(base: BaseModel, ensemble: Ensemble, on_fit: Callable[[], None] | None = None) -> State:
    """Give the router's state for these experts. `base` carries no experts. Raises E-PROBE where data is missing.

    `on_fit` is called before one is fitted by more than a look at the experts.
    """
    router, tasks, kind = ensemble.router, ensemble.tasks, name_of(ensemble.router)
    probe = make_probe(base, ensemble)
    if "learned" in router.needs:
        if ensemble.left is not None and ensemble.left[:2] == (kind, ensemble.members):
            return ensemble.left[2]
        return in_rows(router.fit(ensemble.experts, ensemble.sites, probe))  # it stands in the library as it is
    origins = [router.deciding_options(), ensemble.hash, sorted(ensemble.sites)]
    if probe is not None:
        origins.append(base.identity)  # its dtype, too: in another it computes other numbers; and how it reads texts
    if "examples" in router.needs and tasks is not None:
        known = [tasks[t].hash for names in ensemble.owned.values() for t in names if t in tasks]
        origins.append(known)
    key = short_key(*origins)
    if found := _fetch(ensemble.library, kind, key):
        return in_rows(found)
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
        return LearnedProbe(ensemble.members)
    if "examples" not in needs:
        return DataProbe(base, ensemble.experts, ensemble.sites, {}, Tasks([])) if "base" in needs else None
    if ensemble.tasks is None:
        raise RoutingError(
            "E-PROBE",
            f"router {to_spec(ensemble.router)!r} needs the tasks that the library was built from.",
            "Pass tasks=..., or on the command line --tasks DIR.",
        )
    return DataProbe(base, ensemble.experts, ensemble.sites, ensemble.owned, ensemble.tasks)


def _fetch(library: Library, kind: str, key: str) -> State | None:
    """Read a state that was kept, if there is one. A damaged one is as good as none: it can be fitted again."""
    if (path := derived.get(library, kind, key, "safetensors")) is None:
        return None
    try:
        with safe_open(path, framework="pt") as file:
            told = (file.metadata() or {}).get(_SEAL)
            state: State = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
        if told == _seal(kind, key, state):
            return state
    except FileNotFoundError:  # another process collected it since we looked
        return None
    except (OSError, SafetensorError):
        pass
    what = f"library {quote(library.path.name)}: derived/{path.name} is damaged, the router is fitted again."
    warnings.warn(what, RuntimeWarning, stacklevel=2)
    return None


def _keep(library: Library, kind: str, key: str, state: State) -> None:
    def write(path: Path) -> None:
        write_tensors(state, path, {_SEAL: _seal(kind, key, state)})

    try:
        derived.put(library, kind, key, "safetensors", write)
    except LibraryError as error:
        if error.code not in ("E-PATH", "E-PERM", "E-DISK"):  # the library works without, it just fits again next time
            raise


def _seal(kind: str, key: str, state: State) -> str:
    """Hash a state and what it is the state of, so that neither a flipped bit nor another file's content passes."""
    return hash_json([kind, key, *tensor_facts(state)])
