"""`lorary show`: what is in a library, an expert or an adapter directory. Imports no torch, looks at no number."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lorary.cli.console import in_words, print_json, print_table
from lorary.cli.exit_codes import FAILED, PARTLY
from lorary.cli.parameters import Json

if TYPE_CHECKING:
    from lorary.library.expert import Expert
    from lorary.library.library import Library

_COLUMNS = ("expert", "tasks", "rank", "sites", "steps", "valid_loss", "findings")
_SETTINGS = ("base_model_name_or_path", "r", "lora_alpha", "use_rslora", "target_modules")


def show(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="A library, LIBRARY/EXPERT, or any adapter directory.")],
    json: Json = False,
) -> int | None:
    """List the experts, or tell one's provenance. Findings are from names, sizes and settings; loads nothing."""
    from lorary.library.layout import is_adapter
    from lorary.library.library import Library

    if is_adapter(path):
        return _show_adapter(path, json)
    if not path.exists() and (path.parent / "experts").is_dir():
        named = path.parent / "experts" / path.name  # shown even if it is bad
        return _show_adapter(named if is_adapter(named) else Library.open(path.parent)[path.name].directory, json)
    return _show_library(Library.open(path, skip_bad=True), json)


def _show_library(library: "Library", json: bool) -> int | None:
    facts = [_facts(expert) for expert in library.values()]
    if json:
        print_json({"library": str(library.path), "base": library.base, "experts": facts, "bad": library.bad})
    else:
        short = [{**fact, "findings": len(fact["findings"])} for fact in facts]
        print_table([_COLUMNS, *([in_words(fact[column]) for column in _COLUMNS] for fact in short)])
        print_table(list(library.bad.items()))
    return PARTLY if library.bad else None


def _facts(expert: "Expert") -> dict[str, Any]:
    from lorary.library.check import check

    loss = expert.provenance.metrics.get("valid_loss")
    return {
        "expert": expert.name,
        "tasks": list(expert.provenance.tasks),
        "rank": expert.rank,
        "sites": len(expert.sites),
        "parameters": expert.n_parameters,
        "steps": expert.provenance.steps,
        "valid_loss": None if loss is None else round(loss, 4),
        "findings": [vars(finding) for finding in check(expert.directory)],
    }


def _show_adapter(directory: Path, json: bool) -> int | None:
    from lorary.library.check import inspect
    from lorary.library.provenance import read_provenance

    found, provenance = inspect(directory), vars(read_provenance(directory))
    config = {key: found.config.get(key) for key in _SETTINGS}
    findings = [vars(finding) for finding in found.findings]
    if json:
        print_json({"expert": directory.name, "config": config, "provenance": provenance, "findings": findings})
    else:
        facts = {"directory": str(directory), **config, **provenance}
        print_table([(key, in_words(value)) for key, value in facts.items() if value])
        print_table([(f"{f.level}[{f.code}]", f"{f.message} {f.hint}") for f in found.findings] or [["no findings"]])
    return FAILED if any(finding["level"] == "error" for finding in findings) else None
