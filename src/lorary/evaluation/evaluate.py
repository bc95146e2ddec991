"""The loop: batches of examples, one JSON line each, so that a killed run resumes where it stopped."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lorary.disk.growing import GrowingFile, part_of
from lorary.disk.writing import check_writable
from lorary.errors import EvaluationError
from lorary.evaluation.contract import Evaluator, LanguageModel, Outcome, Place
from lorary.evaluation.header import check_same
from lorary.evaluation.scores import FORMAT, Scores, parse_lines, read_run, read_scores, to_line, whole_lines
from lorary.folder import EVALUATORS
from lorary.hashing import hash_json
from lorary.options import as_dict, require, require_count, to_spec
from lorary.progress import Progress, unheard
from lorary.tasks.task import Tasks

_EXAMPLES_AT_ONCE = 64  # what a kill can lose; the model may batch them as it likes


def evaluate(
    evaluator: Evaluator | str,
    model: LanguageModel,
    tasks: Tasks,
    *,
    into: str | Path | None = None,
    name: str = "",
    limit: int | None = None,
    progress: Progress | None = None,
    confirm: Callable[[], None] | None = None,
) -> Scores:
    """Score a model on the test examples of tasks. `evaluator`: as RougeL(), or "rouge_l:max_new_tokens=8".

    `into`: the file of scores. A finished one with the same header is returned without asking the model; an
    unfinished one (`<into>.part`) is continued. `name`: what tables call the model; by default the file's name.
    `limit`: at most so many examples per task. `progress(done, total)`: called before the first batch and after each.
    `confirm()`: called before a batch is written; if it raises, as where another process has taken the run over, that
    batch is left out.
    Raises E-EVAL for a task without test examples and for values that aren't finite, E-RUN if `into` holds another run,
    E-OPTION for arguments of other types, E-DISK, E-PERM.
    """
    evaluator = EVALUATORS.parse(evaluator) if isinstance(evaluator, str) else evaluator
    require("evaluator", evaluator, Evaluator, "a metric, as RougeL()")
    require("tasks", tasks, Tasks, "tasks", "read_tasks(path) reads them.")
    path = None if into is None else Path(into)
    tasks = _limited(tasks, limit)
    check_tasks(evaluator, tasks)
    header = _header(evaluator, model.identity, tasks, name or (path.stem if path else ""))
    tell = progress or unheard
    total = sum(len(task.test) for task in tasks.values())
    if path and read_run(path) is not None:
        scores = read_scores(path)
        check_same(path, scores.header, header)
        tell(total, total)
        return scores
    part = _Part(path, header) if path else None
    outcomes = list(part.outcomes) if part else []
    tell(len(outcomes), total)
    for batch in _batches(evaluator, model, tasks, done=len(outcomes)):
        if part:
            if confirm:
                confirm()
            part.append(batch)
        outcomes += batch
        tell(len(outcomes), total)
    if part:
        part.finish()
    return Scores(header, tuple(outcomes))


def check_tasks(evaluator: Evaluator, tasks: Tasks, limit: int | None = None) -> None:
    """Refuse tasks that can't be scored. Raises E-EVAL, also for a task without test examples."""
    for task in _limited(tasks, limit).values():
        evaluator.check(task.test)


def check_into(into: Path, expected: Mapping[str, object] | None = None) -> None:
    """Refuse a file that no run can be written to, before any long work.

    `expected`: what is known of the run's header, see `foresee`; in a file of another run it differs.
    Raises E-RUN, E-PATH, E-PERM.
    """
    if read_run(into) is not None:
        path, found = into, read_scores(into).header
    elif known := whole_lines(part_of(into)):
        path, (found, _) = part_of(into), parse_lines(known, str(part_of(into)))
    else:
        return check_writable(into)
    return check_same(path, _only(found, expected or {}), expected or {})


def foresee(
    evaluator: Evaluator, tasks: Tasks, *, name: str, limit: int | None, model: Mapping[str, object]
) -> dict[str, object]:
    """Tell what is known of a run's header before its model is loaded. `model`: what is known of its identity."""
    return _header(evaluator, model, _limited(tasks, limit), name)


def _only(found: Mapping[str, Any], like: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out of a header what `like` says nothing of: of a model the facts that aren't known yet."""
    model = found.get("model", {})
    return {**found, "model": {key: model[key] for key in model if key in like.get("model", {})}} if like else {}


def _limited(tasks: Tasks, limit: int | None) -> Tasks:
    if limit is not None:
        require_count("limit", limit)
    if not tasks:
        raise EvaluationError("E-EVAL", "there are no tasks to evaluate.")
    for task in tasks.values():
        if not task.test:
            raise EvaluationError("E-EVAL", f"task {task.name!r} has no test examples.")
    return Tasks(task.first(test=limit) for task in tasks.values())


def _header(evaluator: Evaluator, model: Mapping[str, Any], tasks: Tasks, name: str) -> dict[str, Any]:
    header = {
        "format": FORMAT,
        "name": name,
        "metric": to_spec(evaluator),
        "options": as_dict(evaluator),
        "unit": evaluator.unit,
        "higher_is_better": evaluator.higher_is_better,
        "model": dict(model),
        "tasks": {
            task.name: {"n_examples": len(task.test), "hash": hash_json(task.test)[:16]} for task in tasks.values()
        },
    }
    plain: dict[str, Any] = json.loads(to_line(header))  # tuples become lists: equal to what a file gives back
    return plain


def _batches(evaluator: Evaluator, model: LanguageModel, tasks: Tasks, *, done: int) -> Iterator[list[Outcome]]:
    # Across tasks: many small tasks make as large batches as one big one.
    places = [Place(task.name, i, example) for task in tasks.values() for i, example in enumerate(task.test)]
    for start in range(done, len(places), _EXAMPLES_AT_ONCE):
        yield evaluator.score_places(model, places[start : start + _EXAMPLES_AT_ONCE])


class _Part:
    """The growing file of one unfinished run. A torn last line is dropped; another run's file is refused."""

    def __init__(self, path: Path, header: Mapping[str, object]) -> None:
        self._file = GrowingFile(path)
        part = self._file.path
        known = whole_lines(part)
        found, self.outcomes = parse_lines(known or to_line(header), str(part))
        check_same(part, found, header)
        self._file.begin(known, to_line(header))

    def append(self, batch: Sequence[Outcome]) -> None:
        self._file.append(b"".join(map(to_line, batch)))

    def finish(self) -> None:
        self._file.finish()
