"""`lorary export`: a library in fixed shares -> one plain PEFT adapter."""

from pathlib import Path
from typing import Annotated, Any

import typer

from lorary.cli.application import or_list
from lorary.cli.console import print_json
from lorary.cli.models import opened
from lorary.cli.parameters import BaseOfLibrary, Device, Dtype, HowToMix, Ignore, Json, Mix, WhichAnswers, reading


def export(
    library: Annotated[str, typer.Argument(metavar="LIBRARY", help="A library; with --texts a saved model too.")],
    into: Annotated[Path, typer.Option(metavar="DIR", help="The adapter; must not be there yet.")],
    share: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=X", help="An expert's share; may be repeated. By default all, equally."),
    ] = None,
    texts: Annotated[
        str | None,
        typer.Option(metavar="TASKS", help="Average the router's choices over these tasks' prompts instead."),
    ] = None,
    router: Annotated[
        str | None,
        typer.Option(metavar="SPEC", is_eager=True, callback=or_list("ROUTERS"), help="For --texts; or: list."),
    ] = None,
    mix: HowToMix = None,
    rank: Annotated[int | None, typer.Option(min=1, help="Largest rank; by default exact.")] = None,
    base: BaseOfLibrary = None,
    limit: Annotated[int, typer.Option(min=1, help="For --texts: at most so many prompts of each task.")] = 20,
    ignore: Ignore = None,
    answers: WhichAnswers = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    json: Json = False,
) -> None:
    """Make one PEFT adapter of a library in fixed shares. It opens wherever PEFT adapters do."""
    if texts is None and router is not None:
        raise typer.BadParameter("it chooses for prompts: give them with --texts TASKS.", param_hint="--router")
    if texts is not None and share:
        raise typer.BadParameter("with --texts the router chooses the shares.", param_hint="--share")
    from lorary.model.export import export as run

    if texts is None:
        from lorary.library.library import Library

        shares = _shares(share) if share else "uniform"
        told = run(Library.open(library), shares, into=into, mix=(mix or Mix.FACTORS).value, rank=rank)
    else:
        from lorary.tasks.read import read_tasks

        data = read_tasks(texts, **reading(ignore, answers))
        prompts = [example for task in data.values() for example in task.train[:limit]]
        how = {"router": router, "mix": mix, "base": base, "tasks": None, "device": device, "dtype": dtype}
        with opened(library, **how) as model:  # type: ignore[arg-type]
            told = run(model.experts, model.choices(prompts), into=into, mix=model.mix, rank=rank)
    if json:
        return print_json({"adapter": str(into), "ranks": told.ranks, "error": told.error, "worst": told.worst})
    ranks = sorted(set(told.ranks.values()))
    print(f"{into}: {len(told.ranks)} sites, rank {ranks[0]}{f' to {ranks[-1]}' if len(ranks) > 1 else ''}")
    print(f"relative error {told.error:.2e}; worst {told.worst[1]:.2e} at {told.worst[0]}")
    return None


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
