"""School science, the easier questions."""

from dataclasses import dataclass
from typing import ClassVar

from lorary.evaluation.benchmarking.fields import filled, lettered
from lorary.evaluation.benchmarking.question import ChoiceBenchmark, Question
from lorary.tasks.rows.fields import Row


@dataclass(frozen=True)
class ArcEasy(ChoiceBenchmark):
    """Questions of science tests, those that simple methods answer.

    Rows: `question`, `choices`, `label`; on the Hub `question`, `choices` {text, label}, `answerKey`, a letter or its
    number. Scored on its test part. Source: Clark et al. 2018 (1803.05457).
    """

    title: ClassVar[str] = "ARC-E"
    part: ClassVar[str] = "test"
    places: ClassVar[tuple[str, ...]] = ("ai2_arc/ARC-Easy", "ARC-Easy")
    hub: ClassVar[tuple[str, ...]] = ("hf://datasets/allenai/ai2_arc/ARC-Easy:test",)

    def question(self, row: Row) -> Question:
        """Ask."""
        choices, right = lettered(row)
        return Question((f"Question: {filled(row, 'question')}\nAnswer:",), choices, right)
