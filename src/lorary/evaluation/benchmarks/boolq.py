"""Reading comprehension by yes or no."""

from dataclasses import dataclass
from typing import ClassVar

from lorary.evaluation.benchmarking.fields import filled, index_of, options_of
from lorary.evaluation.benchmarking.question import ChoiceBenchmark, Question
from lorary.tasks.rows.fields import Row, row_error

_ENDINGS = ("no", "yes")


@dataclass(frozen=True)
class BoolQ(ChoiceBenchmark):
    """Whether a passage answers a question with yes or with no.

    Rows: `passage`, `question`, `choices` (no, yes), `label`; on the Hub `passage`, `question` and `answer`, true or
    false, or `label`. Scored on its validation part. The prompt ends the question with a question mark; one that a row
    with `choices` brings isn't doubled. Source: Clark et al. 2019 (1905.10044).
    """

    title: ClassVar[str] = "BoolQ"
    part: ClassVar[str] = "valid"
    places: ClassVar[tuple[str, ...]] = ("super_glue/boolq",)
    hub: ClassVar[tuple[str, ...]] = ("hf://datasets/google/boolq:validation",)

    def question(self, row: Row) -> Question:
        """Ask after the passage."""
        passage, asked = filled(row, "passage"), filled(row, "question")
        if "choices" in row.values:
            asked = asked.removesuffix("?")
            if (found := options_of(row, "choices")) != _ENDINGS:
                raise row_error(row, f"'choices' is {list(found)}, expected {list(_ENDINGS)}.", "Order them so.")
        answer = row.values.get("answer")
        right = int(answer) if isinstance(answer, bool) else index_of(row, "label", 2)
        return Question((f"{passage}\nQuestion: {asked}?\nAnswer:",), _ENDINGS, right)
