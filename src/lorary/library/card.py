"""The model card: README.md with front matter that the Hub understands, and a table of the experts."""

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lorary.disk.reading import open_regular
from lorary.disk.writing import write_whole
from lorary.errors import LibraryError
from lorary.library.adapter.expert import Expert
from lorary.library.layout import Layout

MARK = "<!-- written by lorary; delete this line to keep your own text -->"
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", re.ASCII)
_TAGS = ("lora", "lorary", "lora-library")


def write_card(layout: Layout, base: Mapping[str, object] | None, experts: Sequence[Expert]) -> None:
    """Write README.md, unless there is one that lorary didn't write."""
    if os.path.lexists(layout.card) and not _is_ours(layout.card):
        return
    write_whole(layout.card, make_card(layout.root.name, base, experts).encode())


def _is_ours(card: Path) -> bool:
    try:
        with open_regular(card) as file:
            return MARK.encode() in file.read()
    except LibraryError:  # a link or a FIFO: somebody's
        return False


def make_card(title: str, base: Mapping[str, object] | None, experts: Sequence[Expert]) -> str:
    """Make the card's text. The base appears by its public name, never by a path of somebody's disk."""
    rows = [_row(expert) for expert in experts]
    lines = [
        *_front_matter(base, experts),
        MARK,
        "",
        f"# {_cell(title)}",
        "",
        f"A library of {len(experts)} LoRA experts on one frozen base. Each is a plain PEFT adapter directory:",
        '`PeftModel.from_pretrained(base, "<this>", subfolder="experts/<name>")`.',
        "",
        "| expert | tasks | steps | metrics | licence | parents |",
        "|---|---|---|---|---|---|",
        *rows,
        "",
    ]
    return "\n".join(lines)


def public_base_name(base: Mapping[str, object] | None, experts: Sequence[Expert]) -> str | None:
    """Find the base's name as on the Hub (`user/model` or `model`); None when only local paths are known."""
    names = [(base or {}).get("name"), *(expert.config.get("base_model_name_or_path") for expert in experts)]
    return next((name for name in names if isinstance(name, str) and _HUB_NAME.fullmatch(name)), None)


def _front_matter(base: Mapping[str, Any] | None, experts: Sequence[Expert]) -> list[str]:
    name = public_base_name(base, experts)
    licences = {expert.provenance.licence for expert in experts}
    licence = licences.pop() if len(licences) == 1 else ""
    return [
        "---",
        "library_name: peft",
        *([f"base_model: {json.dumps(name)}", "base_model_relation: adapter"] if name else []),
        *([f"license: {json.dumps(licence)}"] if licence else []),
        "tags:",
        *(f"- {tag}" for tag in _TAGS),
        "---",
    ]


def _row(expert: Expert) -> str:
    made = expert.provenance
    metrics = ", ".join(f"{name} {value:.4g}" for name, value in sorted(made.metrics.items()))
    steps = "" if made.steps is None else f"{made.steps:,}"
    cells = [expert.name, ", ".join(made.tasks), steps, metrics, made.licence, ", ".join(made.parents)]
    return f"| {' | '.join(_cell(cell) for cell in cells)} |"


def _cell(text: str) -> str:
    """Make foreign text harmless in Markdown: one line, no markup."""
    flat = "".join(letter if letter.isprintable() else " " for letter in text)
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", flat)
