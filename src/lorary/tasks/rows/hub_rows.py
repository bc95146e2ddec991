"""Rows of data sets of the Hub, by name, through `datasets`; never with code from there.

hf://datasets/USER/NAME[@REVISION][/CONFIG][:SPLIT]     one configuration; of all its splits, or of one
hf://datasets/USER/NAME[@REVISION]/FOLDER/FILE.jsonl    one file
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

from lorary.disk.writing import disk_errors, is_disk_error
from lorary.errors import LibraryError
from lorary.extras import require_extra
from lorary.tasks.example import short
from lorary.tasks.rows.arrow_rows import dataset_rows
from lorary.tasks.rows.fields import Row
from lorary.tasks.rows.names import name_and_part

SCHEME = "hf://"
_GRAMMAR = "hf://datasets/USER/NAME[@REVISION][/CONFIG or /FILE][:SPLIT]"
_PLACE = re.compile(
    r"hf://datasets/(?P<repo>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)"
    r"(@(?P<revision>refs/(convert|pr)/\w+|[^@/:\s]+))?"
    r"(/(?P<path>[^@:]+?))?/?"
    r"(:(?P<split>(\w|[.+-]|\[[^\[\]/@]*\])+))?",  # also "train[:10%]"
    re.ASCII,
)


@dataclass(frozen=True)
class HubSet:
    """The parts of a Hub name; a part that it lacks is None."""

    repo: str
    revision: str | None
    config: str | None
    file: str | None
    split: str | None


def parse_name(name: str, suffixes: tuple[str, ...]) -> HubSet:
    """Read the name of a data set; it ends in one of `suffixes` if it is a file. Raises E-HUB for what is no name."""
    match = _PLACE.fullmatch(name)
    path = (match["path"] or "") if match else ""
    is_file = path.endswith(suffixes)
    parts = path.split("/")
    if match is None or any(part in (".", "..") or re.search(r"[*?\\]", part) for part in parts):
        raise LibraryError("E-HUB", f"{short(name)} isn't the name of a data set.", f"Write {_GRAMMAR}.")
    if is_file and match["split"]:
        raise LibraryError("E-HUB", f"{name}: a file has no splits.", "Leave out what stands after the colon.")
    if not is_file and len(parts) > 1:
        hint = f"A file ends in one of {', '.join(suffixes)}. Write {_GRAMMAR}."
        raise LibraryError("E-HUB", f"{name}: {path!r} is neither a configuration nor a file.", hint)
    config, file = (None, path) if is_file else (path or None, None)
    return HubSet(match["repo"], match["revision"], config, file, match["split"])


def hub_rows(name: str, suffixes: tuple[str, ...]) -> Iterator[Row]:
    """Go through the rows of a data set of the Hub. Its task is its name, with a given configuration's or file's.

    Raises E-HUB for a name that can't be read and for what the Hub refuses, E-EXTRA without datasets, E-DISK.
    """
    place = parse_name(name, suffixes)
    loaded = _load(place, name)
    if place.file:
        task, part = name_and_part(PurePosixPath(place.repo.rpartition("/")[2], place.file), suffixes)
        for row in dataset_rows(loaded, "", task):
            yield replace(row, place=row.place.replace(task, name, 1), part=part)
        return
    task = place.repo.rpartition("/")[2] + (f".{place.config}" if place.config else "")
    splits = loaded if isinstance(loaded, Mapping) else {str(place.split): loaded}
    for split, rows in splits.items():
        yield from dataset_rows(rows, str(split), task)


def _load(place: HubSet, name: str) -> Any:
    datasets = _datasets(name)
    how = {"data_files": {"data": place.file}, "split": "data"} if place.file else {"split": place.split}
    with disk_errors(f"load {name}"):
        try:
            return datasets.load_dataset(place.repo, place.config, revision=place.revision, **how)
        except Exception as error:  # of many kinds, from as many libraries
            if is_disk_error(error):
                raise
            reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
            hint = "Check name, configuration, split and connection, and HF_TOKEN for a private one."
            raise LibraryError("E-HUB", f"{name}: {reason} ({type(error).__name__}).", hint) from error


def _datasets(name: str) -> Any:
    require_extra("hub", f"{name}: reading a data set by name")
    import datasets

    return datasets
