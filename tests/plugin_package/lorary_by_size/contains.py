"""Share of answers that name the right one."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import lorary as lo


@dataclass(frozen=True)
class Contains(lo.Evaluator):
    """Share of answers in which an accepted answer occurs, whatever else they say.

    Value 100 or 0 per example; case is ignored.
    """

    max_new_tokens: int = 64

    unit: ClassVar[str] = "0-100"
    higher_is_better: ClassVar[bool] = True

    def score(self, model: lo.LanguageModel, examples: Sequence[lo.Example]) -> list[lo.Outcome]:
        """Generate one answer per example and look for the accepted ones in it."""
        texts = model.generate_text(examples, max_new_tokens=self.max_new_tokens)
        return [
            lo.Outcome(example.task, index, 100.0 * _contains(text, example.answers), {"prediction": text})
            for index, (example, text) in enumerate(zip(examples, texts, strict=True))
        ]


def _contains(text: str, accepted: Sequence[str]) -> bool:
    return any(answer.lower() in text.lower() for answer in accepted)
