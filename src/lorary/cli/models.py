"""What is asked or evaluated: the base, a library routed into it, or a saved model. Imports torch when called."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from lorary.cli.console import progress, say
from lorary.cli.parameters import EMBEDDED, Mix

if TYPE_CHECKING:
    from lorary.library.library import Library
    from lorary.model.base_model import BaseModel
    from lorary.model.routed_model import RoutedModel

BARE = "base"
"""Stands for a library: the base alone. A directory of that name is ./base."""

_MANY = 32  # experts; fewer open in a moment

LIBRARY = f"A library, or a saved model; or {BARE!r}, the base alone."
"""What may be asked and evaluated, for the help."""


def load(base: str, device: str, dtype: str) -> "BaseModel":
    """Load a base, saying so: it can take a while."""
    from lorary.model.base_model import load_base

    say(f"loading base {base} ...")
    return load_base(base, device=device, dtype=dtype)


@contextmanager
def opened(
    target: str,
    *,
    router: str | None,
    mix: Mix | None,
    base: str | None,
    tasks: str | None,
    device: str,
    dtype: str,
    tasks_option: str = "--tasks",
    max_share: float | None = None,
) -> Iterator[Any]:
    """Load the model that `target` names, give it, and leave the base as it was. `tasks`: for routers that need data.

    What is misspelt fails before what is slow.
    """
    is_saved = target != BARE and (Path(target) / "model.json").is_file()
    if target == BARE or is_saved:
        why = "a saved model has its own" if is_saved else "the bare base has no experts"
        given = {"--router": router, "--mix": mix, tasks_option: tasks, "--max-share": max_share}
        for option, value in given.items():
            if value is not None:
                raise typer.BadParameter(f"{why}; this is for libraries.", param_hint=option)
    if target == BARE:
        yield load(base or EMBEDDED, device, dtype)
        return
    if is_saved:
        with _loaded(target, base, device, dtype) as model:
            yield model
        return
    from lorary.folder import DEFAULT_ROUTER, ROUTERS
    from lorary.library.library import Library
    from lorary.tasks.read import read_tasks

    library = Library.open(target)
    data = read_tasks(tasks) if tasks else None
    options = ROUTERS.parse(router or DEFAULT_ROUTER)

    from lorary.model.route import route
    from lorary.options import to_spec

    loaded = load(base or base_of(library), device, dtype)

    def fitting() -> None:
        say(f"fitting {to_spec(options)} to the library ...")

    with progress("opening experts") if len(library) >= _MANY else nullcontext() as tell:
        report = (lambda done, total: tell(done, total, "")) if tell else None
        model = route(
            loaded, library, options, mix=(mix or Mix.FACTORS).value, tasks=data, report=report, on_fit=fitting,
            max_share=max_share,
        )  # fmt: skip
    with model:
        yield model


def _loaded(target: str, base: str | None, device: str, dtype: str) -> "RoutedModel":
    from lorary.model.load import load as load_model
    from lorary.model.saved import read_saved

    dtype = str(read_saved(target).base["dtype"]) if dtype == "auto" else dtype
    say(f"loading saved model {target} ...")
    return load_model(target, base=load(base, device, dtype) if base else None, device=device, dtype=dtype)


def names_of_base(library: "Library") -> list[str]:
    """List how a library's experts call its base, sorted; "" if they don't. Imports no torch.

    Those that carry its fingerprint were made on it: where some do, the others' names don't count.
    """
    made_on_it = [expert for expert in library.values() if expert.provenance.base_fingerprint]
    return sorted({str(e.config.get("base_model_name_or_path") or "") for e in made_on_it or library.values()})


def base_of(library: "Library") -> str:
    """Name the base of a library whose user named none: the one that its experts name, or else the embedded one.

    Nothing is fetched or opened just because somebody's files name it: it must be on this machine, and a path must have
    been named by the user before. Raises E-BASE otherwise, and if the experts name several.
    """
    from lorary.errors import ModelError
    from lorary.library.findings import quote
    from lorary.model.base_model import find_here
    from lorary.model.named_bases import absence

    # Without a name the embedded one is meant.
    named = sorted({name or EMBEDDED for name in names_of_base(library)})
    here = {name: find_here(name) for name in named}
    if len(set(here.values())) == 1 and here[named[0]] is not None:
        return str(here[named[0]])
    what = f"library {quote(library.path.name)} was made on base {' and '.join(quote(name, 200) for name in named)}"
    if len(named) > 1:
        raise ModelError("E-BASE", f"{what}.", "Give the one to use with --base.")
    why = "if you trust it" if Path(named[0]).is_dir() else "to fetch it"
    raise ModelError("E-BASE", f"{what}, which {absence(named[0])}.", f"Give it with --base, {why}.")
