"""A benchmark is options, how rows become examples, and the metric that scores them."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from lorary.evaluation.contract import Evaluator
from lorary.options import Options, name_of
from lorary.tasks.example import Example
from lorary.tasks.rows.fields import Row
from lorary.tasks.task import Tasks


@dataclass(frozen=True)
class Benchmark(Options, ABC):
    """Options of one benchmark.

    Its rows come in two shapes: that of a directory of benchmarks, where fields have the same names everywhere
    (docs/how_to/benchmarks.md), and that of its data set on the Hub, as it is there.
    """

    title: ClassVar[str]
    """What the head of a table calls it: "ARC-C"."""
    part: ClassVar[str]
    """The part of its data set that is scored, "valid" or "test"; of a file without parts every row is, and if this is
    empty, of any file."""
    places: ClassVar[tuple[str, ...]] = ()
    """Where else than under its own name its files may stand in a directory, as "ai2_arc/ARC-Challenge"."""
    hub: ClassVar[tuple[str, ...]]
    """The names of its data on the Hub, as "hf://datasets/allenai/ai2_arc/ARC-Challenge:test"; all are read."""

    @property
    def name(self) -> str:
        """Its file's name, which is also that of its task."""
        return name_of(self)

    @property
    @abstractmethod
    def evaluator(self) -> Evaluator:
        """The metric that scores its examples."""

    @abstractmethod
    def examples(self, rows: Sequence[Row], train: Sequence[Row] = ()) -> tuple[Example, ...]:
        """Make the examples that are scored, of `name` as their task, in the order of the rows unless options say else.

        rows: of the part that is scored, at least one. train: of the part to train on, where the data has it: examples
        in the prompt come from there, or else from rows that then aren't scored.
        Raises E-DATA, with its place, for a row that isn't one of this benchmark.
        """


@dataclass(frozen=True)
class Exam:
    """A benchmark with its data, as `evaluate` takes it: a metric and the tasks that it scores, under one name."""

    name: str
    evaluator: Evaluator
    tasks: Tasks
    title: str = ""
