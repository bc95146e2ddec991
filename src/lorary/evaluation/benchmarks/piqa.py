"""Physical common sense."""

from dataclasses import dataclass
from typing import ClassVar

from lorary.evaluation.benchmarking.fields import filled, index_of, options_of
from lorary.evaluation.benchmarking.question import ChoiceBenchmark, Question
from lorary.tasks.rows.fields import Row


@dataclass(frozen=True)
class PIQA(ChoiceBenchmark):
    """Which of two ways to reach an everyday goal works.

    Rows: `question`, `choices`, `label`; on the Hub `goal`, `sol1`, `sol2`, `label`. Scored on its validation part.
    Source: Bisk et al. 2020 (1911.11641).
    """

    title: ClassVar[str] = "PIQA"
    part: ClassVar[str] = "valid"
    hub: ClassVar[tuple[str, ...]] = ("hf://datasets/baber/piqa:validation",)

    def question(self, row: Row) -> Question:
        """Ask for the goal."""
        on_hub = "goal" in row.values
        goal = filled(row, "goal" if on_hub else "question")
        endings = (filled(row, "sol1"), filled(row, "sol2")) if on_hub else options_of(row, "choices")
        return Question((f"Question: {goal}\nAnswer:",), endings, index_of(row, "label", len(endings)))
