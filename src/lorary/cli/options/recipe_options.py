"""What a build command is asked for: by its options, by a recipe file, or by both."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lorary.cli.options.parameters import EMBEDDED, method_option
from lorary.cli.printing.console import say
from lorary.extras import EXTRAS, require_extra

if TYPE_CHECKING:
    from lorary.building.recipe import Recipe
    from lorary.library.library import Library

LogTo = Annotated[
    list[str] | None,
    method_option(
        "--log", "TRACKERS", "Show trainings as they end, e.g. tensorboard,mlflow:uri=... (`list` shows all)."
    ),
]
RunName = Annotated[
    str | None,
    typer.Option(
        "--run",
        metavar="ID",
        envvar="SLURM_ARRAY_JOB_ID",
        help="Name shared by the workers of one run, which tries each job only once.",
    ),
]


def gather(path: Path | None, given: Mapping[str, Any], *, to_load: bool = True) -> tuple["Recipe", str | None]:
    """Make the recipe of a file, of the command line, or of both, with a base to load; and say how that is called.

    A base that nobody named is that of the library to build into, else of the one to start from, else the embedded one.
    to_load: its base will be loaded, and what the embedded one lacks here is told first. Raises E-EMBEDDED.
    """
    for key, option in (("builder", "--method"), ("into", "--into")):
        if path is None and key not in given:
            raise typer.BadParameter("needed, unless a --recipe says it.", param_hint=option)
    if path is None and not {"tasks", "source"} & given.keys():
        raise typer.BadParameter("needed, unless a --recipe or --from says what to build from.", param_hint="TASKS")
    from lorary.library.library import Library

    if to_load and path is None:
        from lorary.using.target import require_base

        require_base(given.get("base"), Library.open(given["source"]) if "source" in given else None)
    from lorary.building.recipe import make_recipe, read_recipe

    made = read_recipe(path, given) if path else make_recipe(given, "command line")
    start = made.open_source()  # before anything slow, for it may not be there
    found, name = _with_base(made, start)
    if to_load:
        from lorary.using.target import require_base

        require_base(found.base)
    return found, name


def _with_base(made: "Recipe", start: "Library | None") -> tuple["Recipe", str | None]:
    from lorary.library.base_names import is_shared_name
    from lorary.library.library import standing
    from lorary.using.base_of import named_base_of

    if made.base is not None:
        return made, None
    for path, library in ((made.into, standing(made.into)), (made.source, start)):
        if library:
            name, place = named_base_of(library)
            if place != EMBEDDED:
                say(f"base {place if is_shared_name(name) else name}, that of library {path}; use --base for another.")
            return dataclasses.replace(made, base=place), name
    return dataclasses.replace(made, base=EMBEDDED), None


def check_backend(spec: str) -> None:
    """Raise E-EXTRA, before anything slow is imported, for a package that a backend needs and that is missing here."""
    name = spec.partition(":")[0]
    if name in EXTRAS:
        require_extra(name, f"backend {name}")


def choose_backend(spec: str, **given: int | None) -> Any:
    """Parse a backend; --workers N is short for local:workers=N, and so is --threads."""
    for name, n in given.items():
        if n is None:
            continue
        if spec.partition(":")[0] != "local":
            raise typer.BadParameter("only the local backend has them.", param_hint=f"--{name}")
        spec = f"{spec}{',' if ':' in spec else ':'}{name}={n}"
    from lorary.folder import BACKENDS

    return BACKENDS.parse(spec)
