"""Where a benchmark's rows are: in a directory of benchmarks, in files of its own, or on the Hub."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lorary.disk.reading import near_path
from lorary.errors import TaskError, listed
from lorary.evaluation.benchmarking.contract import Benchmark
from lorary.tasks.rows.fields import Row
from lorary.tasks.rows.files import SUFFIXES, places_of
from lorary.tasks.rows.hub_rows import SCHEME
from lorary.tasks.rows.names import name_and_part, part_of_split

HUB = "hf://datasets"
"""Stands for the data sets of all benchmarks on the Hub."""
_HELD_OUT = ("valid", "test")


def sources_of(benchmark: Benchmark, source: object, *, alone: bool) -> list[Any]:
    """List the places of a benchmark's rows; none if a directory has none.

    source: a directory of benchmarks, `HUB`, or what `read_tasks` takes, which must be of the only benchmark (`alone`).
    Raises E-DATA for a path that isn't there, and for rows of one benchmark that are to serve several.
    """
    if isinstance(source, str) and source.rstrip("/") == HUB:
        return list(benchmark.hub)
    if isinstance(source, (str, Path)) and not str(source).startswith(SCHEME) and Path(source).is_dir():
        return _in_directory(benchmark, Path(source))
    if not alone:
        where = repr(str(source)) if isinstance(source, (str, Path)) else f"a {type(source).__name__}"
        what = f"{where} is no directory of benchmarks, and several are asked for."
        near = near_path(Path(source)) if isinstance(source, (str, Path)) and SCHEME not in str(source) else ""
        raise TaskError("E-DATA", what, near or f"Give a directory, {HUB}, or name one benchmark.")
    return [source]


def _in_directory(benchmark: Benchmark, directory: Path) -> list[Any]:
    for place in (benchmark.name, *benchmark.places):
        beside, below = _named(directory / place), _files_in(directory / place)
        if beside and below:
            raise _two_copies(directory, [beside[0].name, f"{place}/"])
        if beside or below:
            return beside or below
    return _in_configurations(benchmark, directory / benchmark.name)


def _named(place: Path) -> list[Any]:
    """List files of a name, "piqa.jsonl.gz", with those of its parts, "piqa.valid.jsonl"."""
    if not place.parent.is_dir():
        return []
    found = [path for path in sorted(place.parent.iterdir()) if path.name.endswith(SUFFIXES) and path.is_file()]
    named = [path for path in found if name_and_part(path, SUFFIXES)[0] == place.name]
    named = [path for path in named if path.name.startswith(f"{place.name}.")]
    whole = [path.name for path in named if path.name.removeprefix(place.name) in SUFFIXES]
    if len(whole) > 1:
        raise _two_copies(place.parent, whole)
    return list(named)


def _two_copies(directory: Path, names: Sequence[str]) -> TaskError:
    what = f"{directory}: {' and '.join(names)} hold one benchmark twice."
    return TaskError("E-DATA", what, "Keep one of them.")


def _files_in(place: Path) -> list[Any]:
    return list(places_of(place)) if place.is_dir() and _has_files(place) else []


def _in_configurations(benchmark: Benchmark, place: Path) -> list[Any]:
    """List the files of the directories in one: of the only one, or of all, of a benchmark in many configurations."""
    if not place.is_dir():
        return []
    inner = [path for path in sorted(place.iterdir()) if not path.name.startswith(".") and _files_in(path)]
    if len(inner) > 1 and len(benchmark.hub) == 1:
        what = f"{place}: {listed([path.name for path in inner])} may each hold {benchmark.name}."
        raise TaskError("E-DATA", what, f"Keep one of them, or give the files of one for {benchmark.name} alone.")
    return [file for path in inner for file in _files_in(path)]


def _has_files(place: Path) -> bool:
    found = (path for path in place.iterdir() if not path.name.startswith(("dataset_info", "README", ".")))
    return any(path.name.endswith(SUFFIXES) for path in found)


def parted(benchmark: Benchmark, rows: Sequence[Row]) -> tuple[list[Row], list[Row]]:
    """Part rows into those to score and those to train on.

    Scored are those of the benchmark's own part, else of the other one that is held out, else those of no part at all.
    Raises E-DATA where there are only rows to train on.
    """
    if not benchmark.part:
        return list(rows), []
    by_part: dict[str | None, list[Row]] = {}
    for row in rows:
        by_part.setdefault(_part(row), []).append(row)
    for part in (benchmark.part, *_HELD_OUT, None):
        if part in by_part:
            train = [row for found in ("train", None) if found != part for row in by_part.get(found, ())]
            return by_part[part], train
    what = f"{rows[0].place}: {benchmark.name} has rows to train on only, expected some of {benchmark.part!r}."
    raise TaskError("E-DATA", what, "Add that part's file; a benchmark is never scored on what models are trained on.")


def _part(row: Row) -> str | None:
    split = row.values.get("split")
    stated = part_of_split(split.lower()) if isinstance(split, str) else None
    return stated or row.part or part_of_split(row.task)
