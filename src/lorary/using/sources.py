"""Where adapters are found: directories, folders of them, PEFT's own layout of several, and the Hub."""

import dataclasses
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from lorary.errors import LibraryError, LoraryError
from lorary.library import sync
from lorary.library.hub.names import parse_uri
from lorary.library.layout import find_layout, fitting_name, inner_adapters, is_adapter

Tell = Callable[[str], None]
_CHECKPOINT = re.compile(r"checkpoint-\d+")


@dataclasses.dataclass(frozen=True)
class Source:
    """One adapter that was asked for. given: what messages call it; name: by default; error: why it isn't here."""

    given: str
    directory: Path
    name: str
    is_one_of_many: bool = False
    error: LoraryError | None = None


def find_sources(given: Sequence[str | os.PathLike[str]], scratch: Path, tell: Tell) -> list[Source]:
    """List the adapters of all sources: directories, folders of them, and what is fetched to `scratch`.

    `tell` hears what is passed over. Raises what a lone source raises; among several such a one is listed with its
    error.
    """
    found: list[Source] = []
    for number, source in enumerate(os.fspath(one) for one in given):
        try:
            found += _find(source, scratch / str(number), tell)
        except LoraryError as error:
            if len(given) == 1:
                raise
            found.append(Source(source, Path(source), "", True, error))
    return found


def _find(given: str, scratch: Path, tell: Tell) -> list[Source]:
    directory, called = Path(given), Path(given).absolute().name
    if "://" in given:
        place = parse_uri(given)
        directory, called = sync.pull(given, scratch), Path(place.folder or place.repo).name
    if is_adapter(directory) or not directory.is_dir():
        first, inner = Source(given, directory, fitting_name(called) or called), _inner(given, directory, tell)
        return [dataclasses.replace(first, is_one_of_many=bool(inner)), *inner]
    try:
        layout = find_layout(directory)
        names = layout.expert_names()
    except LibraryError:
        names = []
    if not names:
        what = f"{given!r} holds no adapter: no adapter_config.json, and no folders with one."
        raise LibraryError("E-FILE", what, "Give an adapter's directory, or the folder that it stands in.")
    if idle := [
        p.name for p in sorted(layout.experts.iterdir()) if p.is_dir() and p.name not in names and p.name[0] != "."
    ]:
        tell(f"passed over, for no adapter is in it: {', '.join(idle)}")
    found: list[Source] = []
    for name in names:
        one = Source(f"{given.rstrip('/')}/{name}", layout.experts / name, fitting_name(name) or name, True)
        found += [one, *_inner(one.given, one.directory, tell, f"{one.name}-")]
    return found


def _inner(given: str, directory: Path, tell: Tell, before: str = "") -> list[Source]:
    """List what stands in folders within an adapter's directory: PEFT puts "default" there, and others into these.

    A trainer puts its checkpoints there too: they are earlier states of the same adapter, and are told of instead.
    """
    names = inner_adapters(directory)
    if left := [name for name in names if _CHECKPOINT.fullmatch(name)]:
        tell(f"{given}: left out, for they are checkpoints of it: {', '.join(left)}")
    return [
        Source(f"{given.rstrip('/')}/{name}", directory / name, before + (fitting_name(name) or name), True)
        for name in names
        if name not in left
    ]
