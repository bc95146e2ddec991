"""The result of one evaluation, in memory and on disk.

A file of scores is JSON lines. The first line is the header: format, name, metric, options, unit, higher_is_better,
model (its identity), tasks (name -> n_examples and hash of the test examples). Then one line per example: task, index,
value, details; task by task in order of their names. A file without everything that its header promises is refused.
"""

import json
import math
import os
import reprlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lorary.disk.growing import part_of
from lorary.disk.reading import near_path, open_file
from lorary.disk.strict_json import MAX_DEPTH, is_deep
from lorary.disk.writing import FORBIDDEN
from lorary.errors import EvaluationError, error_of, quote
from lorary.evaluation.bootstrap import central_interval, resampled_means
from lorary.evaluation.contract import Outcome

FORMAT = 1
_MOST = 1 << 53  # examples of a task
_HEADER = {
    "name": str,
    "metric": str,
    "options": dict,
    "unit": str,
    "higher_is_better": bool,
    "model": dict,
    "tasks": dict,
}


@dataclass(frozen=True)
class Scores:
    """A model's scores on tasks: a header that says how they were measured, and one outcome per example."""

    header: Mapping[str, Any]
    outcomes: tuple[Outcome, ...]

    @property
    def name(self) -> str:
        """What this model is called in tables."""
        return str(self.header["name"])

    @property
    def metric(self) -> str:
        """The evaluator as its spec: `rouge_l`, `choice:normalise=byte`."""
        return str(self.header["metric"])

    @property
    def unit(self) -> str:
        """The unit of every value."""
        return str(self.header["unit"])

    @property
    def higher_is_better(self) -> bool:
        """Whether a greater value is a better one."""
        return bool(self.header["higher_is_better"])

    def values(self) -> dict[str, NDArray[np.float64]]:
        """Collect the values (N_t,) of each task, in order of names and examples."""
        grouped: dict[str, list[float]] = {}
        for outcome in self.outcomes:
            grouped.setdefault(outcome.task, []).append(outcome.value)
        return {task: np.array(grouped[task]) for task in sorted(grouped)}

    def per_task(self) -> dict[str, float]:
        """Average the examples of each task."""
        return {task: float(values.mean()) for task, values in self.values().items()}

    @property
    def mean(self) -> float:
        """Macro mean: the mean over tasks of the task means, so that big tasks weigh no more than small ones."""
        return float(np.mean(list(self.per_task().values())))

    def interval(self, level: float = 0.95, *, seed: int = 0) -> tuple[float, float]:
        """Bootstrap interval of the mean: 2000 draws of examples within each task; the tasks are kept."""
        samples = resampled_means(list(self.values().values()), draws=2000, seed=seed)
        return central_interval(samples, level)

    @property
    def perplexity(self) -> float:
        """Exp of the mean. Raises E-EVAL unless the unit is nats per token."""
        if self.unit != "nats per token":
            raise EvaluationError("E-EVAL", f"{self.metric}: no perplexity of values in {self.unit!r}.")
        return math.exp(self.mean)

    def __repr__(self) -> str:
        size = f"{len(self.outcomes)} examples, {len(self.header['tasks'])} tasks"
        return f"<{self.name or 'scores'}: {self.metric} {self.mean:.4g} ({self.unit}), {size}>"


def read_scores(path: str | Path) -> Scores:
    """Read a finished file of scores.

    Raises E-RUN, with file and line, for anything less than a whole one, E-PERM for a file that may not be read.
    """
    path = Path(path)
    if os.path.isdir(path):  # false, not an error, for what is no path
        runs = sorted(path.glob("*.jsonl"))
        hint = f"Name one of its runs, e.g. {quote(str(runs[0]))}." if runs else ""
        raise EvaluationError("E-RUN", f"{path}: a directory, expected the file of one run.", hint)
    data = read_run(path)
    if data is None:
        begun = bool(path.name) and part_of(path).exists()
        hint = f"The run stopped early: repeat it to finish {path.name}." if begun else near_path(path)
        raise EvaluationError("E-RUN", f"{path}: no such file.", hint)
    header, outcomes = parse_lines(data, str(path))
    missing = sum(facts["n_examples"] for facts in header["tasks"].values()) - len(outcomes)
    if missing:
        raise EvaluationError("E-RUN", f"{path}: {missing} examples are missing at the end.", "Delete it; run again.")
    return Scores(header, tuple(outcomes))


def find_runs(places: Iterable[str | Path]) -> list[Path]:
    """List runs: files as they are named, and each directory's `.jsonl` files by name. Raises E-RUN if it has none."""
    found: list[Path] = []
    for place in map(Path, places):
        inside = sorted(place.glob("*.jsonl")) if os.path.isdir(place) else [place]
        if not inside:
            why = f"{place}: no runs in this directory, expected files that `lorary eval` wrote (.jsonl)."
            raise EvaluationError("E-RUN", why, near_path(place) or "Name a directory that you gave to --into.")
        found += inside
    return found


