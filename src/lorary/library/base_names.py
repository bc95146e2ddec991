"""The name of a base in files that are passed on, which never says where it is on disk."""

import ntpath
import posixpath
import re
from collections.abc import Iterable

from lorary.hashing import short_key

_PLACE = re.compile(r"/|~|[A-Za-z]:[\\/]|\\\\|file:")
"""How a path begins that says where on a disk something is. A relative one tells nothing, and stays."""
_SHARED = re.compile(r"\./[^/\\]+~[0-9a-f]{8}")


def shared_name(name: str) -> str:
    """Give a base's public name: its name, or for an absolute path ./<last part>~<hash of the path>.

    The same path always gets the same name, and two bases in directories of one name stay two.
    """
    if not _PLACE.match(name):
        return name
    path = name.removeprefix("file:")
    paths = ntpath if "\\" in path or path[1:2] == ":" else posixpath
    plain = re.sub(r"^/{2,}", "/", paths.normpath(path)) if paths is posixpath else paths.normpath(path)
    return f"./{paths.basename(plain) or 'base'}~{short_key(plain)[:8]}"


def distinct_names(names: Iterable[str]) -> list[str]:
    """List names of bases once each, sorted, also where one is a path and another is what `shared_name` made of it."""
    # Older lorary wrote paths, which say where to look as well: of both forms of one, the path is told.
    return sorted({shared_name(name): name for name in sorted(set(names))}.values())


def is_relative(name: str) -> bool:
    """Tell whether a name can only be that of a directory, and doesn't say where: the Hub has none like it."""
    return name.startswith(("./", "../"))


def is_shared_name(name: str) -> bool:
    """Tell whether a name is one that `shared_name` made of a path."""
    return _SHARED.fullmatch(name) is not None
