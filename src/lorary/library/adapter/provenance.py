"""Where an expert comes from: expert.json and metrics.jsonl, files beside the adapter that PEFT ignores."""

import dataclasses
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lorary.disk.reading import read_capped
from lorary.disk.strict_json import is_texts, parse_object
from lorary.errors import LibraryError, ModelError, quote
from lorary.library.layout import METRICS, PROVENANCE

MAX_BYTES = 1_000_000
_NOT_COMPARED = {"name", "revision"}  # what a base is called says nothing of what it is
_OF_VOCABULARY = {"vocab_size", "embedding_signs"}


@dataclass(frozen=True)
class Provenance:
    """What is known about how an expert was made; empty or None where nothing is.

    `weights_sha256` is of the whole safetensors file. `extra` keeps fields that other versions wrote.
    """

    tasks: tuple[str, ...] = ()
    data_hash: str = ""
    builder: dict[str, Any] = field(default_factory=dict)
    seed: int | None = None
    steps: int | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    weights_sha256: str = ""
    base_fingerprint: dict[str, Any] | None = None
    licence: str = ""
    parents: tuple[str, ...] = ()
    created_by: str = ""
    extra: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> bytes:
        """Write it as expert.json: sorted, indented, the extra fields at the top level again."""
        known = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "extra"}
        return (json.dumps({**self.extra, **known}, indent=2, sort_keys=True, allow_nan=False) + "\n").encode()


def read_provenance(directory: Path) -> Provenance:
    """Read an adapter directory's expert.json; an empty Provenance when there is none.

    Raises E-CONFIG for an ill-typed field or bad JSON, E-PATH when it isn't a regular file.
    """
    data = read_provenance_bytes(directory)
    return Provenance() if data is None else parse_provenance(data)


def read_provenance_bytes(directory: Path) -> bytes | None:
    """Read expert.json as it is, None if there is none. Raises as `read_provenance`."""
    path = directory / PROVENANCE
    if not path.exists() and not path.is_symlink():
        return None
    return read_capped(path, MAX_BYTES, "E-CONFIG")


def write_provenance(directory: Path, made: Provenance) -> None:
    """Write expert.json to a directory that is being filled."""
    (directory / PROVENANCE).write_bytes(made.to_json())


def write_metrics(directory: Path, rows: Iterable[Mapping[str, object]]) -> None:
    """Write how a training went to metrics.jsonl, a row a line."""
    lines = [json.dumps(row, sort_keys=True) + "\n" for row in rows]
    (directory / METRICS).write_text("".join(lines), encoding="utf-8")


def read_metrics(directory: Path) -> list[dict[str, Any]]:
    """Read how an expert's training went, as it was written."""
    return [json.loads(line) for line in (directory / METRICS).read_text(encoding="utf-8").splitlines()]


def parse_provenance(data: bytes) -> Provenance:
    """Understand the bytes of expert.json. Raises E-CONFIG."""
    return from_fields(parse_object(data, PROVENANCE, "E-CONFIG"))


def from_fields(fields: Mapping[str, object]) -> Provenance:
    """Make a Provenance of parsed JSON. Raises E-CONFIG for an ill-typed field; null stands for the default."""
    known: dict[str, Any] = {}
    for name, (accepts, expected) in _TYPES.items():
        value = fields.get(name)
        if value is None:
            continue
        if not accepts(value):
            raise LibraryError("E-CONFIG", f"{PROVENANCE}: {name} is {quote(value)}, expected {expected}.")
        known[name] = tuple(value) if isinstance(value, list) else value
    extra = {name: value for name, value in fields.items() if name not in _TYPES}
    return Provenance(**known, extra=extra)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


def _is_numbers(value: Any) -> bool:
    return isinstance(value, dict) and all(type(item) in (int, float) for item in value.values())


_TYPES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "tasks": (is_texts, "a list of names"),
    "data_hash": (_is_text, "a string"),
    "builder": (_is_object, "an object"),
    "seed": (_is_count, "a whole number"),
    "steps": (_is_count, "a whole number"),
    "metrics": (_is_numbers, "an object of numbers"),
    "weights_sha256": (_is_text, "a string"),
    "base_fingerprint": (_is_object, "an object"),
    "licence": (_is_text, "a string"),
    "parents": (is_texts, "a list of names"),
    "created_by": (_is_text, "a string"),
}


def require_same_base(found: Mapping[str, object] | None, expected: Mapping[str, object] | None, name: str) -> None:
    """Raise E-BASE when two fingerprints disagree on a field that both have (name and revision aside)."""
    found, expected = found or {}, expected or {}
    for key in sorted(found.keys() & expected.keys() - _NOT_COMPARED):
        if found[key] != expected[key]:
            there = f"{key} is {quote(found[key])}, the library's is {quote(expected[key])}"
            message = f"expert {quote(name)}: made for another base ({there})."
            hint = "Put it into a library of its own base."
            if is_padded(found, expected):
                hint = f"{hint} {padding_hint(expected)}"
            raise ModelError("E-BASE", message, hint)


def is_padded(base: Mapping[str, Any], before: Mapping[str, object]) -> bool:
    """Tell whether a base may be another one to whose embedding rows were added: nothing else that is known differs."""
    now, then = base.get("vocab_size"), before.get("vocab_size")
    differing = {key for key in base.keys() & before.keys() - _NOT_COMPARED if base[key] != before[key]}
    return type(now) is int and type(then) is int and now > then and differing <= _OF_VOCABULARY


def padding_hint(before: Mapping[str, object]) -> str:
    """Say how to declare such a base the same."""
    size = before["vocab_size"]
    return (
        f"If it is the same and only rows were added to its embedding, say how many it had: --vocab-size {size}, "
        f"load_base(..., vocab_size={size})."
    )
