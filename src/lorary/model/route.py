"""Library + router -> routed model: load the weights, fetch or fit the state, attach."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import get_args

from safetensors.torch import load_file, save_file

from lorary.adapters.base import Bank, Experts, Mix, Site
from lorary.adapters.kinds.lora import LoRA
from lorary.adapters.peft_format import read_experts
from lorary.errors import AdapterError, LibraryError, OptionError, RoutingError, known_names
from lorary.folder import ROUTERS
from lorary.hashing import short_key
from lorary.library import derived
from lorary.library.library import Library
from lorary.model.attach import Attachment, Slot
from lorary.model.base_model import BaseModel
from lorary.model.probe import DataProbe, make_encoder
from lorary.model.routed_model import RoutedModel
from lorary.options import to_spec
from lorary.routing.base import Gate, Router, State
from lorary.tasks.task import Tasks


def route(
    base: BaseModel,
    library: Library,
    router: Router | str,
    *,
    mix: Mix = "factors",
    tasks: Tasks | None = None,
) -> RoutedModel:
    """Route a library into a base. Close the model, or leave its `with`, to have the base back.

    mix: "factors" is the paper's, "outputs" PEFT's; see adapters/mixing.py. `tasks`: training data, for routers that
    need examples. The router's state is kept in the library's derived/ under the hash of its origins.
    Raises E-EMPTY for a library without experts, E-BASE for another base, E-RANK for ranks that `mix` can't hold.
    """
    router = ROUTERS.parse(router) if isinstance(router, str) else router
    if not library:
        raise LibraryError("E-EMPTY", f"library {str(library.path)!r} holds no experts.", "Add or build some first.")
    check_base(base, library)
    experts = read_experts(library)
    sites = find_sites(base, experts)
    check_mix(experts, mix)
    owned = {name: tuple(library[name].provenance.tasks) for name in sorted(library)}
    state = _fetch_or_fit(base, library, router, experts, sites, owned, tasks)
    parts = make_parts(base, experts, sites, router, state)
    return RoutedModel(
        base,
        Attachment(base.hf, parts, Slot(mix)),
        names=sorted(experts),
        router=router,
        library_hash=library.hash,
        owner={task: index for index, name in enumerate(sorted(library)) for task in owned[name]},
        encoder=make_encoder(getattr(router, "encoder"), base) if "text" in router.needs else None,  # noqa: B009
    )


def check_base(base: BaseModel, library: Library) -> None:
    """Refuse a library that was made on another base. One without a fingerprint passes; shapes still must fit."""
    if library.base is None:
        return
    differing = [key for key in base.fingerprint if library.base.get(key) != base.fingerprint[key]]
    if differing:
        raise LibraryError(
            "E-BASE",
            f"library {str(library.path)!r} was made on another base: {', '.join(differing)} differ.",
            "Load the base it was made on; `lorary show` names it.",
        )


def find_sites(base: BaseModel, experts: Experts) -> dict[str, Site]:
    """List the base's sites where any expert has weights, in the base's order. Raises E-TARGET for one it lacks."""
    wanted = {site: name for name in experts for site in experts[name]}
    for site, name in wanted.items():
        if site not in base.sites:
            raise AdapterError(
                "E-TARGET", f"expert {name!r} adapts {site!r}, which this base doesn't have.", "Is it the right base?"
            )
    return {name: site for name, site in base.sites.items() if name in wanted}


def check_mix(experts: Experts, mix: Mix) -> None:
    """Refuse mix="factors" for experts of unequal rank at a site, by name (E-RANK), and an unknown mix (E-OPTION)."""
    if mix not in get_args(Mix):
        raise OptionError("E-OPTION", f"unknown mix {mix!r}.", known_names(mix, get_args(Mix)))
    first: dict[str, tuple[str, int]] = {}
    for name in sorted(experts) if mix == "factors" else ():
        for site, weights in experts[name].items():
            other, rank = first.setdefault(site, (name, weights.rank))
            if weights.rank != rank:
                raise RoutingError(
                    "E-RANK",
                    f'expert {name!r}: rank {weights.rank} at {site!r}, but mix="factors" needs one rank for all '
                    f"({other!r}: {rank}).",
                    f'Use mix="outputs", or rebuild with rank={rank}.',
                )


def make_parts(
    base: BaseModel, experts: Experts, sites: Mapping[str, Site], router: Router, state: State
) -> dict[str, tuple[Bank, Gate]]:
    """Pack the bank and make the gate of every site, on the base's device."""
    names = sorted(experts)
    parts = {}
    for name, site in sites.items():
        bank = LoRA().pack([experts[expert].get(name) for expert in names], site).cast(base.dtype)
        parts[name] = (bank.to(base.device), router.gate(site, state, names).to(base.device))
    return parts


def _fetch_or_fit(
    base: BaseModel,
    library: Library,
    router: Router,
    experts: Experts,
    sites: Mapping[str, Site],
    owned: Mapping[str, Sequence[str]],
    tasks: Tasks | None,
) -> State:
    origins = [router.deciding_options(), library.hash, sorted(sites)]
    probe = None
    if "examples" in router.needs:
        if tasks is None:
            raise RoutingError(
                "E-PROBE",
                f"router {to_spec(router)!r} needs the tasks that the library was built from.",
                "Pass tasks=..., or on the command line --tasks DIR.",
            )
        probe = DataProbe(base, experts, sites, owned, tasks)
        origins += [base.fingerprint, [tasks[t].hash for names in owned.values() for t in names if t in tasks]]
    elif "base" in router.needs:
        probe = DataProbe(base, experts, sites, {}, Tasks([]))
        origins += [base.fingerprint]
    kind, key = to_spec(router).partition(":")[0], short_key(*origins)
    if found := derived.get(library, kind, key, "safetensors"):
        return load_file(found)
    state = router.fit(experts, sites, probe)
    if state:
        _keep(library, kind, key, state)
    return state


def _keep(library: Library, kind: str, key: str, state: State) -> None:
    def write(path: Path) -> None:
        save_file({name: tensor.contiguous() for name, tensor in state.items()}, path)

    try:
        derived.put(library, kind, key, "safetensors", write)
    except LibraryError as error:
        if error.code != "E-PERM":  # a read-only library works, it just fits again next time
            raise
