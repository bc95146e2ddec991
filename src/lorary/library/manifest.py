"""library.json: the schema version and the base; the rest is a summary for other programs."""

import importlib.metadata
import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

from lorary.disk.reading import read_capped
from lorary.disk.strict_json import parse_object
from lorary.disk.writing import write_whole
from lorary.errors import LibraryError, quote
from lorary.library.adapter.expert import Expert
from lorary.library.layout import SCHEMA_VERSION, Layout

MAX_BYTES = 100_000_000


@dataclass(frozen=True)
class Manifest:
    """What can't be read off the directories: which base, who made the library, and where it was fetched from."""

    base: dict[str, Any] | None
    created_by: str
    source: str = ""
    """Where it was pulled from, as hf://user/repo@commit."""


def read_manifest(layout: Layout) -> Manifest:
    """Read library.json. Raises E-LIBRARY when it is damaged and E-SCHEMA when a newer lorary wrote it."""
    called = str(layout.manifest)
    try:
        fields = parse_object(read_capped(layout.manifest, MAX_BYTES, "E-LIBRARY"), called, "E-LIBRARY")
    except LibraryError as caught:
        raise caught.reworded(caught.message, _mend(layout)) from None
    version = fields.get("schema_version")
    if type(version) is not int or version < 1:
        message = f"{called}: schema_version is {quote(version)}, expected {SCHEMA_VERSION}."
        raise LibraryError("E-LIBRARY", message, _mend(layout))
    if version > SCHEMA_VERSION:
        message = f"{called} has schema {version}; this lorary reads up to {SCHEMA_VERSION}."
        raise LibraryError("E-SCHEMA", message, "Install a newer lorary.")
    base, created_by, source = fields.get("base"), fields.get("created_by", ""), fields.get("source", "")
    if not isinstance(base, dict | None) or not isinstance(created_by, str) or not isinstance(source, str):
        message = f"{called}: base must be an object or null, created_by and source strings."
        raise LibraryError("E-LIBRARY", message, _mend(layout))
    return Manifest(base, created_by, source)


def _mend(layout: Layout) -> str:
    return f"The experts don't need it: delete it, then make a library of them, `lorary add NEW {layout.root}`."


def write_manifest(layout: Layout, manifest: Manifest, experts: Iterable[Expert]) -> None:
    """Replace library.json by one that lists these experts."""
    fields = {
        "schema_version": SCHEMA_VERSION,
        "base": manifest.base,
        "created_by": manifest.created_by,
        **({"source": manifest.source} if manifest.source else {}),
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


@cache
def this_version() -> str:
    """Name the program that writes: `lorary 0.1.0`."""
    return f"lorary {importlib.metadata.version('lorary')}"
