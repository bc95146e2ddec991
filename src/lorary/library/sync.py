"""Fetch a library or an adapter from the Hub; the working copy is always a local directory.

The only file here that knows a network. Nobody imports it before a name starts with `hf://`.
"""

import re
import shutil
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from huggingface_hub import HfApi, constants, snapshot_download, try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.utils.sha import git_hash

from lorary.disk.arrival import arriving
from lorary.disk.writing import disk_errors, is_disk_error
from lorary.errors import LibraryError, LoraryError, quote
from lorary.hashing import hash_file

ANSWER_TIMEOUT_S = 5.0  # for the first word from the Hub; downloads may take longer
PAUSES_S = (0.5, 2.0)
"""Pauses before a Hub that is busy or failing is asked again."""
SUFFIXES = ("json", "safetensors", "md", "jinja")
_URI = re.compile(
    r"hf://(?P<repo>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(/(?P<folder>[^@]+?))?/?(@(?P<revision>[\w./-]+))?", re.ASCII
)
_PART = re.compile(r"[^*?\[\\:\x00-\x1f\x7f]+")
T = TypeVar("T")


class HubPlace(NamedTuple):
    """The parts of an `hf://` name; `folder` and `revision` are empty when not given."""

    repo: str
    folder: str
    revision: str


def parse_uri(uri: str) -> HubPlace:
    """Read `hf://user/repo[/folder][@revision]`. Raises E-HUB for anything else."""
    match = _URI.fullmatch(uri)
    paths = [match[name] for name in ("folder", "revision") if match[name]] if match else []
    # Both become part of a path on this machine: an empty part makes it absolute, or climbs as ".." does.
    parts = [part for path in paths for part in path.split("/")]
    if match is None or any(part in ("", ".", "..") or not _PART.fullmatch(part) for part in parts):
        raise LibraryError("E-HUB", f"{quote(uri, 200)} can't be read.", "Write hf://user/repo[/folder][@revision].")
    return HubPlace(match["repo"], match["folder"] or "", match["revision"] or "")


def pull(uri: str, into: Path | str) -> Path:
    """Give the local directory of a library: a path as it is, an `hf://` name after copying it to `into`.

    Fetches .json, .safetensors and .md only; `into` is whole or absent. With HF_HUB_OFFLINE set, the Hub's cache is the
    source. Raises E-HUB (within ten seconds when the Hub doesn't answer), E-EXISTS, E-LIBRARY for a path
    that isn't there, E-DISK, E-PERM.
    """
    if "://" not in uri:
        if not Path(uri).is_dir():
            raise LibraryError("E-LIBRARY", f"there is no directory {quote(uri, 200)}.", "Check the path.")
        return Path(uri)
    place, target = parse_uri(uri), Path(into)
    if target.exists():
        raise LibraryError("E-EXISTS", f"{quote(str(target), 200)} exists already.", "Open it, or pull elsewhere.")
    with disk_errors(f"pull {uri}"):
        snapshot = _snapshot(place, uri)
        source = snapshot / place.folder
        if not source.resolve().is_relative_to(snapshot.resolve()):
            raise LibraryError("E-HUB", f"{uri}: its folder leads out of the repository.", "Name the folder itself.")
        _copy_out(source, target, uri)
    return target


def reach_hub(repo: str) -> None:
    """Make sure that a Hub repository can be used: the Hub answers, or HF_HUB_OFFLINE says to use its cache.

    Raises E-HUB, within ten seconds when the Hub doesn't answer.
    """
    if constants.HF_HUB_OFFLINE:
        return
    api = HfApi()
    try:
        _patiently(lambda: _within(ANSWER_TIMEOUT_S, lambda: api.repo_info(repo, timeout=5.0)), _is_busy)
    except HfHubHTTPError as error:
        raise _refused(repo, error) from error
    except Exception as error:
        raise _unreachable(repo, type(error).__name__) from error


def is_cached(repo: str) -> bool:
    """Tell whether a model repository is in the Hub's cache; asks no network."""
    try:
        return isinstance(try_to_load_from_cache(repo, "config.json"), str)
    except HFValidationError:  # no name of a repository
        return False


def _refused(uri: str, error: HfHubHTTPError) -> LibraryError:
    status = getattr(error.response, "status_code", "no status")
    message = f"{uri}: the Hub answered {status} ({type(error).__name__})."
    hint = "Check the name, the revision, and HF_TOKEN for a private one."
    return LibraryError("E-HUB", message, "It is busy or failing: try again later." if _is_busy(error) else hint)


