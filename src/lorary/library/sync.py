"""Fetch a library, adapters, or the names of a collection from the Hub; the working copy is always a local directory.

With `hub/` the only place here that knows a network. Nobody imports it before a name starts with `hf://`.
"""

import shutil
from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

from huggingface_hub import HfApi, constants, snapshot_download, try_to_load_from_cache
from huggingface_hub.errors import HFValidationError

from lorary.disk.arrival import arriving
from lorary.disk.reading import files_below
from lorary.disk.writing import disk_errors, need_space
from lorary.errors import LibraryError, quote
from lorary.library.adapter.chat_template import TEMPLATE
from lorary.library.hub.listing import is_whole
from lorary.library.hub.names import HubPlace, is_inside, parse_collection, parse_uri
from lorary.library.hub.retries import ask_facts, broke_off, hub_errors, is_busy, patiently, within_time
from lorary.library.layout import CARD, CONFIG, MANIFEST, PICKLE, PROVENANCE, WEIGHTS

ADAPTERS = (CONFIG, WEIGHTS, PROVENANCE, TEMPLATE, "tokenizer_config.json", MANIFEST, CARD)
"""Names of the files that make libraries and adapters: of all others in a repository nothing is fetched."""
_WEIGHTS = (".safetensors", ".ckpt")
_MOST_BYTES = 16_000_000  # of a file that isn't weights
_MOST_BYTES_OF = {MANIFEST: 100_000_000}


class Fetched(NamedTuple):
    """A local directory, and the commit that its files are of."""

    directory: Path
    revision: str


def pull(uri: str, into: Path | str) -> Path:
    """Give the local directory of a library: a path as it is, an `hf://` name after copying it to `into`.

    Raises LibraryError as `fetch`, and E-LIBRARY for a path that isn't there.
    """
    if "://" not in uri:
        if not Path(uri).is_dir():
            raise LibraryError("E-LIBRARY", f"there is no directory {quote(uri, 200)}.", "Check the path.")
        return Path(uri)
    return fetch(uri, into).directory


def fetch(
    uri: str, into: Path | str, wanted: Sequence[str] = ADAPTERS, *, check: Callable[[Fetched], None] | None = None
) -> Fetched:
    """Copy what a Hub name refers to into a new directory, which is whole or absent, and say of which commit it is.

    `wanted`: what the names of files look like that are fetched; what the repository says of their sizes is judged
    before. `check` sees the directory before it has its name: if it raises, nothing remains. With HF_HUB_OFFLINE set,
    the Hub's cache is the source. Raises LibraryError: E-HUB (within ten seconds when the Hub doesn't answer),
    E-EXISTS, E-LIMIT, E-PICKLE, E-DISK, E-PERM.
    """
    place, target = parse_uri(uri), Path(into)
    if target.exists():
        raise LibraryError("E-EXISTS", f"{quote(str(target), 200)} exists already.", "Open it, or pull elsewhere.")
    with disk_errors(f"pull {uri}"):
        snapshot = _snapshot(place, uri, wanted, target)
        source = snapshot / place.folder
        if not source.resolve().is_relative_to(snapshot.resolve()):
            raise LibraryError("E-HUB", f"{uri}: its folder leads out of the repository.", "Name the folder itself.")
        with arriving(target) as stage:
            _copy_out(source, stage, uri, wanted)
            if check is not None:
                check(Fetched(stage, snapshot.name))
    return Fetched(target, snapshot.name)


def commit_of(uri: str) -> str:
    """Say which commit a Hub name means now; offline, which one is in the Hub's cache. Raises E-HUB."""
    place = parse_uri(uri)
    with hub_errors(uri):
        if constants.HF_HUB_OFFLINE:
            kept = snapshot_download(place.repo, revision=place.revision or None, local_files_only=True)
            return Path(kept).name
        return str(ask_facts(HfApi(), place.repo, place.revision or None).sha)


def reach_hub(repo: str) -> None:
    """Make sure that a Hub repository can be used: the Hub answers, or HF_HUB_OFFLINE says to use its cache.

    Raises LibraryError E-HUB, within ten seconds when the Hub doesn't answer.
    """
    if constants.HF_HUB_OFFLINE:
        return
    api = HfApi()
    with hub_errors(repo):
        patiently(lambda: within_time(lambda: api.repo_info(repo, timeout=5.0)), is_busy)


