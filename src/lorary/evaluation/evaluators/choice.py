"""Multiple choice without generating a word."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import ClassVar, Literal

from lorary.errors import EvaluationError
from lorary.evaluation.contract import Evaluator, LanguageModel, LogLikelihood, Outcome, likelihoods
from lorary.hashing import SKIP_DEFAULT
from lorary.tasks.example import Example


@dataclass(frozen=True)
class Choice(Evaluator):
    """Share of multiple-choice questions where the right option is the likeliest.

    Value 100 or 0 per example. An option's score is its log-likelihood, end of sequence included, divided by its
    number of tokens (`normalise="token"`), by its UTF-8 bytes ("byte") or characters ("character"), or not at all
    ("none"). Of equal scores the first option wins. Where an example has `contexts`, these are the options, and each
    scores by how likely it makes the completion, which they share.
    Raises E-EVAL for an example whose completion is not among two or more choices, or its prompt among the contexts.
    Source: Ostapenko et al. 2024 (2405.11157) and microsoft/mttl: per token, with end of sequence.
    lm-evaluation-harness's `acc` is choice:normalise=none,open_end=true, its `acc_norm` has normalise=character.
    Differs: mttl leaves tokens with a loss of exactly 0 out of the count.
    """

    normalise: Literal["token", "byte", "character", "none"] = "token"
    """What an option's log-likelihood is divided by: its tokens, its UTF-8 bytes, its characters, or nothing."""
    open_end: bool = field(default=False, metadata=SKIP_DEFAULT)
    """Score options without the end of sequence after them."""

    unit: ClassVar[str] = "0-100"
    higher_is_better: ClassVar[bool] = True

    def check(self, examples: Sequence[Example]) -> None:
        """Refuse an example whose completion, or prompt, is not among two or more options."""
        for example in examples:
            _check_options(example)

    def score(self, model: LanguageModel, examples: Sequence[Example]) -> list[Outcome]:
        """Ask the model for the likelihood of every option of every example, all at once."""
        self.check(examples)
        asked = [_options(example) for example in examples]
        found = iter(likelihoods(model, [option for options in asked for option in options], self.open_end))
        return [
            self._outcome(index, example, options, list(islice(found, len(options))))
            for index, (example, options) in enumerate(zip(examples, asked, strict=True))
        ]

    def _outcome(
        self, index: int, example: Example, options: Sequence[Example], found: Sequence[LogLikelihood]
    ) -> Outcome:
        scores = [
            likelihood.nats / self._length(option.completion, likelihood)
            for option, likelihood in zip(options, found, strict=True)
        ]
        names, right = (example.contexts, example.prompt) if example.contexts else (example.choices, example.completion)
        details = {"prediction": names[scores.index(max(scores))], "scores": scores}
        if not all(map(math.isfinite, scores)):  # a comparison with NaN is no choice: `evaluate` refuses the value
            return Outcome(example.task, index, math.nan, details)
        return Outcome(example.task, index, 100.0 * (details["prediction"] == right), details)

    def _length(self, option: str, found: LogLikelihood) -> int:
        lengths = {"token": found.n_tokens, "byte": len(option.encode()), "character": len(option)}
        return lengths.get(self.normalise, 1) or 1


def _options(example: Example) -> list[Example]:
    """Give what is scored of an example: a prompt and a completion for each option."""
    if example.contexts:
        return [replace(example, prompt=context, contexts=()) for context in example.contexts]
    return [replace(example, completion=choice) for choice in example.choices]


def _check_options(example: Example) -> None:
    if example.contexts and (example.choices or example.messages):
        other = "choices" if example.choices else "messages"
        what = f"task {example.task!r}: an example has contexts and {other} at {example.prompt[:40]!r}."
        raise EvaluationError("E-EVAL", what, "Give it one of the two: the options are prompts or completions.")
    if example.contexts:
        _check_among(example, "prompt", "contexts")
    else:
        _check_among(example, "completion", "choices")


def _check_among(example: Example, right: str, name: str) -> None:
    options: tuple[str, ...] = getattr(example, name)
    where = f"at {example.prompt[:40]!r}."
    if len(options) < 2:
        what = f"task {example.task!r}: metric 'choice' needs at least two {name}, found {len(options)} {where}"
        raise EvaluationError("E-EVAL", what, f"Give the examples `{name}`, or use exact_match.")
    if getattr(example, right) not in options:
        found = f"{right} {getattr(example, right)!r} is not among the {name} {list(options)}"
        hint = f"Make `{right}` one of `{name}`, letter for letter."
        raise EvaluationError("E-EVAL", f"task {example.task!r}: {found} {where}", hint)
