"""`lorary export`: a library in fixed shares -> one plain PEFT adapter, or a form that others read."""

from pathlib import Path
from typing import Annotated, Any

import typer

from lorary.cli.options.loading import Loading, Reading
from lorary.cli.options.parameters import BaseOfLibrary, HowToMix, Json, count_option, method_option


def export(
    library: Annotated[str, typer.Argument(metavar="LIBRARY", help="A library; with --texts also a saved model.")],
    into: Annotated[Path | None, typer.Option(metavar="DIR", help="New directory for a PEFT adapter.")] = None,
    merged: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Instead: new directory for a base with the mixture merged in.")
    ] = None,
    gguf: Annotated[Path | None, typer.Option(metavar="FILE", help="Or a new file: a LoRA for llama.cpp.")] = None,
    share: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=X", help="An expert's share; repeatable. All experts equally by default."),
    ] = None,
    texts: Annotated[
        str | None,
        typer.Option(metavar="TASKS", help="Instead: average the router's choices over the prompts of these tasks."),
    ] = None,
    router: Annotated[
        str | None, method_option("--router", "ROUTERS", "With --texts: how to route (`list` shows all).")
    ] = None,
    mix: HowToMix = None,
    rank: Annotated[int | None, count_option("Largest rank; by default as large as an exact result needs.")] = None,
    pad_rank: Annotated[
        bool, typer.Option("--pad-rank", help="Pad all layers with zeros to one rank that vLLM accepts.")
    ] = False,
    base: BaseOfLibrary = None,
    limit: Annotated[int, count_option("With --texts: at most N prompts of each task.")] = 20,
    *,
    how: Loading,
    reading: Reading,
    json: Json = False,
) -> None:
    """Merge a library, in fixed shares, into one PEFT adapter, a base, or a LoRA for llama.cpp."""
    if texts is None and router is not None:
        raise typer.BadParameter("it chooses for prompts: give them with --texts TASKS.", param_hint="--router")
    if texts is not None and share:
        raise typer.BadParameter("with --texts the router chooses the shares.", param_hint="--share")
    from lorary.cli.exporting import Prompts, write

    shares = _shares(share) if share else "uniform"
    mixed = {"mix": mix and mix.value, "rank": rank, "pad_rank": pad_rank}
    places = {"into": into, "merged": merged, "gguf": gguf}
    prompts = Prompts(texts, router, limit) if texts is not None else None
    return write(library, shares, prompts, places, mixed, base=base, how=how, reading=reading, json=json)


def _shares(given: list[str]) -> dict[str, Any]:
    shares: dict[str, Any] = {}
    for text in given:
        name, _, value = text.partition("=")
        if name in shares:
            raise typer.BadParameter(f"{name!r} is given twice.", param_hint="--share")
        try:
            shares[name] = float(value)
        except ValueError:
            raise typer.BadParameter(f"{text!r} is not NAME=NUMBER.", param_hint="--share") from None
    return shares
