"""`lorary show`: what is in a library, a saved model, an expert or an adapter directory. Imports no torch."""

from pathlib import Path
from typing import Annotated

import typer

from lorary.cli.exit_codes import FAILED, PARTLY
from lorary.cli.options.completion import offer_experts_in
from lorary.cli.options.parameters import Json
from lorary.cli.printing.console import in_words, print_json, print_table
from lorary.cli.printing.shown import COLUMNS, adapter_facts, print_library, saved_facts, saved_in_words


def show(
    path: Annotated[
        Path,
        typer.Argument(
            metavar="PATH",
            help="A library, a saved model, LIBRARY/EXPERT, or any adapter directory.",
            autocompletion=offer_experts_in,
        ),
    ],
    sources: Annotated[
        bool, typer.Option("--sources", help="Of a library, also say where each expert is from.")
    ] = False,
    json: Json = False,
) -> int | None:
    """Show what is in a library, a saved model or an adapter.

    For a library, its base, where it was pulled from, and its experts; for an expert, its origin. Findings come from
    settings and sizes alone; no weights are read.
    """
    from lorary.library.layout import is_adapter, is_saved_model, place_of
    from lorary.library.library import Library

    if is_adapter(path):
        return _show_adapter(path, json)
    if is_saved_model(path):
        facts = saved_facts(path)
        shown = [(key, in_words(value)) for key, value in saved_in_words({"model": path, **facts}).items() if value]
        print_json({"model": str(path), **facts}) if json else print_table(shown)
        return None
    if (named := place_of(path)) is not None:  # shown even if it is bad
        return _show_adapter(named if is_adapter(named) else Library.open(path.parent)[path.name].directory, json)
    library = Library.open(path, skip_bad=True)
    print_library(library, (*COLUMNS, "source") if sources else COLUMNS, json=json)
    return PARTLY if library.bad else None


def _show_adapter(directory: Path, json: bool) -> int | None:
    from lorary.library.layout import inner_adapters

    config, provenance, findings = adapter_facts(directory)
    inside = {"adapters_inside": others} if (others := inner_adapters(directory)) else {}
    if json:
        told = {"expert": directory.name, "config": config, "provenance": provenance, "findings": findings}
        print_json({**told, **inside})
    else:
        facts = {"directory": str(directory), **inside, **config, **provenance}
        print_table([(key, in_words(value)) for key, value in facts.items() if value])
        lines = [(f"{f['level']}[{f['code']}]", f"{f['message']} {f['hint']}") for f in findings]
        print_table(lines or [["no findings"]])
    return FAILED if any(finding["level"] == "error" for finding in findings) else None
