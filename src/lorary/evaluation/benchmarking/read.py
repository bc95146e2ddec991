"""Benchmarks by name, with their data."""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lorary.errors import OptionError, TaskError, known_names, listed
from lorary.evaluation.benchmarking.contract import Benchmark, Exam
from lorary.evaluation.benchmarking.places import HUB, parted, sources_of
from lorary.folder import BENCHMARKS
from lorary.options import make, require_each, split_spec, to_spec
from lorary.tasks.rows.files import Source, rows_of
from lorary.tasks.task import Task, Tasks

ALL = "all"


def read_benchmarks(source: Source = HUB, which: Sequence[Benchmark | str] | Benchmark | str = ALL) -> dict[str, Exam]:
    """Read benchmarks, by their specs; `evaluate` takes each one's metric and tasks, `evaluate_grid` all of them.

    source: a directory with a file or a directory for each, as piqa.jsonl.gz or the files of its data set on the Hub;
    "hf://datasets" for those data sets themselves; or for one benchmark alone whatever `read_tasks` takes.
    which: benchmarks as PIQA() or "bbh:shots=3", or "all": those that the directory has. Options of "all", as
    "all:prompts=harness,score=acc", go to each benchmark that knows them.
    Raises E-DATA for a benchmark that isn't there and for rows that aren't its own, E-EVAL for too few rows, E-NAME,
    E-OPTION, E-HUB, E-EXTRA.
    """
    wanted = _parse(which)
    alone = len(wanted) == 1
    exams: dict[str, Exam] = {}
    for benchmark, may_lack in wanted:
        places = sources_of(benchmark, source, alone=alone)
        if places:
            exams[to_spec(benchmark)] = _read(benchmark, places)
        elif not may_lack:
            raise _missing(source, [benchmark.name])
    if not exams:
        raise _missing(source, [benchmark.name for benchmark, _ in wanted])
    return exams


def _read(benchmark: Benchmark, places: Sequence[Any]) -> Exam:
    rows, train = parted(benchmark, [row for place in places for row in rows_of(place)])
    task = Task(benchmark.name, test=benchmark.examples(rows, train))
    return Exam(to_spec(benchmark), benchmark.evaluator, Tasks([task]), benchmark.title)


def _parse(which: Sequence[Benchmark | str] | Benchmark | str) -> list[tuple[Benchmark, bool]]:
    """Make benchmarks of specs, each with whether its data may be missing. Raises E-NAME, E-OPTION."""
    given = [which] if isinstance(which, (str, Benchmark)) else which
    require_each("which", given, (Benchmark, str), 'benchmarks, as PIQA() or "piqa"')
    found = [pair for one in given for pair in _expand(one)]
    specs = [to_spec(benchmark) for benchmark, _ in found]
    if not found:
        raise OptionError("E-OPTION", "no benchmark was named.", f"Name one, or {ALL!r}.")
    if twice := sorted({spec for spec in specs if specs.count(spec) > 1}):
        raise OptionError("E-NAME", f"benchmark {twice[0]!r} is given twice.", "Give each once.")
    return found


def _expand(one: Benchmark | str) -> Iterator[tuple[Benchmark, bool]]:
    if isinstance(one, Benchmark):
        yield one, False
        return
    name, values = split_spec(one)
    if name != ALL:
        yield BENCHMARKS.parse(one), False
        return
    classes = {known: BENCHMARKS.load(known) for known in BENCHMARKS.names()}
    options = {known: {field.name for field in dataclasses.fields(cls)} for known, cls in classes.items()}
    every = sorted(set().union(*options.values()))
    for key in values:
        if key not in every:
            raise OptionError("E-OPTION", f"{ALL}: unknown option {key!r}.", known_names(key, every))
    for known, cls in classes.items():
        own = {key: value for key, value in values.items() if key in options[known]}
        yield make(cls, own, called=known), True


def _missing(source: Any, names: Sequence[str]) -> TaskError:
    where = str(source) if isinstance(source, (str, Path)) else f"a {type(source).__name__}"
    what = f"{where}: there are no rows of {listed(list(names))}."
    hint = f"A directory of benchmarks has a file or a directory of the name of each, as {names[0]}.jsonl."
    return TaskError("E-DATA", what, hint)
