"""`lorary export`: a library in fixed shares -> one plain PEFT adapter."""

from pathlib import Path
from typing import Annotated, Any

import typer

from lorary.cli.models import choose, opened
from lorary.cli.options.loading import Loading, Reading
from lorary.cli.options.parameters import BaseOfLibrary, HowToMix, Json, Mix, count_option, method_option
from lorary.cli.printing.console import print_json, printable


def export(
    library: Annotated[str, typer.Argument(metavar="LIBRARY", help="A library; with --texts also a saved model.")],
    into: Annotated[Path, typer.Option(metavar="DIR", help="Directory for the adapter; must not exist yet.")],
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
    base: BaseOfLibrary = None,
    limit: Annotated[int, count_option("With --texts: at most N prompts of each task.")] = 20,
    *,
    how: Loading,
    reading: Reading,
    json: Json = False,
) -> None:
    """Merge a library into one PEFT adapter, in fixed shares. It opens wherever PEFT adapters do."""
    if texts is None and router is not None:
        raise typer.BadParameter("it chooses for prompts: give them with --texts TASKS.", param_hint="--router")
    if texts is not None and share:
        raise typer.BadParameter("with --texts the router chooses the shares.", param_hint="--share")
    from lorary.disk.arrival import check_target

    check_target(into)
    from lorary.model.saved.export import export as run

    if texts is None:
        from lorary.library.library import Library

        shares = _shares(share) if share else "uniform"
        told = run(Library.open(library), shares, into=into, mix=(mix or Mix.FACTORS).value, rank=rank)
    else:
        from lorary.tasks.read import read_tasks

        data = read_tasks(texts, **reading.options)
        prompts = [example for task in data.values() for example in task.train[:limit]]
        with opened(choose(library, reading, router=router, mix=mix, base=base, tasks=None), how) as model:
            told = run(model.experts, model.choices(prompts), into=into, mix=model.mix, rank=rank)
    if json:
        return print_json({"adapter": str(into), "ranks": told.ranks, "error": told.error, "worst": told.worst})
    ranks = sorted(set(told.ranks.values()))
    print(f"{into}: {len(told.ranks)} sites, rank {ranks[0]}{f' to {ranks[-1]}' if len(ranks) > 1 else ''}")
    print(printable(f"relative error {told.error:.2e}; worst {told.worst[1]:.2e} at {told.worst[0]}"))
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
