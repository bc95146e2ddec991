"""Functions to complete."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from lorary.evaluation.benchmarking.code import CodeBenchmark
from lorary.evaluation.benchmarking.fields import filled
from lorary.evaluation.evaluators.pass_at_k import PassAtK
from lorary.tasks.example import Example, short
from lorary.tasks.rows.fields import Row, row_error


@dataclass(frozen=True)
class HumanEval(CodeBenchmark):
    """Python functions, completed from their header and description, and run against tests in a sandbox.

    Rows: `prompt`, `canonical_solution`, `entry_point`, `test`, as on the Hub. A completion is sampled at temperature
    0.05 and ends at an empty line or the next function ("paper"), or is greedy, longer, and ends at the next statement
    without indent ("harness").
    Source: Chen et al. 2021 (2107.03374); microsoft/mttl.
    Differs: see `pass_at_k` for how programs run. lm-evaluation-harness itself runs them without a sandbox.
    """

    title: ClassVar[str] = "HumanEval"
    part: ClassVar[str] = "test"
    places: ClassVar[tuple[str, ...]] = ("openai_humaneval",)
    hub: ClassVar[tuple[str, ...]] = ("hf://datasets/openai/openai_humaneval:test",)
    harness: ClassVar[PassAtK] = PassAtK(
        answer="rest", max_new_tokens=1024, stop=("\nclass", "\ndef", "\n#", "\nif", "\nprint")
    )

    def examples(self, rows: Sequence[Row], train: Sequence[Row] = ()) -> tuple[Example, ...]:
        """Ask for the rest of each function. Raises E-DATA."""
        return tuple(map(self._example, rows))

    def _example(self, row: Row) -> Example:
        prompt, name = filled(row, "prompt"), filled(row, "entry_point").strip()
        if not name.isidentifier():
            raise row_error(row, f"'entry_point' is {short(name)}, expected a function's name.", "Fix the row.")
        tests = f"{filled(row, 'test')}\ncheck({name})\n"
        shown = prompt.lstrip() if self.prompts == "paper" else prompt
        return Example(shown, filled(row, "canonical_solution"), self.name, tests=tests)