def _snapshot(place: HubPlace, uri: str) -> Path:
    """Fetch what a name refers to into the Hub's cache, and compare it with the Hub's hashes. Raises E-HUB."""
    try:
        return _download(place, uri)
    except LoraryError:
        raise
    except HfHubHTTPError as error:
        raise _refused(uri, error) from error
    except Exception as error:
        if is_disk_error(error):
            raise
        if isinstance(error.__cause__, HfHubHTTPError):  # of which the Hub's library says that nothing is in its cache
            raise _refused(uri, error.__cause__) from error
        raise _unreachable(uri, type(error).__name__) from error


def _download(place: HubPlace, uri: str) -> Path:
    offline, revision = constants.HF_HUB_OFFLINE, place.revision or None
    prefix = f"{place.folder}/" if place.folder else ""
    patterns = [f"{prefix}*.{suffix}" for suffix in SUFFIXES]
    files: Iterable[Any] = ()
    if not offline:
        api = HfApi()
        info = _patiently(
            lambda: _within(
                ANSWER_TIMEOUT_S,
                lambda: api.repo_info(place.repo, revision=revision, files_metadata=True, timeout=5.0),
            ),
            _is_busy,
        )
        revision, files = info.sha or revision, getattr(info, "siblings", None) or ()

    def fetch(*, anew: bool = False) -> Path:
        how: dict[str, Any] = {"allow_patterns": patterns, "local_files_only": offline, "force_download": anew}
        return Path(snapshot_download(place.repo, revision=revision, **how))

    snapshot = _patiently(fetch, _broke_off)
    if _damaged(snapshot, files):  # and in the cache it would stay so
        snapshot = _patiently(lambda: fetch(anew=True), _broke_off)
    if bad := _damaged(snapshot, files):
        raise LibraryError("E-HUB", f"{uri}: {quote(bad, 200)} arrived damaged, twice.", "Try again later.")
    return snapshot


def _damaged(snapshot: Path, files: Iterable[Any]) -> str | None:
    """Name the first file of a snapshot that isn't what the Hub says of it; None if all are."""
    return next((file.rfilename for file in files if not _is_whole(snapshot / file.rfilename, file)), None)


def _is_whole(path: Path, file: Any) -> bool:
    if any(part in ("", ".", "..") for part in file.rfilename.split("/")):  # it would be another file of this machine
        return False
    if not path.is_file():  # it was not asked for
        return True
    if file.size is not None and path.stat().st_size != file.size:
        return False
    if file.lfs is not None:
        return bool(hash_file(path) == file.lfs.sha256)
    content = path.read_bytes() if file.blob_id else b""
    return not file.blob_id or bool(git_hash(content) == file.blob_id)


def _patiently(ask: Callable[[], T], may_pass: Callable[[Exception], bool]) -> T:
    """Ask, and retry after a pause where that may help; what has arrived by then isn't fetched twice."""
    for pause_s in PAUSES_S:
        try:
            return ask()
        except Exception as error:
            if not may_pass(error):
                raise
            time.sleep(pause_s)
    return ask()


def _is_busy(error: Exception) -> bool:
    status = getattr(error.response, "status_code", None) if isinstance(error, HfHubHTTPError) else None
    return isinstance(status, int) and (status == 429 or status >= 500)


def _broke_off(error: Exception) -> bool:
    """Tell a Hub that answered, and then was busy or hung up, from a disk that refuses and a Hub that isn't there."""
    return _is_busy(error) or not isinstance(error, (HfHubHTTPError, OSError))


def _copy_out(source: Path, target: Path, uri: str) -> None:
    files = [p for p in sorted(source.rglob("*")) if p.suffix.removeprefix(".") in SUFFIXES and p.is_file()]
    if not files:
        raise LibraryError("E-HUB", f"{uri} holds no {', '.join(SUFFIXES)} files.", "Check the folder in the name.")
    with arriving(target) as stage:
        for path in files:
            copy = stage / path.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)  # the cache is made of links: the copy must not be


def _unreachable(uri: str, why: str) -> LibraryError:
    hint = (
        "These work offline: the path of a local directory, or HF_HUB_OFFLINE=1 "
        "when the repository is in the Hub's cache already."
    )
    return LibraryError("E-HUB", f"{uri}: the Hub can't be reached ({why}).", hint)


def _within(timeout_s: float, ask: Callable[[], T]) -> T:
    # A thread, because no timeout of the HTTP client bounds a name server that doesn't answer.
    answers: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            answers.append(ask())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(timeout_s)
    if errors:
        raise errors[0]
    if not answers:
        raise TimeoutError(f"no answer in {timeout_s:g} s")
    return answers[0]