def read_run(path: Path) -> bytes | None:
    """Read a file's bytes, None if there is none. Raises E-RUN for a pipe, device or directory, and E-PERM."""
    try:
        with open_file(path) as file:
            return file.read()
    except FileNotFoundError:
        return None
    except ValueError:  # a NUL
        raise EvaluationError("E-RUN", f"{str(path)!r} is no path.") from None
    except OSError as error:
        code = "E-PERM" if error.errno in FORBIDDEN else "E-RUN"
        raise error_of(code, f"{path}: can't be read: {error.strerror}.") from None


def whole_lines(part: Path) -> bytes:
    """Read what an unfinished file holds, a torn last line left out. Raises as `read_run`."""
    data = read_run(part) or b""
    return data[: data.rfind(b"\n") + 1]


def to_line(value: Mapping[str, Any] | Outcome) -> bytes:
    """Write a header or an outcome as one line."""
    plain = vars(value) if isinstance(value, Outcome) else value
    return json.dumps(plain, ensure_ascii=False, allow_nan=False).encode("utf-8", "backslashreplace") + b"\n"


def parse_lines(data: bytes, where: str) -> tuple[dict[str, Any], list[Outcome]]:
    """Read a header and the outcomes it promises, in order; raises E-RUN for a line that is neither."""
    first, *lines = data.splitlines() or [b""]
    header = _parse_line(first, f"{where}:1")
    _check_header(header, f"{where}:1")
    expected = places(header)
    outcomes = []
    for number, line in enumerate(lines, start=2):
        fields, place = _parse_line(line, f"{where}:{number}"), next(expected, None)
        if place is None or (fields.get("task"), fields.get("index")) != place:
            found = f"task {fields.get('task')!r}, example {fields.get('index')!r}"
            wanted = f"task {place[0]!r}, example {place[1]}" if place else "the end"
            raise EvaluationError("E-RUN", f"{where}:{number}: {found}, expected {wanted}.", "Delete it; run again.")
        outcomes.append(Outcome(*place, *_value_and_details(fields, f"{where}:{number}")))
    return header, outcomes


def places(header: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    """List the examples that a header promises, in the order of the file."""
    return ((task, index) for task, facts in header["tasks"].items() for index in range(facts["n_examples"]))


def _check_header(header: Mapping[str, Any], where: str) -> None:
    if header.get("format") != FORMAT:
        found = f"format {header.get('format')!r}"
        raise EvaluationError("E-RUN", f"{where}: {found}, expected {FORMAT}.", "Is this a file of scores?")
    for key, kind in _HEADER.items():
        if not isinstance(header.get(key), kind):
            found = reprlib.repr(header.get(key))
            raise EvaluationError("E-RUN", f"{where}: {key!r} is {found}, expected {kind.__name__}.")
    if not header["tasks"]:
        raise EvaluationError("E-RUN", f"{where}: there are no tasks.", "Delete it; run again.")
    for task, facts in header["tasks"].items():
        if not isinstance(facts, dict) or not isinstance(facts.get("hash"), str) or not _is_count(facts):
            expected = "expected n_examples, 1 or more, and hash"
            raise EvaluationError("E-RUN", f"{where}: task {task!r} is {reprlib.repr(facts)}, {expected}.")


def _is_count(facts: Mapping[str, Any]) -> bool:
    n = facts.get("n_examples")
    return isinstance(n, int) and not isinstance(n, bool) and 1 <= n <= _MOST


def _value_and_details(fields: Mapping[str, Any], where: str) -> tuple[float, Mapping[str, Any]]:
    value, details = fields.get("value"), fields.get("details", {})
    try:
        number = math.nan if isinstance(value, bool) or not isinstance(value, (int, float)) else float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise EvaluationError("E-RUN", f"{where}: value is {reprlib.repr(value)}, expected a finite number.")
    if not isinstance(details, dict):
        raise EvaluationError("E-RUN", f"{where}: details is {reprlib.repr(details)}, expected a JSON object.")
    return number, details


def _parse_line(line: bytes, where: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
        is_refused = is_deep(value)
    except ValueError:
        value, is_refused = None, False
    except RecursionError:
        is_refused = True
    if is_refused:
        raise EvaluationError("E-RUN", f"{where}: nested deeper than {MAX_DEPTH} levels.", "Is this a file of scores?")
    if not isinstance(value, dict):
        raise EvaluationError("E-RUN", f"{where}: not a JSON object: {line[:40]!r}.", "Is this a file of scores?")
    return value
