"""What happens next."""

import re
from dataclasses import dataclass
from typing import ClassVar

from lorary.errors import TaskError
from lorary.evaluation.benchmarking.fields import filled, index_of, options_of
from lorary.evaluation.benchmarking.question import ChoiceBenchmark, Question
from lorary.tasks.rows.fields import Row, optional_text, row_error

_BRACKETS = re.compile(r"\[.*?\]")


@dataclass(frozen=True)
class HellaSwag(ChoiceBenchmark):
    """Which of four endings goes on with a scene.

    Rows: `context`, `choices`, `label`; on the Hub `activity_label`, `ctx_a`, `ctx_b`, `endings`, `label`. Scored on
    its validation part. Texts are cleaned of what WikiHow left in them: " [title]" becomes a full stop, other brackets
    go, and so does the second of two blanks. The paper's code cleans activity and context apart, and so leaves two
    blanks between them where the context begins with a bracket; lm-evaluation-harness cleans them as one text. A
    `context` doesn't say where its second part begins, which both write with a capital: it is taken as it is.
    Source: Zellers et al. 2019 (1905.07830).
    """

    title: ClassVar[str] = "HSwag"
    part: ClassVar[str] = "valid"
    hub: ClassVar[tuple[str, ...]] = ("hf://datasets/Rowan/hellaswag:validation",)

    def question(self, row: Row) -> Question:
        """Give the scene."""
        own = "endings" not in row.values
        endings = tuple(map(_cleaned, options_of(row, "choices" if own else "endings")))
        prompt = _cleaned(filled(row, "context")) if own else self._scene(row)
        if not prompt or not all(endings):
            raise _nothing_left(row)
        return Question((prompt,), endings, index_of(row, "label", len(endings)))

    def _scene(self, row: Row) -> str:
        activity = filled(row, "activity_label")
        context = f"{optional_text(row, 'ctx_a')} {optional_text(row, 'ctx_b').capitalize()}"
        if self.prompts == "harness":
            return _cleaned(f"{activity}: {context}")
        return f"{_cleaned(activity)}: {_cleaned(context)}"


def _cleaned(text: str) -> str:
    without = _BRACKETS.sub("", text.strip().replace(" [title]", ". "))
    return without.replace("  ", " ")


def _nothing_left(row: Row) -> TaskError:
    return row_error(row, "a text is empty once what stands in brackets is taken out.", "Leave the row out.")
