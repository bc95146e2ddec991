"""Names of what is on the Hub. Knows no network."""

import re
from typing import NamedTuple

from lorary.errors import LibraryError, quote

HUB, MTTL = "hf://", "mttl://"
_COLLECTIONS = "hf://collections/"
_REPO = r"(?P<repo>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)"
_URI = re.compile(rf"(hf|mttl)://{_REPO}(/(?P<folder>[^@]+?))?/?(@(?P<revision>[\w./-]+))?", re.ASCII)
_SLUG = re.compile(r"hf://collections/(?P<slug>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)/?", re.ASCII)
_PART = re.compile(r"[^*?\[\\:\x00-\x1f\x7f]+")


class HubPlace(NamedTuple):
    """The parts of an `hf://` name; `folder` and `revision` are empty when not given."""

    repo: str
    folder: str
    revision: str

    @property
    def prefix(self) -> str:
        """How the names of its files begin in the repository."""
        return f"{self.folder}/" if self.folder else ""

    def at(self, revision: str) -> str:
        """Name it at a revision; without one, if that is empty."""
        folder, when = f"/{self.folder}" if self.folder else "", f"@{revision}" if revision else ""
        return f"{HUB}{self.repo}{folder}{when}"


def parse_uri(uri: str) -> HubPlace:
    """Read `hf://user/repo[/folder][@revision]`, or the same with mttl://. Raises E-HUB for anything else."""
    match = _URI.fullmatch(uri)
    paths = [match[name] for name in ("folder", "revision") if match[name]] if match else []
    # Both become part of a path on this machine: an empty part makes it absolute, or climbs as ".." does.
    if match is None or not all(is_inside(path) and _PART.fullmatch(path) for path in paths):
        raise LibraryError("E-HUB", f"{quote(uri, 200)} can't be read.", "Write hf://user/repo[/folder][@revision].")
    return HubPlace(match["repo"], match["folder"] or "", match["revision"] or "")


def is_inside(path: str) -> bool:
    """Tell whether a path within a repository stays in it wherever it is copied to."""
    return all(part not in ("", ".", "..") for part in path.split("/")) and "\\" not in path and "\0" not in path


def is_collection(uri: str) -> bool:
    """Tell whether a name is one of a collection."""
    return uri.startswith(_COLLECTIONS)


def parse_collection(uri: str) -> str:
    """Read `hf://collections/user/slug`, as the address of its page ends. Raises E-HUB for anything else."""
    match = _SLUG.fullmatch(uri)
    if match is None:
        hint = "Write hf://collections/user/slug, as in the address of its page."
        raise LibraryError("E-HUB", f"{quote(uri, 200)} can't be read.", hint)
    return match["slug"]
