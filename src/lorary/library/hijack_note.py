"""Experts that were found to take most of every text when a router was fitted, noted beside its state for later.

A note counts if this user's lorary wrote it, and for experts whose weights are still those that were measured.
"""

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lorary.disk.reading import read_capped
from lorary.disk.seal import is_sealed, seal, sealer
from lorary.disk.strict_json import parse_object
from lorary.errors import LibraryError, LoraryError
from lorary.library import derived
from lorary.library.adapter.expert import Expert
from lorary.library.adapter.findings import Finding, warning
from lorary.library.library import Library

CODE = "W-HIJACK"
_KIND = "hijack"
_MAX_BYTES = 1_000_000


def note_hijack(library: Library, router: str, shares: Mapping[str, float], caught: list[str]) -> None:
    """Note which experts were found under a router, or that none was. In a read-only library nothing is noted."""
    key = f"{router}_{sealer()}"
    if not caught:
        with contextlib.suppress(OSError):
            if (old := derived.get(library, _KIND, key, "json")) is not None:
                old.unlink()
        return
    found = {name: {"share": shares[name], "weights": library[name].provenance.weights_sha256} for name in caught}
    fields: dict[str, Any] = {"router": router, "n_experts": len(shares), "experts": found}
    text = json.dumps({**fields, "seal": seal(_KIND, fields)}, sort_keys=True)

    def write(path: Path) -> None:
        path.write_text(text, encoding="utf-8")

    with contextlib.suppress(LoraryError):
        derived.put(library, _KIND, key, "json", write)


def noted_hijacks(library: Library, expert: Expert) -> list[Finding]:
    """Tell under which routers an expert was found to take most of every text."""
    findings = []
    for name in derived.namesakes(library, _KIND, "", "json"):
        fields = _read(library.layout.derived / name)
        found = fields.get("experts", {}).get(expert.name)
        if found and found["weights"] and found["weights"] == expert.provenance.weights_sha256:
            told = in_words(found["share"], fields["n_experts"])
            findings.append(warning(CODE, f"under {fields['router']} it {told}", HINT))
    return findings


def in_words(share: float, n_experts: int) -> str:
    """Say what such an expert does."""
    of_what = f"takes {share:.0%} of a text about nothing in particular, among {n_experts}"
    return f"{of_what}: it points in a direction that all states share rather than in that of a task."


HINT = "Remove it, or route with max_share, which leaves out experts that take more."


def _read(path: Path) -> dict[str, Any]:
    try:
        fields = parse_object(read_capped(path, _MAX_BYTES, "E-FILE"), path.name, "E-FILE")
    except LibraryError:
        return {}
    told = fields.pop("seal", None)
    return fields if isinstance(told, str) and is_sealed(told, _KIND, fields) else {}