def is_cached(repo: str) -> bool:
    """Tell whether a model repository is in the Hub's cache; asks no network."""
    try:
        return isinstance(try_to_load_from_cache(repo, "config.json"), str)
    except HFValidationError:  # no name of a repository
        return False


def members(uri: str) -> tuple[list[str], int]:
    """List the models of `hf://collections/user/slug`, once each, and count what else is in it. Raises E-HUB."""
    slug, api = parse_collection(uri), HfApi()
    with hub_errors(uri):
        found = patiently(lambda: within_time(lambda: api.get_collection(slug)), is_busy)
    models = [item.item_id for item in found.items if item.item_type == "model"]
    return [f"hf://{model}" for model in dict.fromkeys(models)], len(found.items) - len(models)


def _snapshot(place: HubPlace, uri: str, wanted: Sequence[str], target: Path) -> Path:
    """Fetch what a name refers to into the Hub's cache, and compare it with the Hub's hashes. Raises E-HUB."""
    with hub_errors(uri):
        return _download(place, uri, wanted, target)


def _download(place: HubPlace, uri: str, wanted: Sequence[str], target: Path) -> Path:
    offline, revision = constants.HF_HUB_OFFLINE, place.revision or None
    prefix = place.prefix
    patterns = [pattern for name in wanted for pattern in (f"{prefix}{name}", f"{prefix}*/{name}")]
    files: Iterable[Any] = ()
    if not offline:
        info = ask_facts(HfApi(), place.repo, revision)
        revision, files = info.sha or revision, getattr(info, "siblings", None) or ()
        _judge(files, prefix, wanted, uri, target)

    def fetch(*, anew: bool = False) -> Path:
        how: dict[str, Any] = {"allow_patterns": patterns, "local_files_only": offline, "force_download": anew}
        return Path(snapshot_download(place.repo, revision=revision, **how))

    snapshot = patiently(fetch, broke_off)
    if _damaged(snapshot, files):  # and in the cache it would stay so
        snapshot = patiently(lambda: fetch(anew=True), broke_off)
    if bad := _damaged(snapshot, files):
        raise LibraryError("E-HUB", f"{uri}: {quote(bad, 200)} arrived damaged, twice.", "Try again later.")
    return snapshot


def _judge(files: Iterable[Any], prefix: str, wanted: Sequence[str], uri: str, target: Path) -> None:
    """Refuse by its list of files what a repository must not hold, or this disk can't, before any of it is fetched."""
    for file in files:
        if not is_inside(file.rfilename):
            what = f"{uri} names {quote(file.rfilename, 200)}, a file outside of it."
            raise LibraryError("E-HUB", what, "Don't use this repository: no honest one can do that.")
    inside = [file for file in files if file.rfilename.startswith(prefix)]
    chosen = [file for file in inside if _is_wanted(Path(file.rfilename).name, wanted)]
    for file in chosen:
        most = _MOST_BYTES_OF.get(Path(file.rfilename).name, _MOST_BYTES)
        if not file.rfilename.endswith(_WEIGHTS) and (file.size or 0) > most:
            what = f"{uri}: {quote(file.rfilename, 200)} has {file.size:,} bytes, the limit is {most:,}."
            raise LibraryError("E-LIMIT", what, "Nothing was fetched.")
    names = {Path(file.rfilename).name for file in inside}
    if WEIGHTS in wanted and WEIGHTS not in names and PICKLE in names:
        what = f"{uri} holds only {PICKLE}, a pickle that could run code; it is never fetched."
        raise LibraryError("E-PICKLE", what, "Ask its author for safetensors.")
    need_space(_standing(target), sum(file.size or 0 for file in chosen))


def _is_wanted(name: str, wanted: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in wanted)


def _standing(path: Path) -> Path:
    """Find the nearest directory on the way to a path that is there."""
    return next(parent for parent in path.absolute().parents if parent.is_dir())


def _damaged(snapshot: Path, files: Iterable[Any]) -> str | None:
    """Name the first file of a snapshot that isn't what the Hub says of it; None if all are."""
    return next((file.rfilename for file in files if not is_whole(snapshot / file.rfilename, file)), None)


def _copy_out(source: Path, target: Path, uri: str, wanted: Sequence[str]) -> None:
    files = [path for path in files_below(source) if _is_wanted(path.name, wanted)]
    if not files:
        what = f"{uri} holds no {', '.join(name for name in wanted[:2])}."
        raise LibraryError("E-HUB", what, "Check the name, and the folder in it.")
    for path in files:
        copy = target / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)  # the cache is made of links: the copy must not be
