"""What is asked or evaluated: the base, a library routed into it, or a saved model. Imports torch when called."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lorary.cli.completion import offer_word_or_file
from lorary.cli.console import progress, say
from lorary.cli.loading import Loading, Reading
from lorary.cli.parameters import EMBEDDED, Mix

if TYPE_CHECKING:
    from lorary.library.library import Library
    from lorary.model.base.base_model import BaseModel
    from lorary.model.routed.routed_model import RoutedModel

BARE = "base"
"""Stands for a library: the base alone. A directory of that name is ./base."""

_MANY = 32  # experts; fewer open in a moment

LibraryOrBase = Annotated[
    str,
    typer.Argument(
        metavar="LIBRARY",
        help=f"A library or a saved model; {BARE!r} is the base alone.",
        autocompletion=offer_word_or_file(BARE),
    ),
]
"""What may be asked and evaluated."""


def load(base: str, how: Loading) -> "BaseModel":
    """Load a base, saying so: it can take a while."""
    check_base(base)
    from lorary.model.base.base_model import load_base

    say(f"loading base {base} ...")
    return load_base(base, **how.options)


def check_base(base: str | None, library: "Library | None" = None) -> None:
    """Tell what the embedded base lacks here, if it is meant, before anything slow is imported. Raises E-EMBEDDED.

    base: None means that of the library, or without one the embedded one.
    """
    if base == EMBEDDED or (base is None and (library is None or _is_on_embedded(library))):
        from lorary.model.base.embedded_needs import require_embedded

        require_embedded()


@contextmanager
def opened(
    target: str,
    how: Loading,
    reading: Reading,
    *,
    router: str | None,
    mix: Mix | None,
    base: str | None,
    tasks: str | None,
    tasks_option: str = "--tasks",
    max_share: float | None = None,
) -> Iterator[Any]:
    """Load the model that `target` names, give it, and leave the base as it was.

    `tasks`: for routers that need data.
    What is misspelt fails before what is slow.
    """
    if target == BARE or is_saved(target):
        require_library(target, {"--router": router, "--mix": mix, tasks_option: tasks, "--max-share": max_share})
    if target == BARE:
        yield load(base or EMBEDDED, how)
        return
    if is_saved(target):
        with _loaded(target, base, how) as model:
            yield model
        return
    from lorary.folder import DEFAULT_ROUTER, ROUTERS
    from lorary.library.library import Library
    from lorary.tasks.read import read_tasks

    library = Library.open(target)
    check_base(base, library)
    data = read_tasks(tasks, **reading.options) if tasks else None
    options = ROUTERS.parse(router or DEFAULT_ROUTER)

    from lorary.model.routed.route import check_routable, route
    from lorary.options import to_spec

    mixed: Any = (mix or Mix.FACTORS).value
    check_routable(library, options, mixed, data)
    loaded = load(base or base_of(library), how)

    def fitting() -> None:
        say(f"fitting {to_spec(options)} to the library ...")

    with progress("opening experts") if len(library) >= _MANY else nullcontext() as tell:
        report = (lambda done, total: tell(done, total, "")) if tell else None
        model = route(
            loaded, library, options, mix=mixed, tasks=data, report=report, on_fit=fitting, max_share=max_share
        )
    with model:
        yield model


def require_library(target: str, given: Mapping[str, Any]) -> None:
    """Refuse what only a library has use for, if it is given for the bare base or a saved model."""
    why = "the bare base has no experts" if target == BARE else "a saved model has its own"
    for option, value in given.items():
        if value is not None:
            raise typer.BadParameter(f"{why}; this is for libraries.", param_hint=option)


@contextmanager
def through_template(model: Any) -> Iterator[None]:
    """Say of --chat what a base can't do with it. Raises E-CHAT."""
    from lorary.errors import LoraryError, ModelError
    from lorary.model.base.base_model import BaseModel

    base = model if isinstance(model, BaseModel) else model.base
    if base.tokenizer.chat_template is None:
        hint = "Ask without --chat, or give one: --chat-template FILE, as an adapter may bring it."
        raise ModelError("E-CHAT", f"--chat: base {str(base.directory or base.name)!r} has no chat template.", hint)
    try:
        yield
    except LoraryError as error:
        if error.code != "E-CHAT":
            raise
        raise ModelError("E-CHAT", f"--chat: {error.message}", "Ask without --chat, or mend the template.") from error


