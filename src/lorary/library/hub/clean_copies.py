"""What of a library leaves this machine: copies of its experts, its note and its card, cleaned of what is private."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from lorary.disk.strict_json import parse_object
from lorary.errors import LibraryError, quote
from lorary.library.adapter.chat_template import TEMPLATE
from lorary.library.adapter.expert import Expert, read_expert
from lorary.library.adapter.header import open_tensors
from lorary.library.base_names import shared_name
from lorary.library.hub.privacy import cleaned, left_out, what_is_private
from lorary.library.layout import CONFIG, MANIFEST, PROVENANCE, WEIGHTS, Layout
from lorary.library.manifest import Manifest, this_version, write_manifest
from lorary.progress import Tell


class Shelf(Protocol):
    """A library, as far as it is shared: its experts by name, its base, and where it stands."""

    @property
    def path(self) -> Path: ...  # noqa: D102

    @property
    def base(self) -> dict[str, Any] | None: ...  # noqa: D102

    def values(self) -> Any: ...  # noqa: D102


def share_experts(experts: Sequence[Expert], stage: Path, tell: Tell) -> list[Expert]:
    """Copy experts to a directory as `copy_to` does, without private entries; `tell` hears which were left out.

    Raises E-PRIVATE where leaving it out would change the expert, and what `copy_to` and `check` raise.
    """
    return [_share(expert, stage / "experts" / expert.name, tell) for expert in experts]


def _share(expert: Expert, target: Path, tell: Tell) -> Expert:
    expert.copy_to(target)
    for name in (CONFIG, PROVENANCE):
        _clean_file(target / name, f"{expert.name}/{name}", tell)
    for what, text in _kept_texts(target):
        if found := what_is_private(text):
            message = f"expert {quote(expert.name)}: its {what} holds {found}, and nothing was sent."
            raise LibraryError("E-PRIVATE", message, "Take it out of the file and add the expert again (--replace).")
    return read_expert(target, expert.name)


def _kept_texts(directory: Path) -> Iterator[tuple[str, str]]:
    """Give the texts of a copy that can't lose an entry and stay the same."""
    with open_tensors(directory / WEIGHTS) as tensors:
        yield f"{WEIGHTS}, as metadata,", " ".join([*tensors.metadata, *tensors.metadata.values()])
    if (directory / TEMPLATE).exists():
        yield TEMPLATE, (directory / TEMPLATE).read_text(encoding="utf-8")


def _clean_file(path: Path, called: str, tell: Tell) -> None:
    if not path.exists():
        return
    found = parse_object(path.read_bytes(), called, "E-CONFIG")
    if lost := list(left_out(found)):
        tell(f"{called}: left out, for it is private: {', '.join(lost)}")
        path.write_text(json.dumps(cleaned(found), indent=2) + "\n", encoding="utf-8")


def share_note(base: Mapping[str, Any] | None, experts: Sequence[Expert], stage: Path, tell: Tell) -> None:
    """Write the library.json that goes with copies of experts."""
    known = dict(base) if base is not None else None
    if known is not None and isinstance(known.get("name"), str):
        known["name"] = shared_name(known["name"])
    layout = Layout(stage)
    write_manifest(layout, Manifest(known, this_version()), experts)
    _clean_file(layout.manifest, MANIFEST, tell)
