"""The interface between models and metrics: two questions a model answers, in text and plain numbers."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, Protocol, TypedDict, Unpack

from lorary.errors import EvaluationError
from lorary.evaluation.sampling import Sampling
from lorary.options import Options
from lorary.tasks.example import Example
from lorary.tasks.task import Task


class LogLikelihood(NamedTuple):
    """log p(completion, end of sequence | prompt) in nats, and the number of tokens (at least 1) it is a sum over.

    Without the end of sequence where that was asked for (`open_end`).
    """

    nats: float
    n_tokens: int


class Wanted(TypedDict, total=False):
    """What else may be wanted of answers.

    stop: they end before the first of these texts. sampling: how the tokens of each answer are chosen, one for each.
    strip: whether white space is taken off their ends; by default it is.
    """

    stop: Sequence[str]
    sampling: Sequence[Sampling]
    strip: bool


class LanguageModel(Protocol):
    """What an evaluation needs of a model. Batching and devices are up to the model."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """What this model is, as plain JSON: base fingerprint, library hash, router, mix."""

    def log_likelihood(self, examples: Sequence[Example], *, open_end: bool = False) -> list[LogLikelihood]:
        """Score each example's completion; the prompt isn't scored. open_end: without the end of sequence after it."""

    def generate_text(self, examples: Sequence[Example], *, max_new_tokens: int, **how: Unpack[Wanted]) -> list[str]:
        """Answer each example's prompt greedily, unless `how` says otherwise; completions aren't looked at."""


def likelihoods(model: LanguageModel, examples: Sequence[Example], open_end: bool) -> list[LogLikelihood]:
    """Let a model score. A model that doesn't know open ends works when none is wanted."""
    more: dict[str, Any] = {"open_end": True} if open_end else {}
    return model.log_likelihood(examples, **more)


def generate(
    model: LanguageModel, examples: Sequence[Example], max_new_tokens: int, **how: Unpack[Wanted]
) -> list[str]:
    """Let a model answer. A model that doesn't support an option works where it isn't needed."""
    if not how.get("stop"):
        how.pop("stop", None)
    return model.generate_text(examples, max_new_tokens=max_new_tokens, **how)


@dataclass(frozen=True)
class Outcome:
    """The result of one example: its value, and what shows how (prediction, per-choice scores), as plain JSON."""

    task: str
    index: int
    value: float
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Place:
    """An example and where it stands: its task, and its index in the task's test part."""

    task: str
    index: int
    example: Example


@dataclass(frozen=True)
class Evaluator(Options, ABC):
    """Options of one measure; `evaluate` scores the test part of a task, one outcome per example."""

    unit: ClassVar[str]  # "0-100", "nats per token": stands in tables
    higher_is_better: ClassVar[bool]

    @abstractmethod
    def score(self, model: LanguageModel, examples: Sequence[Example]) -> list[Outcome]:
        """Score examples, in their order; `index` is the place in `examples`. Raises E-EVAL if they don't fit."""

    def check(self, examples: Sequence[Example]) -> None:
        """Refuse examples that this can't measure, before any model is asked. Raises E-EVAL."""

    def evaluate(self, model: LanguageModel, task: Task) -> list[Outcome]:
        """Score a task's test examples; `index` is the place in the task. Raises E-EVAL as `score_places` does."""
        if not task.test:
            raise EvaluationError("E-EVAL", f"task {task.name!r} has no test examples.")
        return self.score_places(model, [Place(task.name, i, example) for i, example in enumerate(task.test)])

    def score_places(self, model: LanguageModel, places: Sequence[Place]) -> list[Outcome]:
        """Score examples of any tasks at once, in their order.

        Raises E-EVAL for a value that is not a finite number.
        """
        outcomes = self.score(model, [place.example for place in places])
        assert [outcome.index for outcome in outcomes] == list(range(len(places))), "one outcome per example, in order"
        return [_placed(outcome, place) for outcome, place in zip(outcomes, places, strict=True)]


def _placed(outcome: Outcome, place: Place) -> Outcome:
    if not math.isfinite(outcome.value):
        raise EvaluationError(
            "E-EVAL",
            f"task {place.task!r}, example {place.index}: value is {outcome.value}, expected a finite number.",
            "Look for NaN in the experts' weights (`lorary show`), or load the base in a wider dtype.",
        )
    return Outcome(place.task, place.index, float(outcome.value), outcome.details)
