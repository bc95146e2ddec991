"""Tensors into files as all other files are written: with the umask's mode, and OSErrors when the disk refuses."""

import contextlib
import os
import re
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from lorary.disk.writing import discard

_NUMBER = re.compile(r"\(os error (\d+)\)")


def write_tensors(tensors: Mapping[str, Tensor], path: Path, metadata: Mapping[str, str] | None = None) -> None:
    """Write a new safetensors file; if that fails, nothing remains. Raises OSError."""
    try:
        mode = _create(path)
        with _os_errors(path):
            save_file(dict(tensors), path, metadata=None if metadata is None else dict(metadata))
        path.chmod(mode)
    except BaseException:
        discard(path)
        raise


@contextlib.contextmanager
def filled_by_others(directory: Path) -> Iterator[None]:
    """Let a foreign library fill a directory; then its files may be read by whom the umask lets. Raises OSError."""
    directory.mkdir(parents=True, exist_ok=True)
    trial = directory / ".mode"
    mode = _create(trial)
    trial.unlink()
    with _os_errors(directory):
        yield
    for path in directory.rglob("*"):
        if path.is_file():
            path.chmod(mode)


def _create(path: Path) -> int:
    """Create an empty file as open() does, and give the mode that it got: nothing else tells the umask safely."""
    with path.open("wb") as file:
        return stat.S_IMODE(os.fstat(file.fileno()).st_mode)


@contextlib.contextmanager
def _os_errors(path: Path) -> Iterator[None]:
    """Turn what safetensors says of the disk into the OSError that it was."""
    try:
        yield
    except SafetensorError as error:
        if number := _NUMBER.search(str(error)):
            code = int(number[1])
            raise OSError(code, os.strerror(code), str(path)) from error
        raise
