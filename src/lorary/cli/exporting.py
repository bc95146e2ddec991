"""What `lorary export` writes: which form was asked for, of which shares."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import typer

from lorary.cli.models import choose, load, opened
from lorary.cli.options.loading import Loading, Reading
from lorary.cli.options.parameters import Mix
from lorary.cli.printing.console import print_json, printable


class Prompts(NamedTuple):
    """The prompts whose routing is averaged: the first of each task."""

    tasks: str
    router: str | None
    limit: int


def write(
    library: str, shares: Any, prompts: Prompts | None, places: Mapping[str, Path | None], mixed: Mapping[str, Any], *,
    base: str | None, how: Loading, reading: Reading, json: bool,
) -> None:  # fmt: skip
    """Write the one form whose place was given, and print what became of it."""
    given = {name: path for name, path in places.items() if path is not None}
    if len(given) != 1:
        raise typer.BadParameter("give one of --into DIR, --merged DIR and --gguf FILE.", param_hint="--into")
    ((form, place),) = given.items()
    options = {key: value for key, value in mixed.items() if value}
    unheard = {"into": (), "merged": ("rank", "pad_rank"), "gguf": ("pad_rank",)}[form]
    if form != "into" and prompts is not None:
        raise typer.BadParameter(f"--{form} takes fixed shares: --share NAME=X.", param_hint="--texts")
    for key in options.keys() & set(unheard):
        raise typer.BadParameter(f"--{form} has none.", param_hint=f"--{key.replace('_', '-')}")
    from lorary.disk.arrival import check_target

    check_target(place)
    if form == "into":
        return _write_adapter(library, shares, prompts, place, options, base=base, how=how, reading=reading, json=json)
    _write_for_others(form, library, shares, place, options, base=base, how=how)
    return print_json({form: str(place)}) if json else print(printable(f"{place}: written"))


def _write_adapter(
    library: str, shares: Any, prompts: Prompts | None, place: Path, options: dict[str, Any], *,
    base: str | None, how: Loading, reading: Reading, json: bool,
) -> None:  # fmt: skip
    from lorary.library.library import Library
    from lorary.model.saved.export import export
    from lorary.tasks.read import read_tasks

    if prompts is None:
        told = export(Library.open(library), shares, into=place, **options)
    else:
        data = read_tasks(prompts.tasks, **reading.options)
        examples = [example for task in data.values() for example in task.train[: prompts.limit]]
        mix = Mix(options.pop("mix")) if "mix" in options else None
        with opened(choose(library, reading, router=prompts.router, mix=mix, base=base, tasks=None), how) as model:
            told = export(model.experts, model.choices(examples), into=place, mix=model.mix, **options)
    if json:
        return print_json({"adapter": str(place), "ranks": told.ranks, "error": told.error, "worst": told.worst})
    ranks = sorted(set(told.ranks.values()))
    print(f"{place}: {len(told.ranks)} sites, rank {ranks[0]}{f' to {ranks[-1]}' if len(ranks) > 1 else ''}")
    print(printable(f"relative error {told.error:.2e}; worst {told.worst[1]:.2e} at {told.worst[0]}"))
    return None


def _write_for_others(
    form: str, library: str, shares: Any, place: Path, options: dict[str, Any], *, base: str | None, how: Loading
) -> None:
    from lorary.library.library import Library
    from lorary.using.base_of import base_of

    opened_library = Library.open(library)
    name = base or base_of(opened_library)
    if form == "merged":
        from lorary.model.saved.merged import export_merged

        export_merged(load(name, how), opened_library, shares, into=place, **options)
    else:
        from lorary.model.base.outline import outline
        from lorary.model.saved.gguf import export_gguf

        export_gguf(outline(name) or load(name, how), opened_library, shares, into=place, **options)
