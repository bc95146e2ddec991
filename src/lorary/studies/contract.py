"""Study, Plan, Verdict: a question that a few libraries and scores answer, on any base and any tasks."""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

from lorary.adapters.contract import Mix
from lorary.building.contract import Builder
from lorary.building.finetune import FullFineTuning
from lorary.evaluation.compare import compare
from lorary.evaluation.contract import Evaluator
from lorary.evaluation.scores import Scores
from lorary.library.library import Library
from lorary.model.base.base_model import BaseModel
from lorary.options import Options
from lorary.reporting.canvas import Picture
from lorary.reporting.figure import draw_scores
from lorary.reporting.table import Table, make_table
from lorary.tasks.example import Example
from lorary.tasks.task import Tasks

TRAINED = "trained tasks"
UNSEEN = "unseen tasks"

GIVEN = "source"
"""Stands for the path of the library that the user gave."""

Libraries = Mapping[str, Library]
"""The libraries that are there so far, by their paths in the run."""


Benchmark = tuple[Evaluator, Tasks]
"""How a test set is scored, and its examples."""


@dataclass(frozen=True)
class Subject:
    """What a study is run on. heldout: tasks never trained on; source: a library that is there already.

    benchmarks: others' test sets, by their names, each with its metric; none has to be given.
    """

    tasks: Tasks
    heldout: Tasks
    source: Library | None = None
    benchmarks: Mapping[str, Benchmark] = field(default_factory=dict)

    def __reduce__(self) -> Any:
        """Send a library as its path: who gets the subject opens it anew."""
        path = None if self.source is None else self.source.path
        return _subject, (self.tasks, self.heldout, path, dict(self.benchmarks))


def _subject(tasks: Tasks, heldout: Tasks, source: Path | None, benchmarks: Mapping[str, Benchmark]) -> Subject:
    return Subject(tasks, heldout, None if source is None else Library.open(source), benchmarks)


Measured = Mapping[str, Any]
"""What was measured so far, by the path of each measure in the run."""


@dataclass(frozen=True)
class Bench:
    """What a part of a plan is made from: the base, and all that the parts before it made."""

    base: BaseModel
    libraries: Libraries = field(default_factory=dict)
    measured: Measured = field(default_factory=dict)


@dataclass(frozen=True)
class Build:
    """One library that a study makes.

    path: its directory, below that of the run. builder: its options, or how to choose them once the libraries before
    it are there. source: the path of the library that it starts from. like: a builder that needs no library, and its
    tasks, which take as many steps, for the plan, where this one can't be planned before others are built; None for no
    steps. after: the paths of measures that its builder is chosen by; they are made once the builds before it are.
    is_shared: its path tells all that decides it, so that studies of one subject and scale may have it in common.
    A builder `FullFineTuning` makes no library but a copy of the base, which a cell names like one.
    """

    path: str
    builder: Builder | FullFineTuning | Callable[[Bench], Builder]
    tasks: Tasks
    source: str | None = None
    like: tuple[Builder, Tasks] | None = None
    after: Sequence[str] = ()
    is_shared: bool = False


@dataclass(frozen=True)
class Cell:
    """One evaluation of a study: a row of its tables, on one group of tasks; cells of one row and group are joined.

    path: its file of scores, below the directory of the run. library: the path of a build, GIVEN, or None for the base
    alone. fit: the tasks that some routers learn from. mix: None is "factors" where all experts have one rank, as the
    paper mixes, else "outputs". limit: test examples of each task.
    """

    path: str
    name: str
    group: str
    evaluator: Evaluator
    tasks: Tasks
    limit: int
    library: str | None = None
    router: str = "uniform"
    mix: Mix | None = None
    fit: Tasks | None = None


@dataclass(frozen=True)
class Measure:
    """Something that a study finds out itself, neither a library nor scores: one JSON file.

    path: its file, below the directory of the run. compute: finds it out; the same bench always gives the same. form: a
    frozen dataclass, of which it gives one; the file is held to its types, and to what its `__post_init__` refuses with
    ValueError. A file whose origin differs from what follows is refused: libraries: the paths of those it looks at;
    tasks: the examples that it looks at; after: the paths of the measures it starts from; options: what else decides
    it. Of what it costs a plan says: steps of training; examples: those that pass through the base, or as many of the
    same length; passes: how often each does.
    """

    path: str
    compute: Callable[[Bench], Any]
    form: type
    libraries: Sequence[str] = ()
    tasks: Tasks = field(default_factory=lambda: Tasks([]))
    after: Sequence[str] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    steps: int = 0
    examples: Sequence[Example] = ()
    passes: float = 1.0


