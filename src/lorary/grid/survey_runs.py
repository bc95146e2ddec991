"""How far the evaluations in a directory are, from the disk alone. Imports no torch."""

import json
from pathlib import Path

from lorary.disk.reading import near_path, open_regular
from lorary.errors import EvaluationError
from lorary.work.survey import Survey, survey

_LONGEST_HEADER = 64_000_000


def survey_runs(directory: Path | str) -> Survey:
    """Look at a directory of scores: cells of grids that aren't done, and files that are whole.

    Raises E-RUN for what is no directory.
    """
    directory = Path(directory).absolute()
    if not directory.is_dir():
        raise EvaluationError("E-RUN", f"there is no directory {str(directory)!r}.", near_path(directory))
    return survey(directory, [path.stem for path in sorted(directory.glob("*.jsonl")) if _is_run(path)])


def holds_runs(directory: Path) -> bool:
    """Tell whether evaluations write to a directory, or did."""
    if not directory.is_dir():
        return False
    makes_runs = any(path.endswith(".jsonl") for made in survey(directory).planned.values() for path in made)
    return makes_runs or any(map(_is_run, directory.glob("*.jsonl")))


def _is_run(path: Path) -> bool:
    """Tell whether a file begins as scores do; what is in it otherwise isn't looked at."""
    try:
        with open_regular(path) as file:
            found = json.loads(file.readline(_LONGEST_HEADER))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(found, dict) and found.keys() >= {"format", "metric", "model", "tasks"}
