"""Questions with options, and the benchmarks that ask them."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from lorary.evaluation.benchmarking.contract import Benchmark
from lorary.evaluation.benchmarking.few_shot import prefix_of, take_shots
from lorary.evaluation.contract import Evaluator
from lorary.evaluation.evaluators.choice import Choice
from lorary.options import require_count
from lorary.tasks.example import Example
from lorary.tasks.rows.fields import Row

_SEAM = (" ", "\n")


@dataclass(frozen=True)
class Question:
    """Several endings of one prompt, or several prompts with one ending; `right` is the place of the right one."""

    prompts: tuple[str, ...]
    endings: tuple[str, ...]
    right: int

    @property
    def solved(self) -> str:
        """The right prompt with the right ending, as an example in the prompt of others shows it."""
        prompt, ending = (side[self.right if len(side) > 1 else 0] for side in (self.prompts, self.endings))
        return prompt + ending

    def after(self, before: str, task: str) -> Example:
        """Make it an example, which begins with the text `before`."""
        prompts = tuple(before + prompt for prompt in self.prompts)
        if len(prompts) > 1:
            return Example(prompts[self.right], self.endings[0], task, contexts=prompts)
        return Example(prompts[0], self.endings[self.right], task, choices=self.endings)


@dataclass(frozen=True)
class ChoiceBenchmark(Benchmark):
    """A benchmark of questions with options.

    Prompt and option are joined by one blank. The paper's code leaves it out where the option begins with one.
    """

    prompts: Literal["paper", "harness"] = "paper"
    """Whose prompts: those of the paper's code (microsoft/mttl), or those of lm-evaluation-harness."""
    score: Literal["paper", "acc", "acc_norm"] = "paper"
    """How options are scored: as the paper's code does, per token and with the end of sequence, or by one of
    lm-evaluation-harness's metrics, without it: `acc`, the sum, or `acc_norm`, per character."""
    shots: int = 0
    """Solved examples before each question: the first ones to train on, else the first ones of all, which then aren't
    scored."""

    def __post_init__(self) -> None:
        """Refuse options that have no meaning."""
        super().__post_init__()
        require_count(f"{self.name}: shots", self.shots, least=0)

    @abstractmethod
    def question(self, row: Row) -> Question:
        """Read a row, prompts and endings without what joins them. Raises E-DATA."""

    @property
    def evaluator(self) -> Evaluator:
        """Multiple choice by likelihood."""
        if self.score == "paper":
            return Choice()
        return Choice(normalise="none" if self.score == "acc" else "character", open_end=True)

    def examples(self, rows: Sequence[Row], train: Sequence[Row] = ()) -> tuple[Example, ...]:
        """Ask the question of each row, after the solved ones. Raises E-DATA, E-EVAL for too few rows."""
        shown, scored = take_shots(self.name, rows, train, self.shots)
        before = prefix_of([self._joined(row).solved for row in shown])
        return tuple(self._joined(row).after(before, self.name) for row in scored)

    def _joined(self, row: Row) -> Question:
        found = self.question(row)
        if self.prompts == "harness":
            return Question(tuple(prompt + " " for prompt in found.prompts), found.endings, found.right)
        open_ended = not any(prompt.endswith(_SEAM) for prompt in found.prompts)
        # One prompt serves all endings, so a blank that begins an ending is the one that joins.
        endings = tuple(ending.removeprefix(" ") if open_ended else ending for ending in found.endings)
        prompts = tuple(prompt if prompt.endswith(_SEAM) else prompt + " " for prompt in found.prompts)
        return Question(prompts, endings, found.right)
