"""Tasks of lm-evaluation-harness, run by it; its results as it writes them and as our scores."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from numbers import Real
from pathlib import Path
from typing import Any

import lm_eval
from jinja2 import TemplateError
from lm_eval.loggers import EvaluationTracker
from lm_eval.tasks import TaskManager
from yaml import YAMLError

from lorary.disk.writing import ELSEWHERE, disk_errors, write_whole
from lorary.errors import EvaluationError
from lorary.evaluation.contract import Outcome
from lorary.evaluation.scores import FORMAT, Scores, to_line
from lorary.harness.language_model import HarnessModel
from lorary.hashing import hash_json
from lorary.model.base.base_model import BaseModel
from lorary.model.routed.routed_model import RoutedModel

_FILES = (".yaml", ".yml")


def run_harness(
    model: BaseModel | RoutedModel,
    tasks: Sequence[str | Path],
    *,
    name: str,
    into: Path | None = None,
    limit: int | None = None,
) -> list[Scores]:
    """Let lm-evaluation-harness evaluate a model; give each metric of single examples as scores, as it counts them.

    tasks: YAML files of the harness, or names of its own tasks, whose data sets must be at hand or reachable. `into`:
    the directory in which it writes its results and samples. limit: at most so many examples per task.
    Raises E-EVAL for tasks that it doesn't know or can't load.
    """
    known = [str(task) for task in tasks]
    check_tasks(known)
    written = EvaluationTracker(output_path=None if into is None else str(into))
    with _refusals(known):
        found = lm_eval.simple_evaluate(
            model=HarnessModel(model), model_args=f"pretrained={name}", tasks=list(known), limit=limit,
            task_manager=_manager(known), evaluation_tracker=written, log_samples=True, bootstrap_iters=0,
        )  # fmt: skip
    assert found is not None, "the harness gives results in its first process, and there is only one"
    results: dict[str, Any] = dict(found)
    samples = results.pop("samples")
    if into is not None:
        written.save_results_aggregated(results=results, samples=samples)
        for task, ones in samples.items():
            written.save_results_samples(task_name=task, samples=ones)
    return list(_scores(results, samples, name, model.identity))


def check_tasks(tasks: Sequence[str]) -> None:
    """Refuse files that aren't there, before anything is loaded. Raises E-EVAL."""
    for task in tasks:
        if task.endswith(_FILES) and not os.path.isfile(task):
            what = f"{task}: there is no such file of a task."
            raise EvaluationError("E-EVAL", what, "Name a YAML file of lm-evaluation-harness.")


def write_scores(scores: Scores, path: Path) -> None:
    """Write scores as `read_scores` reads them, in the place of those before. Raises E-DISK, E-PERM."""
    with disk_errors(repr(str(path)), ELSEWHERE):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, b"".join([to_line(scores.header), *map(to_line, scores.outcomes)]))


def _manager(tasks: Sequence[str]) -> TaskManager:
    """Know the harness's own tasks only where one is named: to list them takes half a minute."""
    return TaskManager(include_defaults=not all(task.endswith(_FILES) for task in tasks))


@contextmanager
def _refusals(tasks: Sequence[str]) -> Iterator[None]:
    """Say which tasks the harness couldn't take. Raises E-EVAL."""
    try:
        yield
    except (KeyError, ValueError, TypeError, OSError, YAMLError, TemplateError) as error:
        said = str(error.args[0] if isinstance(error, KeyError) else error).strip().splitlines() or [
            type(error).__name__
        ]
        what = f"lm-evaluation-harness failed on {', '.join(tasks)}: {said[0].rstrip('.')}."
        raise EvaluationError("E-EVAL", what, "Look at the task's file and data, or name tasks that it has.") from error


def _scores(
    results: Mapping[str, Any], samples: Mapping[str, Sequence[Mapping[str, Any]]], name: str, model: Mapping[str, Any]
) -> Iterator[Scores]:
    """Make scores of every metric that is a number at each example, tasks with the same metric together."""
    by_metric: dict[str, dict[str, list[float]]] = {}
    for task, ones in samples.items():
        for sample in sorted(ones, key=lambda one: one["doc_id"]):
            for metric in sample["metrics"]:
                if isinstance(sample[metric], Real):
                    key = metric if sample["filter"] == "none" else f"{metric},{sample['filter']}"
                    by_metric.setdefault(key, {}).setdefault(task, []).append(float(sample[metric]))
    for metric, values in by_metric.items():
        yield Scores(_header(metric, values, results, samples, name, model), tuple(_outcomes(values)))


def _outcomes(values: Mapping[str, Sequence[float]]) -> Iterator[Outcome]:
    for task in sorted(values):
        for index, value in enumerate(values[task]):
            yield Outcome(task, index, value)


def _header(
    metric: str,
    values: Mapping[str, Sequence[float]],
    results: Mapping[str, Any],
    samples: Mapping[str, Sequence[Mapping[str, Any]]],
    name: str,
    model: Mapping[str, Any],
) -> dict[str, Any]:
    better = [results["higher_is_better"].get(task, {}).get(metric.partition(",")[0]) for task in values]
    hashes = {task: hash_json([one["doc_hash"] for one in samples[task]])[:16] for task in values}
    header = {
        "format": FORMAT,
        "name": name,
        "metric": f"lm-eval {metric}",
        "options": {"name": "lm-eval", "metric": metric, "version": str(results.get("lm_eval_version"))},
        "unit": "0-1" if all(0 <= value <= 1 for ones in values.values() for value in ones) else "lm-eval",
        "higher_is_better": all(one is not False for one in better),
        "model": dict(model),
        "tasks": {task: {"n_examples": len(ones), "hash": hashes[task]} for task, ones in sorted(values.items())},
    }
    plain: dict[str, Any] = json.loads(json.dumps(header))
    return plain
