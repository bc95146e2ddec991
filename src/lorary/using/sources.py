"""Where adapters are found: directories, folders of them, PEFT's own layout of several, mttl's, and the Hub."""

import dataclasses
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from lorary.errors import LibraryError, LoraryError
from lorary.formats.mttl.read import FILES as MTTL_FILES
from lorary.formats.mttl.read import is_mttl, read_mttl
from lorary.library import sync
from lorary.library.hub.names import MTTL, is_collection, parse_uri
from lorary.library.layout import find_layout, fitting_name, inner_adapters, is_adapter
from lorary.progress import Tell

_CHECKPOINT = re.compile(r"checkpoint-\d+")


@dataclasses.dataclass(frozen=True)
class Source:
    """One adapter that was asked for. given: what messages call it; name: by default; error: why it isn't here.

    revision: the commit that it was fetched at. is_pending: it is a repository that is fetched when its turn comes.
    """

    given: str
    directory: Path
    name: str
    is_one_of_many: bool = False
    error: LoraryError | None = None
    revision: str = ""
    is_pending: bool = False


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


def fetched(sources: Sequence[Source], scratch: Path, tell: Tell) -> Iterator[Source]:
    """Give sources one by one; what is pending is fetched to `scratch` when it is asked for, and deleted behind it.

    So a collection of thousands needs the place of one. What can't be fetched is given with its error.
    """
    for source in sources:
        if not source.is_pending:
            yield source
            continue
        try:
            found = _find(source.given, scratch / "pending", tell)
        except LoraryError as error:
            yield dataclasses.replace(source, error=error)
            continue
        lone = [dataclasses.replace(one, name=source.name) for one in found] if len(found) == 1 else found
        yield from (dataclasses.replace(one, is_one_of_many=True) for one in lone)
        shutil.rmtree(scratch / "pending", ignore_errors=True)


def _collected(given: str, tell: Tell) -> list[Source]:
    """List the repositories of a collection, under their own names, or with the owner's where two are called alike."""
    places, n_others = sync.members(given)
    if n_others:
        tell(f"{given}: passed over, for they are no models: {n_others}")
    if not places:
        raise LibraryError("E-FILE", f"{given} holds no models.", "Check the address of the collection.")
    repos = [parse_uri(place).repo for place in places]
    plain = [fitting_name(repo.partition("/")[2]) for repo in repos]
    names = [name if plain.count(name) == 1 else fitting_name(repo) for name, repo in zip(plain, repos, strict=True)]
    return [Source(place, Path(), name, True, is_pending=True) for place, name in zip(places, names, strict=True)]


def _find(given: str, scratch: Path, tell: Tell) -> list[Source]:
    if is_collection(given):
        return _collected(given, tell)
    directory, called, revision = Path(given), Path(given).absolute().name, ""
    if "://" in given:
        place, is_of_mttl = parse_uri(given), given.startswith(MTTL)
        directory, revision = sync.fetch(given, scratch / "hub", MTTL_FILES if is_of_mttl else sync.ADAPTERS)
        called = Path(place.folder or place.repo).name
    found = _find_in(directory, given, called, scratch, tell)
    return [dataclasses.replace(source, revision=revision) for source in found]


def _find_in(directory: Path, given: str, called: str, scratch: Path, tell: Tell) -> list[Source]:
    """List the adapters in a directory, which messages call `given`, and its own `called`."""
    if is_mttl(directory):
        return _converted(directory, given, scratch / "mttl")
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


def _converted(directory: Path, given: str, into: Path) -> list[Source]:
    """Make adapters of a library of mttl's, each with its error if there is one."""
    experts = read_mttl(directory, into)
    return [
        Source(f"{given.rstrip('/')}/{one.name}", one.directory, fitting_name(one.name), len(experts) > 1, one.error)
        for one in experts
    ]


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
