"""Pronouns that need common sense."""

from dataclasses import dataclass
from typing import ClassVar

from lorary.evaluation.benchmarking.fields import filled, index_of, options_of
from lorary.evaluation.benchmarking.question import ChoiceBenchmark, Question
from lorary.tasks.rows.fields import Row, row_error


@dataclass(frozen=True)
class WinoGrande(ChoiceBenchmark):
    """Which of two names fits the gap of a sentence, by how likely each makes the rest of it.

    Rows: `contexts` (the sentence up to the gap, with each of the two), `continuation`, `label`; on the Hub `sentence`
    with a gap "_", `option1`, `option2`, `answer` (1 or 2). Scored on its validation part. The rest of the sentence is
    the same for both, so dividing by its length changes nothing.
    Source: Sakaguchi et al. 2020 (1907.10641); scored partially, as Trinh and Le 2018 (1806.02847).
    """

    title: ClassVar[str] = "WG"
    part: ClassVar[str] = "valid"
    places: ClassVar[tuple[str, ...]] = ("winogrande/winogrande_xl", "winogrande_xl")
    hub: ClassVar[tuple[str, ...]] = ("hf://datasets/allenai/winogrande/winogrande_xl:validation",)

    def question(self, row: Row) -> Question:
        """Fill the gap with each name."""
        if "sentence" not in row.values:
            contexts = options_of(row, "contexts")
            return Question(contexts, (filled(row, "continuation"),), index_of(row, "label", len(contexts)))
        before, gap, after = filled(row, "sentence").partition("_")
        if not gap or not after.strip():
            raise row_error(row, "'sentence' has no gap '_' with text after it.", "Fix the row.")
        names = (filled(row, "option1"), filled(row, "option2"))
        right = index_of(row, "answer", 2, first=1)
        return Question(tuple(before + name for name in names), (after.strip(),), right)
