"""What `lorary show` tells of a library, of a saved model and of one adapter. Imports no torch, looks at no number."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lorary.cli.printing.console import in_words, print_json, print_table, printable
from lorary.errors import ModelError

if TYPE_CHECKING:
    from lorary.library.adapter.expert import Expert
    from lorary.library.adapter.findings import Finding
    from lorary.library.library import Library

COLUMNS = ("expert", "tasks", "rank", "sites", "steps", "valid_loss", "findings")
_SETTINGS = ("base_model_name_or_path", "r", "lora_alpha", "use_rslora", "target_modules")
_FIELDS = ("base", "router", "mix", "library")


def print_library(library: "Library", columns: Sequence[str], *, json: bool) -> None:
    """Print what is in a library: where it is from, and a line of some columns for each expert."""
    from lorary.library.library import names_of_base

    facts = [facts_of(expert, library) for expert in library.values()]
    if json:
        about = {"library": str(library.path), "source": library.source, "base": library.base}
        return print_json({**about, "base_names": names_of_base(library), "experts": facts, "bad": library.bad})
    print(printable(f"base: {base_in_words(library)}"))
    if library.source:
        print(printable(f"source: {library.source}"))
    short = [{**fact, "findings": len(fact["findings"])} for fact in facts]
    print_table([columns, *([in_words(fact[column]) for column in columns] for fact in short)])
    return print_table(list(library.bad.items()))


def facts_of(expert: "Expert", library: "Library") -> dict[str, Any]:
    """Tell one row of a library's table."""
    loss = expert.provenance.metrics.get("valid_loss")
    return {
        "expert": expert.name,
        "tasks": list(expert.provenance.tasks),
        "rank": expert.rank,
        "sites": len(expert.sites),
        "parameters": expert.n_parameters,
        "steps": expert.provenance.steps,
        "valid_loss": None if loss is None else round(loss, 4),
        "source": source_of(expert),
        "findings": [vars(finding) for finding in findings_of(expert, library)],
    }


def source_of(expert: "Expert") -> str:
    """Say where an expert came from: the Hub, with the commit, or the method that built it; empty if nobody noted it.

    Of a directory that it was added from nothing is noted, since libraries are passed on.
    """
    extra, builder = expert.provenance.extra, expert.provenance.builder
    if place := extra.get("source"):
        return f"{place}@{revision}" if (revision := extra.get("revision")) and "@" not in place else str(place)
    if name := builder.get("name"):
        return f"built by {name}"
    return "mttl" if extra.get("format") == "mttl" else ""


def findings_of(expert: "Expert", library: "Library") -> "list[Finding]":
    """List what is doubtful about an expert, by itself and among the others; reads few numbers."""
    from lorary.library.adapter.check import inspect
    from lorary.library.hijack_note import noted_hijacks
    from lorary.library.sameness import look_for_twins, look_for_zeros

    found = [*inspect(expert.directory).findings, *look_for_zeros(expert)]
    return [*found, *look_for_twins(expert, library), *noted_hijacks(library, expert)]


def base_in_words(library: "Library") -> str:
    """Name a library's base, with what its fingerprint tells."""
    from lorary.library.library import names_of_base

    names = [name or "(no name)" for name in names_of_base(library)]
    return _with_sizes(" and ".join(names) or "not known yet", library.base or {})


def _with_sizes(name: str, known: Mapping[str, Any]) -> str:
    sizes = [f"{known[key]} {word}" for key, word in (("n_layers", "layers"), ("hidden_size", "wide")) if key in known]
    about = ", ".join([str(known["architecture"]), *sizes]) if "architecture" in known else ""
    return f"{name} ({about})" if about else name


def adapter_facts(directory: Path) -> tuple[dict[str, Any], dict[str, Any], list[dict[str, Any]]]:
    """Tell the settings, the provenance and the findings of one adapter."""
    from lorary.library.adapter.check import inspect
    from lorary.library.adapter.provenance import read_provenance

    found, provenance = inspect(directory), vars(read_provenance(directory))
    config = {key: found.config.get(key) for key in _SETTINGS}
    return config, provenance, [vars(finding) for finding in found.findings]


def saved_facts(path: Path) -> dict[str, Any]:
    """Tell what a saved model's file says: base, router, mix, where its experts are. Raises E-MODEL."""
    from lorary.disk.reading import read_capped
    from lorary.disk.strict_json import parse_object
    from lorary.library.layout import MODEL

    file = path / MODEL
    fields = parse_object(read_capped(file, 100_000_000, "E-MODEL"), str(file), "E-MODEL")
    for key in ("base", "router", "experts"):
        if not isinstance(fields.get(key), dict):
            raise ModelError("E-MODEL", f"{file}: {key} is no object.", "Save the model again.")
    return {**{key: fields.get(key) for key in _FIELDS}, "experts": list(fields["experts"])}


def saved_in_words(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Say the same for people."""
    base, router = facts["base"], facts["router"]
    fingerprint = base.get("fingerprint")
    named = _with_sizes(str(base.get("name")), fingerprint if isinstance(fingerprint, dict) else {})
    told = {"base": f"{named}, {base.get('dtype')}", "router": router.get("name"), "options": router.get("options")}
    return {**facts, **told}
