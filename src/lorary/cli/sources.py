"""Where `lorary add` finds adapters: directories, folders of them, PEFT's own layout of several, and the Hub."""

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path

from lorary.cli.console import say
from lorary.errors import LibraryError, LoraryError

_CHECKPOINT = re.compile(r"checkpoint-\d+")


@dataclasses.dataclass(frozen=True)
class Adapter:
    """One adapter that was asked for. given: what messages call it; name: by default; error: why it isn't here."""

    given: str
    directory: Path
    name: str
    is_one_of_many: bool = False
    error: LoraryError | None = None


def find_adapters(sources: Sequence[str], scratch: Path) -> list[Adapter]:
    """List the adapters of all sources: directories, folders of them, and what is fetched to `scratch`.

    Raises what a lone source raises; among several such a one is listed with its error.
    """
    found: list[Adapter] = []
    for number, source in enumerate(sources):
        try:
            found += _find(source, scratch / str(number))
        except LoraryError as error:
            if len(sources) == 1:
                raise
            found.append(Adapter(source, Path(source), "", True, error))
    return found


def _find(source: str, scratch: Path) -> list[Adapter]:
    from lorary.library.layout import find_layout, fitting_name, is_adapter

    directory, called = Path(source), Path(source).absolute().name
    if "://" in source:
        from lorary.library.sync import parse_uri, pull  # the network, and only for those who ask for it

        place = parse_uri(source)
        directory, called = pull(source, scratch), Path(place.folder or place.repo).name
    if is_adapter(directory) or not directory.is_dir():
        first, inner = Adapter(source, directory, fitting_name(called) or called), _inner(source, directory)
        return [dataclasses.replace(first, is_one_of_many=bool(inner)), *inner]
    try:
        layout = find_layout(directory)
        names = layout.expert_names()
    except LibraryError:
        names = []
    if not names:
        what = f"{source!r} holds no adapter: no adapter_config.json, and no folders with one."
        raise LibraryError("E-FILE", what, "Give an adapter's directory, or the folder that it stands in.")
    if idle := [
        p.name for p in sorted(layout.experts.iterdir()) if p.is_dir() and p.name not in names and p.name[0] != "."
    ]:
        say(f"passed over, for no adapter is in it: {', '.join(idle)}")
    found: list[Adapter] = []
    for name in names:
        one = Adapter(f"{source.rstrip('/')}/{name}", layout.experts / name, fitting_name(name) or name, True)
        found += [one, *_inner(one.given, one.directory, f"{one.name}-")]
    return found


def _inner(source: str, directory: Path, before: str = "") -> list[Adapter]:
    """List what stands in folders within an adapter's directory: PEFT puts "default" there, and others into these.

    A trainer puts its checkpoints there too: they are earlier states of the same adapter, and are told of instead.
    """
    from lorary.library.layout import fitting_name, inner_adapters

    names = inner_adapters(directory)
    if left := [name for name in names if _CHECKPOINT.fullmatch(name)]:
        say(f"{source}: left out, for they are checkpoints of it: {', '.join(left)}")
    return [
        Adapter(f"{source.rstrip('/')}/{name}", directory / name, before + (fitting_name(name) or name), True)
        for name in names
        if name not in left
    ]