def facts_ahead(target: str, router: str | None, mix: Mix | None) -> dict[str, Any]:
    """Tell what is known of a model before it is loaded, for the header of its run: how it routes, which library."""
    if target == BARE:
        return {}
    from lorary.folder import DEFAULT_ROUTER, ROUTERS
    from lorary.library.library import Library
    from lorary.options import to_spec

    if is_saved(target):
        from lorary.model.saved.format import read_saved

        saved = read_saved(target)
        return {"router": to_spec(saved.router), "mix": saved.mix}
    spec = to_spec(ROUTERS.parse(router or DEFAULT_ROUTER))
    return {"library": Library.open(target).hash, "router": spec, "mix": (mix or Mix.FACTORS).value}


def is_saved(target: str) -> bool:
    """Tell whether a target is a saved model; what is in it isn't looked at."""
    return (Path(target) / "model.json").is_file()


def _loaded(target: str, base: str | None, how: Loading) -> "RoutedModel":
    from lorary.model.routed.load import load as load_model
    from lorary.model.saved.format import read_saved

    how = replace(how, dtype=str(read_saved(target).base["dtype"])) if how.dtype == "auto" else how
    say(f"loading saved model {target} ...")
    return load_model(target, base=load(base, how) if base else None, **how.options)


def names_of_base(library: "Library") -> list[str]:
    """List how a library's experts call its base, sorted; "" if they don't. Imports no torch.

    Those that carry its fingerprint were made on it: where some do, the others' names don't count.
    """
    from lorary.library.base_names import shared_name

    made_on_it = [expert for expert in library.values() if expert.provenance.base_fingerprint]
    names = {str(e.config.get("base_model_name_or_path") or "") for e in made_on_it or library.values()}
    # Older lorary wrote paths, which say where to look as well: of both forms of one, the path is told.
    return sorted({shared_name(name): name for name in sorted(names)}.values())


def _is_on_embedded(library: "Library") -> bool:
    """Tell whether a library was made on the embedded base; what other bases are, tells `base_of`."""
    from lorary.model.base.embedded_needs import is_embedded

    names = names_of_base(library)
    return bool(names) and all(map(is_embedded, names))


def base_of(library: "Library") -> str:
    """Give what to load for a library whose user named no base: the one that its experts name, or else the embedded.

    Nothing is fetched or opened just because somebody's files name it: it must be on this machine, and a path must have
    been named by the user before. Raises E-BASE otherwise, and if the experts name several.
    """
    return named_base_of(library)[1]


def named_base_of(library: "Library") -> tuple[str, str]:
    """Give the name of a library's base, and what to load for it. Raises as `base_of`."""
    from lorary.errors import ModelError, quote
    from lorary.library.base_names import is_relative
    from lorary.model.base.named_bases import absence, find_base

    # Without a name the embedded one is meant.
    named = sorted({name or EMBEDDED for name in names_of_base(library)}) or [EMBEDDED]
    here = {name: find_base(name, library.base) for name in named}
    place = here[named[0]]
    if len(set(here.values())) == 1 and place is not None:
        return named[0], place
    what = f"library {quote(library.path.name)} was made on base {' and '.join(quote(name, 200) for name in named)}"
    if len(named) > 1:
        raise ModelError("E-BASE", f"{what}.", "Give the one to use with --base.")
    how = "Give it with --base, if you trust it." if Path(named[0]).is_dir() else "Give it with --base, to fetch it."
    how = "Give its directory with --base." if is_relative(named[0]) else how
    raise ModelError("E-BASE", f"{what}, which {absence(named[0])}.", how)