def file_name(text: str) -> str:
    """Make of a row's name what a file can be called: all but letters, digits, "_" and "-" becomes "-"."""
    return "".join(letter if letter.isalnum() or letter in "_-" else "-" for letter in text)


@dataclass(frozen=True)
class Plan:
    """All that a study makes: libraries, each after the measures it needs, then scores, then the other measures."""

    builds: Sequence[Build] = ()
    cells: Sequence[Cell] = ()
    measures: Sequence[Measure] = ()


@dataclass(frozen=True)
class Verdict:
    """Whether a claim held in this run. holds: None if the examples are too few to tell; numbers: what says so.

    only_in_sign: it holds of these tasks, but other tasks of their kind may tell otherwise. interval: the difference
    that it is about, with its ends (nan of too few examples), better being more. paper: what the paper found; meaning:
    what it means for a user.
    """

    claim: str
    holds: bool | None
    numbers: str = field(default="", compare=False)
    only_in_sign: bool = False
    interval: tuple[float, float, float] | None = field(default=None, compare=False)
    paper: str = field(default="", compare=False)
    meaning: str = field(default="", compare=False)

    @property
    def outcome(self) -> str:
        """Say it in the words of the overview: holds, holds in sign, fails, can't tell."""
        return {True: "holds in sign" if self.only_in_sign else "holds", False: "fails", None: "can't tell"}[self.holds]

    def __str__(self) -> str:
        found = {True: "true here", False: "not true here", None: "can't be told here"}[self.holds]
        where = " on these tasks, perhaps not on others" if self.only_in_sign else ""
        return f"{self.claim}: {found}{where}. {self.numbers}".rstrip()


def judge(claim: str, one: Scores, other: Scores) -> Verdict:
    """Judge the claim that one run is better than another, by the paired bootstrap over their examples."""
    found = compare(one, other)
    is_better = (found.difference > 0) == one.higher_is_better
    return Verdict(claim, is_better if found.is_clear else None, f"{found}.")


@dataclass(frozen=True, eq=False)
class Results(Mapping[str, Mapping[str, Scores]]):
    """What a plan gave: group of tasks -> row -> scores, in the order of the plan, and what was measured.

    Over several seeds scores are the means of each example; measures stand beside each other, one mapping a seed.
    """

    scores: Mapping[str, Mapping[str, Scores]]
    measured: Sequence[Measured] = ()

    def __getitem__(self, group: str) -> Mapping[str, Scores]:
        return self.scores[group]

    def __iter__(self) -> Iterator[str]:
        return iter(self.scores)

    def __len__(self) -> int:
        return len(self.scores)

    def found(self, path: str) -> list[Any]:
        """List what a measure gave, one for each seed; nothing if it isn't part of the plan."""
        return [measured[path] for measured in self.measured if path in measured]


@dataclass(frozen=True)
class Study(Options, ABC):
    """Options of one question. `seed` among them, if there is one, is that of all training.

    presets: options by scale that are the study's own, beside those that all studies have (`studies/scales.py`).
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    @abstractmethod
    def plan(self, subject: Subject) -> Plan:
        """List what is built and scored; nothing is run. Raises what shows that the study can't be run on this."""

    def repeat(self, seed: int) -> Self:
        """Give the study with a further seed; it may leave out what is measured once."""
        varied: Any = self
        return dataclasses.replace(varied, seed=seed)  # type: ignore[no-any-return]

    @abstractmethod
    def judge(self, results: Results) -> list[Verdict]:
        """Say of each claim whether it holds, as far as its rows were measured."""

    def tables(self, results: Results, title: str) -> list[Table]:
        """Lay out what was measured: rows down, groups of tasks across."""
        labels = {"perplexity": "loss", "rouge_l": "Rouge-L"}
        metrics = {scores.metric for rows in results.values() for scores in rows.values()}
        shown = {metric: labels.get(metric.partition(":")[0], metric) for metric in metrics}
        return [make_table({group: rows.values() for group, rows in results.items()}, title=title, labels=shown)]

    def figures(self, results: Results) -> list[Picture]:
        """Draw what was measured, for the page: by default the table of scores."""
        tables = self.tables(results, "")
        return [draw_scores(tables[0])] if tables and tables[0].columns else []
