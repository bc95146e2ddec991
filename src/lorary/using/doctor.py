"""Look at everything that lorary needs on this machine, and at libraries: what is wrong, and what to do."""

import importlib.metadata
import os
import platform
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement

from lorary import __version__
from lorary.disk.reading import cache_directory
from lorary.disk.seal import has_lasting_key
from lorary.disk.writing import disk_errors, megabytes, try_place
from lorary.errors import LoraryError, quote
from lorary.extras import EXTRAS, in_words, install, missing, quoted, version_of
from lorary.library import staging
from lorary.library.library import Library
from lorary.model.base.embedded_needs import SEAL, embedded_place, require_embedded
from lorary.model.base.packaged import MINILM, is_packaged
from lorary.using.base_of import named_base_of

_ROOM_BYTES = 2_000_000_000  # the embedded base, converted, and a library or two

State = Literal["ok", "note", "warning", "error"]


@dataclass(frozen=True)
class Check:
    """What was looked at, and how it is.

    state: error, if it must be mended; warning, if something will be slow, done again or asked for; note, for what is
    absent and needed by some commands only. hint: what to do, if there is something to do.
    """

    subject: str
    state: State
    found: str
    hint: str = ""


def examine(libraries: Sequence[str | os.PathLike[str]] = ()) -> Iterator[Check]:
    """Check packages, cache, disk, the embedded base, and the libraries named, one after the other; imports no torch.

    Changes nothing but what any use of lorary makes: its cache directory and the user's key.
    """
    yield Check("lorary", "ok", f"{__version__}, Python {platform.python_version()}, {platform.system()}")
    for check in (_packages, _cache, _key, _embedded, _encoder):
        yield check()
    yield from map(_extra, EXTRAS)
    for path in libraries:
        yield from _library(Path(path))


# ---- the installation ---------------------------------------------------------------------------


def _packages() -> Check:
    needed = [line for line in importlib.metadata.requires("lorary") or () if "extra ==" not in line]
    lacking = [line for line in map(Requirement, needed) if not _is_met(line)]
    if not lacking:
        main = ", ".join(f"{name} {version_of(name)}" for name in ("torch", "transformers", "safetensors"))
        return Check("packages", "ok", main)
    found = " and ".join(f"{line} is needed, found {version_of(line.name) or 'none'}" for line in lacking)
    return Check("packages", "error", found, f"Run: {install([str(line) for line in lacking])}.")


def _is_met(line: Requirement) -> bool:
    version = version_of(line.name)
    return version is not None and line.specifier.contains(version, prereleases=True)


def _extra(extra: str) -> Check:
    if lacking := missing(extra):
        return Check(f"extra {extra}", "note", f"needs {in_words(lacking)}", f"For its commands: {install(lacking)}.")
    return Check(f"extra {extra}", "ok", "complete")


# ---- what lorary keeps on this machine ----------------------------------------------------------


def _cache() -> Check:
    place = cache_directory()
    try:
        with disk_errors(str(place), "Set LORARY_CACHE to a directory you can write to."):
            try_place(place, 0)
    except (LoraryError, OSError) as error:
        return Check("cache", "error", getattr(error, "message", str(error)), getattr(error, "hint", ""))
    free = shutil.disk_usage(place).free
    told = f"{place}, {megabytes(free)} free"
    if free < _ROOM_BYTES:
        return Check("cache", "warning", told, "Free some space, or set LORARY_CACHE to a directory on a larger disk.")
    return Check("cache", "ok", told)


def _key() -> Check:
    if has_lasting_key():
        return Check("key", "ok", "private and kept: fitted states of routers are reused")
    found = "can't be kept: what routers fit is made again by each process"
    return Check("key", "warning", found, "Make ~/.config or lorary's cache writable for you.")


def _embedded() -> Check:
    try:
        require_embedded()
    except LoraryError as error:
        return Check("embedded base", "note", error.message, error.hint)
    is_made = (embedded_place() / SEAL).is_file()
    return Check("embedded base", "ok", "ready" if is_made else "is converted at its first use, in about half a minute")


def _encoder() -> Check:
    if is_packaged(MINILM):
        return Check("sentence encoder", "ok", "ready")
    return Check("sentence encoder", "note", "not here; clusters by embeddings may use it", f"Run: {MINILM.command}.")


# ---- libraries ----------------------------------------------------------------------------------


def _library(path: Path) -> Iterator[Check]:
    subject = f"library {path.name}"
    try:
        library = Library.open(path, skip_bad=True)
    except LoraryError as error:
        yield Check(subject, "error", error.message, error.hint)
        return
    yield Check(subject, "ok", f"{len(library)} experts can be read")
    for name, bad in library.bad.items():
        hint = f"Mend it, or take it out: lorary remove {quoted(path)} {quoted(name)}."
        yield Check(subject, "error", bad, hint)
    yield _base(subject, library)
    if left := staging.leftovers(library.layout):
        yield Check(
            subject, "warning", f"killed processes left {len(left)} directories", f"Run: lorary gc {quoted(path)}."
        )
    if not os.access(path, os.W_OK):
        yield Check(subject, "note", "may be read, not written to")


def _base(subject: str, library: Library) -> Check:
    try:
        return Check(subject, "ok", f"its base {quote(named_base_of(library)[0], 200)} is on this machine")
    except LoraryError as error:
        return Check(subject, "warning", error.message, error.hint)
