"""Hard tasks of BIG-bench, answered outright."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from lorary.evaluation.benchmarking.contract import Benchmark
from lorary.evaluation.benchmarking.few_shot import prefix_of, take_shots
from lorary.evaluation.benchmarking.fields import filled
from lorary.evaluation.contract import Evaluator
from lorary.evaluation.evaluators.exact_match import ExactMatch
from lorary.options import require_count
from lorary.tasks.example import Example
from lorary.tasks.rows.fields import Row

_SUBTASKS = (
    "boolean_expressions", "causal_judgement", "date_understanding", "disambiguation_qa", "dyck_languages",
    "formal_fallacies", "geometric_shapes", "hyperbaton", "logical_deduction_five_objects",
    "logical_deduction_seven_objects", "logical_deduction_three_objects", "movie_recommendation",
    "multistep_arithmetic_two", "navigate", "object_counting", "penguins_in_a_table",
    "reasoning_about_colored_objects", "ruin_names", "salient_translation_error_detection", "snarks",
    "sports_understanding", "temporal_sequences", "tracking_shuffled_objects_five_objects",
    "tracking_shuffled_objects_seven_objects", "tracking_shuffled_objects_three_objects", "web_of_lies", "word_sorting",
)  # fmt: skip
_TEMPLATES = {"paper": "Solve the following problem: {}\nAnswer: ", "harness": "Q: {}\nA: "}
_STOP = {"paper": ("\n\n",), "harness": ("</s>", "Q", "\n\n")}


@dataclass(frozen=True)
class BBH(Benchmark):
    """Tasks that were hard for language models, each shown by a few solved examples and answered without reasoning.

    Rows: `subtask`, `input`, `target`; on the Hub `input`, `target`, and the subtask is the name of the file or
    configuration. The first `shots` rows of each subtask stand solved before each of its others. An answer is right if
    it equals the target but for case, punctuation and blanks ("paper") or to the letter ("harness"). The score is the
    mean over examples, so subtasks weigh by their size.
    Source: Suzgun et al. 2022 (2210.09261); microsoft/mttl, which scores 1,000 examples drawn at random.
    Differs: mttl also scores the examples that it shows (`score_shots`), and shows fewer where the prompt grows too
    long, which here loses its start. lm-evaluation-harness shows three examples of its own after a sentence on the
    subtask.
    """

    prompts: Literal["paper", "harness"] = "paper"
    """Whose prompts, end of answers and comparison: those of the paper's code, or of lm-evaluation-harness."""
    shots: int = 5
    """Solved examples before each question, of its subtask."""
    n_examples: int | None = 1000
    """How many examples are scored, drawn at random from all subtasks; none: all."""
    seed: int = 42
    """Of the draw."""
    score_shots: bool = False
    """Score the solved examples too, as the paper's code does, although their answers stand in the prompt."""
    max_new_tokens: int = 128
    """Longest answer, in tokens."""

    title: ClassVar[str] = "BBH"
    part: ClassVar[str] = ""  # its data sets call it train or test; nobody trains on it
    places: ClassVar[tuple[str, ...]] = ("bigbenchhard",)
    hub: ClassVar[tuple[str, ...]] = tuple(f"hf://datasets/lukaemon/bbh/{subtask}:test" for subtask in _SUBTASKS)

    def __post_init__(self) -> None:
        """Refuse options that have no meaning."""
        super().__post_init__()
        require_count("bbh: shots", self.shots, least=0)
        require_count("bbh: max_new_tokens", self.max_new_tokens)
        if self.n_examples is not None:
            require_count("bbh: n_examples", self.n_examples)

    @property
    def evaluator(self) -> Evaluator:
        """Answers that are right to the letter, or nearly."""
        normalise: Literal["bbh", "none"] = "bbh" if self.prompts == "paper" else "none"
        return ExactMatch(max_new_tokens=self.max_new_tokens, normalise=normalise, stop=_STOP[self.prompts])

    def examples(self, rows: Sequence[Row], train: Sequence[Row] = ()) -> tuple[Example, ...]:
        """Ask each subtask's questions after its first ones. Raises E-DATA, E-EVAL for a subtask of too few rows."""
        by_subtask: dict[str, list[Row]] = {}
        for row in rows:
            by_subtask.setdefault(_subtask(row), []).append(row)
        found = [example for subtask, own in by_subtask.items() for example in self._of_subtask(subtask, own)]
        if self.n_examples is None or len(found) <= self.n_examples:
            return tuple(found)
        kept = sorted(random.Random(self.seed).sample(range(len(found)), self.n_examples))
        return tuple(found[place] for place in kept)

    def _of_subtask(self, subtask: str, rows: Sequence[Row]) -> list[Example]:
        shown, scored = take_shots(f"{self.name}, {subtask}", rows, (), self.shots)
        before = prefix_of([self._prompt(row) + filled(row, "target") for row in shown])
        asked = rows if self.score_shots else scored
        return [Example(before + self._prompt(row), filled(row, "target"), self.name) for row in asked]

    def _prompt(self, row: Row) -> str:
        return _TEMPLATES[self.prompts].format(filled(row, "input"))


def _subtask(row: Row) -> str:
    return filled(row, "subtask") if row.values.get("subtask") is not None else row.task
