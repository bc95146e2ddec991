"""Overlap of free text with the accepted answers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from lorary.evaluation.contract import Evaluator, LanguageModel, Outcome, generate
from lorary.options import require_count
from lorary.tasks.example import Example
from lorary.tasks.overlap import overlaps


@dataclass(frozen=True)
class RougeL(Evaluator):
    """How much of an accepted answer's word order the model's answer keeps.

    Value: 100 times the Rouge-L F measure of stemmed words, the best over the accepted answers.
    Greedy generation of at most `max_new_tokens`, up to the first of the texts `stop`. The tokenizer of
    `rouge-score` keeps a-z and 0-9 only, so text in other scripts scores 0: use exact_match there.
    Source: Ostapenko et al. 2024 (2405.11157), 64 new tokens; Google's `rouge-score`.
    """

    max_new_tokens: int = 64
    """Longest answer, in tokens."""
    stop: tuple[str, ...] = ()
    """Texts at the first of which an answer ends."""

    unit: ClassVar[str] = "0-100"
    higher_is_better: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Refuse options that have no meaning."""
        super().__post_init__()
        require_count("rouge_l: max_new_tokens", self.max_new_tokens)

    def score(self, model: LanguageModel, examples: Sequence[Example]) -> list[Outcome]:
        """Generate one answer per example and compare it with the accepted ones."""
        answers = generate(model, examples, self.max_new_tokens, stop=self.stop)
        values = overlaps(examples, answers)
        return [
            Outcome(example.task, index, value, {"prediction": answer, "references": list(example.answers)})
            for index, (example, answer, value) in enumerate(zip(examples, answers, values, strict=True))
        ]
