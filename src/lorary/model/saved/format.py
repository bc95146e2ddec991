"""A routed model on disk: saved whole, loaded again with the same answers, to the bit.

    mymodel/
      model.json           schema_version, created_by, base (name, dtype, fingerprint), router (name, options), mix,
                           state (sha256, size_bytes) or null, library (where, or null: copied), experts by name:
                           hash and directory, relative to this one; seal: of all this, by the user who saved it
      state.safetensors    what the router knows; absent if it knows nothing
      experts/<name>/      plain PEFT adapter directories, unless they were referred to

With copied experts the directory is also a folder of adapters that opens as a library. Nothing in it is ever run. What
is outside of it is read, and written to, only if this user saved it so, or says so.
"""

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, cast, get_args

from lorary.adapters.contract import Mix
from lorary.disk.reading import as_path, read_capped
from lorary.disk.seal import is_sealed
from lorary.disk.strict_json import parse_object
from lorary.errors import LibraryError, ModelError, quote
from lorary.folder import ROUTERS
from lorary.library.adapter.expert import Expert
from lorary.library.layout import MODEL as MODEL
from lorary.library.layout import check_name
from lorary.options import as_dict, make
from lorary.routing.contract import Router

SCHEMA_VERSION = 1
MAX_BYTES = 100_000_000
STATE, SEAL = "state.safetensors", "seal"
Keep = Literal["copy", "refer"]


@dataclasses.dataclass(frozen=True)
class Saved:
    """model.json, understood; paths are absolute. is_own: this user's lorary wrote it."""

    root: Path
    base: Mapping[str, Any]
    router: Router
    mix: Mix
    state: Mapping[str, Any] | None
    library: Path
    experts: Mapping[str, tuple[str, Path]]  # name -> hash, directory
    is_own: bool = False

    def require_inside(self) -> None:
        """Refuse experts and a library that are not in the model's own directory (E-PATH), links followed."""
        places = {"library": self.library, **{f"expert {quote(n)}": path for n, (_, path) in self.experts.items()}}
        root = os.path.realpath(self.root)
        for what, path in places.items():
            found = os.path.realpath(path)
            if found != root and not found.startswith(root.rstrip(os.sep) + os.sep):
                told = f"saved model {quote(self.root.name)} was not saved by you, and its {what} is outside of it: "
                hint = "If you trust it: lo.load(..., outside=True). Or route the library itself."
                raise LibraryError("E-PATH", f"{told}{quote(found, 200)}.", hint)


def require_same(expert: Expert, expected: str, *, recorded: bool = False) -> None:
    """Raise E-FILE unless an expert has the hash that it had when the model was saved; `recorded`: as its own says."""
    found = expert.recorded_hash if recorded else expert.hash
    if found != expected:
        what = f"expert {quote(expert.name)} has changed since: hash {found[:12]}, expected {expected[:12]}."
        raise LibraryError("E-FILE", what, "Bring the old one back, or route the library anew.")


def about_state(router: Router, hashes: Mapping[str, str]) -> tuple[object, ...]:
    """Say what a saved model's state is about, for its seal: the router, and the hashes of the experts by name."""
    return "saved", as_dict(router), dict(hashes)


def read_saved(directory: Path | str) -> Saved:
    """Read model.json strictly. Raises E-MODEL, E-SCHEMA, E-PATH, and E-NAME and E-OPTION for the router."""
    root = as_path(directory)
    if not os.path.isdir(root) or not (root / MODEL).exists():
        raise ModelError("E-MODEL", f"{quote(str(root), 200)} is no saved model: no {MODEL}.", "Check the path.")
    fields = parse_object(read_capped(root / MODEL, MAX_BYTES, "E-MODEL"), MODEL, "E-MODEL")
    seal = fields.pop(SEAL, None)
    version = fields.get("schema_version")
    if type(version) is int and version > SCHEMA_VERSION:
        what = f"{MODEL} has schema {version}; this lorary reads up to {SCHEMA_VERSION}."
        raise LibraryError("E-SCHEMA", what, "Install a newer lorary.")
    if version != SCHEMA_VERSION:
        raise ModelError("E-MODEL", f"{MODEL}: schema_version is {quote(version)}, expected {SCHEMA_VERSION}.")
    base = _object(fields, "base", {"name": str, "dtype": str, "fingerprint": dict})
    router = _object(fields, "router", {"name": str, "options": dict})
    state = fields.get("state")
    if state is not None:
        state = _object(fields, "state", {"sha256": str, "size_bytes": int})
    if fields.get("mix") not in get_args(Mix):
        raise ModelError("E-MODEL", f"{MODEL}: mix is {quote(fields.get('mix'))}, expected one of {get_args(Mix)}.")
    library = fields.get("library")
    if not isinstance(library, str | None):
        raise ModelError("E-MODEL", f"{MODEL}: library is {quote(library)}, expected a path or null.")
    return Saved(
        root,
        base,
        cast(Router, make(ROUTERS.load(router["name"]), router["options"], called=router["name"])),
        fields["mix"],
        state,
        root / (library or "."),
        _read_experts(root, fields),
        is_sealed(seal if isinstance(seal, str) else None, "model", fields),
    )


def _read_experts(root: Path, fields: Mapping[str, Any]) -> dict[str, tuple[str, Path]]:
    experts = _object(fields, "experts", {})
    if not experts:
        raise ModelError("E-MODEL", f"{MODEL} names no experts.")
    found = {}
    for name in experts:
        check_name(name)
        entry = _object(experts, name, {"hash": str, "directory": str})
        if "\0" in entry["directory"]:
            raise ModelError("E-MODEL", f"{MODEL}: the directory of {quote(name)} is no path.")
        found[name] = (entry["hash"], root / entry["directory"])
    return found


def _object(fields: Mapping[str, Any], key: str, types: Mapping[str, type]) -> dict[str, Any]:
    """Read an object with these keys, of these types; others may stand beside them. Raises E-MODEL."""
    value = fields.get(key)
    if not isinstance(value, dict):
        raise ModelError("E-MODEL", f"{MODEL}: {quote(key)} is {quote(value)}, expected an object.")
    for name, kind in types.items():
        if type(value.get(name)) is not kind:
            what = f"{MODEL}: {quote(name)} in {quote(key)} is {quote(value.get(name))}, expected {kind.__name__}."
            raise ModelError("E-MODEL", what)
    return value
