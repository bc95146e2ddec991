"""Share of answers that are right to the letter."""

import string
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from lorary.evaluation.base import Evaluator, LanguageModel, Outcome
from lorary.options import require_count
from lorary.tasks.example import Example


@dataclass(frozen=True)
class ExactMatch(Evaluator):
    """Share of answers that equal one of the accepted answers.

    Value 100 or 0 per example. `normalise` compares without case, ASCII punctuation and extra white space;
    `normalise=False` compares the stripped texts. Greedy generation of at most `max_new_tokens`.
    Source: the BBH score in microsoft/mttl (lower-cased, punctuation and extra blanks removed).
    """

    max_new_tokens: int = 64
    normalise: bool = True

    unit: ClassVar[str] = "0-100"
    higher_is_better: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Refuse options that have no meaning."""
        super().__post_init__()
        require_count("exact_match: max_new_tokens", self.max_new_tokens)

    def score(self, model: LanguageModel, examples: Sequence[Example]) -> list[Outcome]:
        """Generate one answer per example and look it up among the accepted ones."""
        answers = model.generate_text(examples, max_new_tokens=self.max_new_tokens)
        return [
            Outcome(
                example.task,
                index,
                self.judge(answer, example.answers),
                {"prediction": answer, "references": list(example.answers)},
            )
            for index, (example, answer) in enumerate(zip(examples, answers, strict=True))
        ]

    def judge(self, answer: str, accepted: Sequence[str]) -> float:
        """Give 100 for an answer that equals an accepted one, else 0."""
        form = _normalised if self.normalise else str.strip
        return 100.0 * (form(answer) in map(form, accepted))


_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def _normalised(text: str) -> str:
    plain = text.lower().translate(_NO_PUNCTUATION)
    # An answer that is all punctuation ("+") would otherwise equal every other one, and the empty text.
    return " ".join((plain if plain.strip() else text).split())
