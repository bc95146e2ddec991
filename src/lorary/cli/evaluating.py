"""Evaluating one model by one metric into a file, or several by several into a directory."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from lorary.cli.application import resumable
from lorary.cli.models import BARE, choose, opened, refuse_for_libraries
from lorary.cli.options.loading import Loading, Reading
from lorary.cli.options.parameters import EMBEDDED
from lorary.cli.options.workers import Workers
from lorary.cli.printing.console import Bar, print_json, print_table, progress, say
from lorary.cli.work import Work

if TYPE_CHECKING:
    from lorary.evaluation.benchmarking.contract import Exam
    from lorary.evaluation.scores import Scores
    from lorary.tasks.task import Tasks

_FILES = {".jsonl", ".json"}


@dataclass(frozen=True)
class Asked:
    """What is to be evaluated, as the command line says it."""

    target: str
    routers: Sequence[str]
    exams: "Sequence[Exam]"
    into: Path
    limit: int | None
    routing: dict[str, Any]  # mix, max_share, base, tasks: as `opened` takes them

    @property
    def fits_a_file(self) -> bool:
        """Tell whether this is one pair, and no directory stands where its file would be."""
        return len(self.routers) < 2 and len(self.exams) < 2 and not os.path.isdir(self.into)

    def train_tasks(self, reading: dict[str, Any]) -> "Tasks | None":
        """Read the tasks that some routers need."""
        from lorary.tasks.read import read_tasks

        return read_tasks(self.routing["tasks"], **reading) if self.routing["tasks"] else None


def exams_of(
    place: str, metrics: Sequence[str], benchmarks: Sequence[str], only: Sequence[str], reading: dict[str, Any]
) -> "list[Exam]":
    """Read what is scored: benchmarks, which have metrics of their own, or tasks, all or a few, by each metric."""
    if not benchmarks:
        from lorary.evaluation.benchmarking.exams import as_exams
        from lorary.folder import EVALUATORS
        from lorary.tasks.read import read_tasks

        found = [EVALUATORS.parse(spec) for spec in metrics or ["rouge_l"]]  # misspelt, it is told before data is read
        tasks = read_tasks(place, **reading)
        return list(as_exams(found, tasks.only(only) if only else tasks))
    if metrics:
        raise typer.BadParameter("a benchmark has a metric of its own; give one of the two.", param_hint="--metric")
    if only:
        raise typer.BadParameter("a benchmark isn't a task; name it with --benchmark.", param_hint="--only")
    from lorary.evaluation.benchmarking.read import read_benchmarks

    return list(read_benchmarks(place, benchmarks).values())


def evaluate_one(asked: Asked, how: Loading, reading: Reading) -> "Scores":
    """Evaluate one model by one metric into a file."""
    from lorary.evaluation.evaluate import check_into, check_tasks, evaluate, foresee

    exam, router = asked.exams[0], next(iter(asked.routers), None)
    check_tasks(exam.evaluator, exam.tasks)
    choice = choose(asked.target, reading, router=router, **asked.routing, tasks_option="--train-tasks")
    name, limit = asked.into.stem, asked.limit
    check_into(asked.into, foresee(exam.evaluator, exam.tasks, name=name, limit=limit, model=choice.identity))
    with (
        opened(choice, how) as model,
        progress("examples") as bar,
        _tokens_noted(model, bar),
        resumable(),
    ):
        return evaluate(exam.evaluator, model, exam.tasks, into=asked.into, limit=limit, progress=bar)


@contextmanager
def _tokens_noted(model: Any, bar: Bar) -> Iterator[None]:
    """Note beside the examples, which come by the batch, how many tokens have passed through the base."""
    from lorary.model.base.passes import count_passes

    tokens = 0.0

    def hear(amount: float) -> None:
        nonlocal tokens
        tokens += amount
        bar.note(f"{tokens:,.0f} tokens")

    with count_passes(getattr(model, "base", model), hear):
        yield


def evaluate_many(asked: Asked, how: Loading, reading: Reading, workers: Workers) -> "list[tuple[Path, Scores]]":
    """Evaluate each router by each exam into a directory; gives the files and what is in them."""
    if asked.into.suffix in _FILES and not asked.into.is_dir():
        why = (
            "several routers, metrics or benchmarks, and workers, need a directory: "
            "there will be one file for each pair."
        )
        raise typer.BadParameter(why, param_hint="--into")
    place = workers.place()
    base = _base_for(asked)
    train_tasks = asked.train_tasks(reading.options)

    from lorary.grid.evaluate_grid import evaluate_grid
    from lorary.grid.setup import Setup
    from lorary.grid.survey_runs import survey_runs

    library, mix = None if asked.target == BARE else asked.target, asked.routing["mix"]
    given = {"mix": mix.value} if mix else {}
    routers: Sequence[str | None] = asked.routers or (None,)
    setups = [Setup(library, router, max_share=asked.routing["max_share"], **given) for router in routers]
    with (
        progress("examples") as bar,
        Work(bar, asked.into, things="runs", verb="score", survey=survey_runs).watched() as work,
        resumable(),
    ):
        scores = evaluate_grid(
            setups, asked.exams, base=base, into=asked.into, loading=how.options,
            train_tasks=train_tasks, limit=asked.limit, backend=place, run=workers.run, report=work.on_step,
            on_plan=work.on_plan, tell=say,
        )  # fmt: skip
    return [(asked.into / file, one) for file, one in scores.items()]


def _base_for(asked: Asked) -> str | None:
    """Name the base to load; None: that of the saved model."""
    from lorary.using.base_of import base_of
    from lorary.using.target import find_target

    target = find_target(asked.target, asked.routing["base"])
    if target.library is not None:
        return target.base or base_of(target.library)
    given = {"--router": asked.routers or None, "--mix": asked.routing["mix"]}
    given |= {"--train-tasks": asked.routing["tasks"], "--max-share": asked.routing["max_share"]}
    refuse_for_libraries(target, given)
    return target.base or (EMBEDDED if target.is_bare else None)


def print_run(into: Path, scores: "Scores", *, json: bool) -> None:
    """Print the scores of one run, task by task."""
    if json:
        return print_json({"run": str(into), **_plain(scores)})
    print_table([(task, f"{mean:.3f}") for task, mean in scores.per_task().items()])
    return print(f"{scores.name}: {scores.metric} {_mean(scores)} ({scores.unit})")


def print_runs(runs: "Sequence[tuple[Path, Scores]]", *, json: bool) -> None:
    """Print the means of several runs."""
    if json:
        return print_json({"runs": [{"run": str(path), **_plain(scores)} for path, scores in runs]})
    return print_table([(scores.name, scores.metric, _mean(scores), f"({scores.unit})") for _, scores in runs])


def _mean(scores: "Scores") -> str:
    low, high = scores.interval()
    return f"{scores.mean:.3f} [{low:.3f}, {high:.3f}]"


def _plain(scores: "Scores") -> dict[str, Any]:
    low, high = scores.interval()
    return {
        "name": scores.name,
        "metric": scores.metric,
        "unit": scores.unit,
        "mean": scores.mean,
        "low": low,
        "high": high,
        "tasks": scores.per_task(),
    }
