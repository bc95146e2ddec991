"""library.json: the schema version and the base; the rest is a note for those who don't read directories."""

import importlib.metadata
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from lorary.disk import write_whole
from lorary.errors import LibraryError
from lorary.library.expert import Expert
from lorary.library.files import read_capped
from lorary.library.findings import quote
from lorary.library.layout import SCHEMA_VERSION, Layout
from lorary.library.strict_json import parse_object

MAX_BYTES = 100_000_000


@dataclass(frozen=True)
class Manifest:
    """What can't be read off the directories: which base, and who made the library."""

    base: dict[str, Any] | None
    created_by: str


def read_manifest(layout: Layout) -> Manifest:
    """Read library.json. Raises E-LIBRARY when it is damaged and E-SCHEMA when a newer lorary wrote it."""
    fields = parse_object(read_capped(layout.manifest, MAX_BYTES, "E-LIBRARY"), "library.json", "E-LIBRARY")
    version = fields.get("schema_version")
    if type(version) is not int or version < 1:
        raise LibraryError("E-LIBRARY", f"library.json: schema_version is {quote(version)}, expected {SCHEMA_VERSION}.")
    if version > SCHEMA_VERSION:
        message = f"library.json has schema {version}; this lorary reads up to {SCHEMA_VERSION}."
        raise LibraryError("E-SCHEMA", message, "Install a newer lorary.")
    base, created_by = fields.get("base"), fields.get("created_by", "")
    if not isinstance(base, dict | None) or not isinstance(created_by, str):
        raise LibraryError("E-LIBRARY", "library.json: base must be an object or null, created_by a string.")
    return Manifest(base, created_by)


def write_manifest(layout: Layout, manifest: Manifest, experts: Iterable[Expert]) -> None:
    """Replace library.json by one that lists these experts."""
    fields = {
        "schema_version": SCHEMA_VERSION,
        "base": manifest.base,
        "created_by": manifest.created_by,
        "experts": {expert.name: _summary(expert) for expert in experts},
    }
    write_whole(layout.manifest, (json.dumps(fields, indent=2, sort_keys=True) + "\n").encode())


def _summary(expert: Expert) -> dict[str, Any]:
    return {
        "tasks": list(expert.provenance.tasks),
        "rank": expert.rank,
        "n_parameters": expert.n_parameters,
        "weights_sha256": expert.provenance.weights_sha256,
    }


def this_version() -> str:
    """Name the program that writes: `lorary 0.1.0`."""
    return f"lorary {importlib.metadata.version('lorary')}"
