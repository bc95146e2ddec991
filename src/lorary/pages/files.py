"""Pages as files: written whole or not at all, and never over what lorary didn't write."""

from collections.abc import Callable
from pathlib import Path

from lorary.disk.writing import ELSEWHERE, check_writable, disk_errors, write_whole
from lorary.errors import LibraryError

_START = "<!doctype html>"
_FOOTER = "<footer>Written by lorary."


def write_page_file(into: Path, page: str) -> None:
    """Write a page, over an earlier one of ours if need be. Raises E-EXISTS for any other file, E-DISK, E-PERM."""
    write_over(into, page.encode(), _is_page)


def check_page_place(into: Path) -> None:
    """Refuse a path where no page can be written, before any long work. Raises E-EXISTS, E-PATH, E-PERM."""
    with disk_errors(repr(str(into)), ELSEWHERE):
        _check_may_go(into, _is_page)
    check_writable(into)


def write_over(path: Path, data: bytes, may_go: Callable[[bytes], bool]) -> None:
    """Write a new file, or overwrite one whose bytes show that lorary wrote it."""
    with disk_errors(repr(str(path)), ELSEWHERE):
        _check_may_go(path, may_go)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, data)


def _is_page(data: bytes) -> bool:
    return data.startswith(_START.encode()) and _FOOTER.encode() in data


def _check_may_go(path: Path, may_go: Callable[[bytes], bool]) -> None:
    if (path.exists() or path.is_symlink()) and not (path.is_file() and may_go(path.read_bytes())):
        message = f"{str(path)!r} exists and isn't a page or figure that lorary wrote."
        raise LibraryError("E-EXISTS", message, "Choose another path, or remove it.")
