"""Multiple choice without generating a word."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import ClassVar, Literal

from lorary.errors import EvaluationError
from lorary.evaluation.contract import Evaluator, LanguageModel, LogLikelihood, Outcome
from lorary.tasks.example import Example


@dataclass(frozen=True)
class Choice(Evaluator):
    """Share of multiple-choice questions where the right option is the likeliest.

    Value 100 or 0 per example. An option's score is its log-likelihood, end of sequence included, divided by its
    number of tokens (`normalise="token"`), by its UTF-8 bytes ("byte"), or not at all ("none"). Of equal scores the
    first option wins. Raises E-EVAL for an example whose completion is not among two or more choices.
    Source: Ostapenko et al. 2024 (2405.11157) and microsoft/mttl: per token, with end of sequence.
    Differs: mttl leaves tokens with a loss of exactly 0 out of the count.
    """

    normalise: Literal["token", "byte", "none"] = "token"
    """What an option's log-likelihood is divided by: its tokens, its UTF-8 bytes, or nothing."""

    unit: ClassVar[str] = "0-100"
    higher_is_better: ClassVar[bool] = True

    def check(self, examples: Sequence[Example]) -> None:
        """Refuse an example whose completion is not among two or more choices."""
        for example in examples:
            _check_choices(example)

    def score(self, model: LanguageModel, examples: Sequence[Example]) -> list[Outcome]:
        """Ask the model for the likelihood of every option of every example, all at once."""
        self.check(examples)
        options = [replace(example, completion=choice) for example in examples for choice in example.choices]
        likelihoods = iter(model.log_likelihood(options))
        return [
            self._outcome(index, example, list(islice(likelihoods, len(example.choices))))
            for index, example in enumerate(examples)
        ]

    def _outcome(self, index: int, example: Example, likelihoods: list[LogLikelihood]) -> Outcome:
        scores = [
            found.nats / self._length(choice, found) for choice, found in zip(example.choices, likelihoods, strict=True)
        ]
        details = {"prediction": example.choices[scores.index(max(scores))], "scores": scores}
        if not all(map(math.isfinite, scores)):  # a comparison with NaN is no choice: `evaluate` refuses the value
            return Outcome(example.task, index, math.nan, details)
        return Outcome(example.task, index, 100.0 * (details["prediction"] == example.completion), details)

    def _length(self, choice: str, found: LogLikelihood) -> int:
        if self.normalise == "token":
            return found.n_tokens
        return len(choice.encode()) or 1 if self.normalise == "byte" else 1


def _check_choices(example: Example) -> None:
    if len(example.choices) < 2:
        raise EvaluationError(
            "E-EVAL",
            f"task {example.task!r}: metric 'choice' needs at least two choices, found {len(example.choices)} "
            f"at {example.prompt[:40]!r}.",
            "Give the examples `choices`, or use exact_match.",
        )
    if example.completion not in example.choices:
        raise EvaluationError(
            "E-EVAL",
            f"task {example.task!r}: completion {example.completion!r} is not among the choices "
            f"{list(example.choices)} at {example.prompt[:40]!r}.",
            "Make `completion` one of `choices`, letter for letter.",
        )
