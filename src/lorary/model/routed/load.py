"""Load a saved model; `saved` tells the format."""

import os
from collections.abc import Mapping
from pathlib import Path
from types import NoneType
from typing import Any

import torch

from lorary.disk.reading import open_regular
from lorary.errors import LibraryError, ModelError, RoutingError, quote
from lorary.hashing import hash_file
from lorary.library.adapter.expert import Expert, read_expert
from lorary.library.library import Library
from lorary.model.attached.attachment import Attachment
from lorary.model.attached.slot import Slot
from lorary.model.base import base_model
from lorary.model.base.base_model import BaseModel
from lorary.model.base.named_bases import absence, find_base, remember_fit
from lorary.model.ensemble.ensemble import (
    Ensemble,
    Parts,
    check_base,
    check_mix,
    find_sites,
    make_pager,
    make_parts,
    open_expert,
    require_listeners,
)
from lorary.model.ensemble.state_file import most_bytes, read_any, tell_origin
from lorary.model.routed.hijack import watch_shares
from lorary.model.routed.routed_model import RoutedModel
from lorary.model.saved.format import MODEL, STATE, Saved, about_state, read_saved, require_same
from lorary.options import require, to_spec
from lorary.routing.contract import State


@torch.inference_mode(False)  # what is made in that mode can take part in no training
def load(
    directory: Path | str | Saved,
    *,
    base: BaseModel | None = None,
    device: str = "auto",
    dtype: str | None = None,
    memory: str | int | None = None,
    outside: bool = False,
    **reading: object,
) -> RoutedModel:
    """Load a saved model: on `base`, or on the base that it names, if that is on this machine.

    `directory`: of the saved model, or what `read_saved` read of it already.
    `device`, `dtype` and `reading` (what else `load_base` takes) are for the base that it names; by default its dtype
    is that of the saved one.
    `memory`: as in `route`. `outside`: let a model that somebody else saved read experts elsewhere on this machine, and
    write to the library that it names.
    On the same machine, in the same dtype, it answers as the saved one did, to the bit.
    Raises E-MODEL for what is no saved model, E-SCHEMA, E-BASE, E-PATH for one that reaches outside, E-FILE for an
    expert or state that is missing or has changed, naming it, E-STATE for a state that doesn't fit, and whatever is
    wrong with an expert. A state that this user's lorary didn't write is told of (W-ORIGIN).
    """
    require("base", base, (BaseModel, NoneType), "a base model", "Load one: load_base().")
    saved = directory if isinstance(directory, Saved) else read_saved(directory)
    if not (saved.is_own or outside):
        saved.require_inside()
    members = {name: _open(saved, name, recorded=memory is not None) for name in sorted(saved.experts)}
    base = base or _load_base(saved, device, dtype, reading)
    check_base(base, saved.base["fingerprint"], f"saved model {quote(saved.root.name)}")
    remember_fit(base)
    sites = find_sites(base, members)
    check_mix(members, saved.mix)
    state, is_own = _read_state(saved, members)
    library = Library.open(saved.library, skip_bad=True)
    pager = make_pager(base, memory)
    experts = {name: open_expert(expert, pager) for name, expert in members.items()}
    ensemble = Ensemble(members, experts, sites, saved.router, saved.mix, state, None, library, pager)
    model = RoutedModel(base, Attachment(base.hf, _fitting_parts(base, ensemble), Slot(saved.mix)), ensemble)
    if not is_own:
        watch_shares(model, f"saved model {quote(saved.root.name)}")
    return model


def _load_base(saved: Saved, device: str, dtype: str | None, reading: Mapping[str, Any]) -> BaseModel:
    name = str(saved.base["name"])
    here = find_base(name, saved.base["fingerprint"])
    if here is None:
        what = f"saved model {quote(saved.root.name)} was made on base {quote(name, 200)}, which {absence(name)}."
        raise ModelError("E-BASE", what, "Load it yourself and pass base=...")
    return base_model.load_base(here, device=device, dtype=dtype or str(saved.base["dtype"]), **reading)


def _open(saved: Saved, name: str, *, recorded: bool) -> Expert:
    expected, directory = saved.experts[name]
    if not directory.is_dir():
        what = (
            f"expert {quote(name)} of saved model {quote(saved.root.name)} is missing: no {quote(str(directory), 200)}."
        )
        raise LibraryError("E-FILE", what, "Restore it there, or save the model again.")
    expert = read_expert(directory, name)
    require_same(expert, expected, recorded=recorded)
    return expert


def _read_state(saved: Saved, members: Mapping[str, Expert]) -> tuple[State, bool]:
    """Read what the router knows, and whether this user's lorary wrote it; telling the user if not."""
    if saved.state is None:
        return {}, True
    path, expected, limit = saved.root / STATE, saved.state, most_bytes(members.values(), saved.router)
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
    if size > limit:
        raise LibraryError("E-LIMIT", f"{STATE} has {size:,} bytes, the limit for these experts is {limit:,}.")
    if size != expected["size_bytes"] or hash_file(path) != expected["sha256"]:
        raise LibraryError("E-FILE", f"{STATE} is damaged: not the file that {MODEL} names.", "Save the model again.")
    state, is_own = read_any(path, limit, *about_state(saved.router, {n: h for n, (h, _) in saved.experts.items()}))
    if not is_own:
        tell_origin(f"saved model {quote(saved.root.name)}: the state of router {to_spec(saved.router)!r}")
    return state, is_own


def _fitting_parts(base: BaseModel, ensemble: Ensemble) -> Parts:
    try:
        parts = make_parts(base, ensemble)
        require_listeners(ensemble, parts)
    except (KeyError, IndexError, ValueError, RuntimeError, TypeError) as error:
        what = f"{STATE} doesn't fit the router: {type(error).__name__}: {str(error).partition(chr(10))[0]}."
        raise RoutingError("E-STATE", what, "Save the model again.") from error
    return parts
