"""What is asked or evaluated: the bare base, or a library routed into its base. Imports torch when called."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from lorary.cli.console import say
from lorary.cli.parameters import EMBEDDED, Mix

if TYPE_CHECKING:
    from lorary.library.library import Library
    from lorary.model.base_model import BaseModel

BARE = "base"
"""Stands for a library: the base alone. A directory of that name is ./base."""


def load(base: str, device: str, dtype: str) -> "BaseModel":
    """Load a base, saying so: it can take a while."""
    from lorary.model.base_model import load_base

    say(f"loading base {base} ...")
    return load_base(base, device=device, dtype=dtype)


@contextmanager
def opened(
    target: str, *, router: str | None, mix: Mix, base: str | None, tasks: str | None, device: str, dtype: str
) -> Iterator[Any]:
    """Load the model that `target` names, give it, and leave the base as it was. `tasks`: for routers that need data.

    What is misspelt fails before what is slow.
    """
    if target == BARE:
        if router is not None:
            raise typer.BadParameter("the bare base has no router.", param_hint="--router")
        yield load(base or EMBEDDED, device, dtype)
        return
    from lorary.folder import ROUTERS
    from lorary.library.library import Library
    from lorary.tasks.read import read_tasks

    library = Library.open(target)
    data = read_tasks(tasks) if tasks else None
    options = ROUTERS.parse(router or "arrow")

    from lorary.model.route import route

    loaded = load(base or base_of(library), device, dtype)
    with route(loaded, library, options, mix=mix.value, tasks=data) as model:
        yield model


def base_of(library: "Library") -> str:
    """Name the base of a library whose user named none: the one that its experts name, or else the embedded one.

    Nothing is fetched just because somebody's files name it: it must be on this machine. Raises E-BASE otherwise, and
    if the experts name several.
    """
    from lorary.errors import ModelError
    from lorary.library.findings import quote
    from lorary.model.base_model import EMBEDDED_HUB_ID

    named = sorted({str(expert.config.get("base_model_name_or_path") or "") for expert in library.values()} - {""})
    if set(named) <= {EMBEDDED, EMBEDDED_HUB_ID}:
        return EMBEDDED
    what = f"library {quote(library.path.name)} was made on base {' and '.join(quote(name, 200) for name in named)}"
    if len(named) > 1:
        raise ModelError("E-BASE", f"{what}.", "Give the one to use with --base.")
    if not _is_here(named[0]):
        raise ModelError("E-BASE", f"{what}, which isn't on this machine.", "Give it with --base, to fetch it.")
    return named[0]


def _is_here(base: str) -> bool:
    """Tell whether a base is a directory, or in the Hub's cache; asks no network."""
    if Path(base).is_dir():
        return True
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        return isinstance(try_to_load_from_cache(base, "config.json"), str)
    except HFValidationError:  # no name of a repository
        return False
