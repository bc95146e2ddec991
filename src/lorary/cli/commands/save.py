"""`lorary save`: a library routed into its base -> one directory that `ask` and `eval` take."""

from pathlib import Path
from typing import Annotated

import typer

from lorary.cli.application import or_list
from lorary.cli.console import print_json
from lorary.cli.models import opened
from lorary.cli.parameters import BaseOfLibrary, Device, Dtype, HowToMix, Json, MaxShare


def save(
    library: Annotated[str, typer.Argument(metavar="LIBRARY", help="A library, or a saved model.")],
    into: Annotated[Path, typer.Option(metavar="DIR", help="The saved model; must not be there yet.")],
    router: Annotated[
        str | None,
        typer.Option(metavar="SPEC", is_eager=True, callback=or_list("ROUTERS"), help="As arrow:top_k=4; or: list."),
    ] = None,
    mix: HowToMix = None,
    max_share: MaxShare = None,
    base: BaseOfLibrary = None,
    tasks: Annotated[
        str | None, typer.Option(metavar="DIR", help="What the library was built from, for routers that need it.")
    ] = None,
    refer: Annotated[bool, typer.Option("--refer", help="Note where the experts are; don't copy them.")] = False,
    device: Device = "auto",
    dtype: Dtype = "auto",
    json: Json = False,
) -> None:
    """Save a routed model whole: experts, router, its state, mix. The router is compass unless you say otherwise."""
    with opened(
        library, router=router, mix=mix, max_share=max_share, base=base, tasks=tasks, device=device, dtype=dtype
    ) as model:
        model.save(into, experts="refer" if refer else "copy")
        names, identity = model.names, model.identity
    if json:
        return print_json({"model": str(into), "experts": names, "router": identity["router"], "mix": identity["mix"]})
    print(f"{into}: {len(names)} experts, {identity['router']}, mix={identity['mix']}")
    return None
