"""Science facts to be put to use."""

from dataclasses import dataclass
from typing import ClassVar

from lorary.evaluation.benchmarking.fields import filled, lettered
from lorary.evaluation.benchmarking.question import ChoiceBenchmark, Question
from lorary.tasks.rows.fields import Row


@dataclass(frozen=True)
class OpenBookQA(ChoiceBenchmark):
    """Questions that take a fact of science and a step of thought; without the book of facts.

    Rows: `question`, `choices`, `label`; on the Hub `question_stem`, `choices` {text, label}, `answerKey`. Scored on
    its test part. The prompt is the bare question. Source: Mihaylov et al. 2018 (1809.02789).
    """

    title: ClassVar[str] = "OQA"
    part: ClassVar[str] = "test"
    places: ClassVar[tuple[str, ...]] = ("openbookqa/main",)
    hub: ClassVar[tuple[str, ...]] = ("hf://datasets/allenai/openbookqa/main:test",)

    def question(self, row: Row) -> Question:
        """Ask."""
        choices, right = lettered(row)
        asked = filled(row, "question_stem" if "question_stem" in row.values else "question")
        return Question((asked,), choices, right)
