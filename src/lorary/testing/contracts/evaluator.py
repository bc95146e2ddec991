"""What every evaluator promises: a test class to inherit from, with the fixture `evaluator`."""

import dataclasses
import math
from collections.abc import Sequence

from lorary.evaluation.contract import Evaluator, LogLikelihood, Place
from lorary.evaluation.evaluate import evaluate
from lorary.evaluation.sampling import Sampling
from lorary.tasks.example import Example
from lorary.tasks.task import Task, Tasks
from lorary.testing.contracts.options import OptionsContract, error_of

QUESTIONS = (
    ("Is water wet?", "yes", "no"),
    ("Is fire cold?", "no", "yes"),
    ("Two and two?", "four and no more", "five"),
    ("Name a poet.", "Emily Dickinson", "a stone"),
)
"""A prompt, the right answer and a wrong one."""


class Knowing:
    """A model that answers every question right, or every question wrong."""

    def __init__(self, *, right: bool, answers: Sequence[str]) -> None:
        self.right, self.answers = right, frozenset(answers)
        self.identity = {"base": "fake", "right": right}

    def log_likelihood(self, examples: Sequence[Example], *, open_end: bool = False) -> list[LogLikelihood]:
        """Find the right answers likely, or the wrong ones."""
        found = []
        for example in examples:
            n_tokens = len(example.completion.split()) + (not open_end)
            likely = (example.completion in self._right(example.prompt)) == self.right
            found.append(LogLikelihood(n_tokens * (-0.01 if likely else -5.0), n_tokens))
        return found

    def generate_text(
        self, examples: Sequence[Example], *, max_new_tokens: int, stop: Sequence[str] = (),
        sampling: Sequence[Sampling] = (), strip: bool = True,
    ) -> list[str]:  # fmt: skip
        """Give the examples' completions, or nonsense."""
        return [example.completion if self.right else "zzz" for example in examples]

    def _right(self, prompt: str) -> list[str]:
        return [right for question, right, _ in QUESTIONS if question == prompt and right in self.answers]


class EvaluatorContract(OptionsContract):
    """What an evaluator promises. Needs the fixture `evaluator`, with default options.

    `task` may be overridden by metrics that need other data; its first examples must be of four different prompts.
    """

    def task(self, name: str, n_examples: int) -> Task:
        """Make a task whose test part has so many examples, each with its choices."""
        chosen = QUESTIONS[:n_examples]
        return Task(name, test=tuple(Example(q, right, name, choices=(wrong, right)) for q, right, wrong in chosen))

    @staticmethod
    def model(task: Task, *, right: bool = True) -> Knowing:
        """Make a model that answers the examples of a task all right, or all wrong."""
        return Knowing(right=right, answers=[example.completion for example in task.test])

    def test_perfect_answers_score_best(self, evaluator: Evaluator) -> None:
        """A model that is always right scores better than one that is always wrong; on 0-100, 100 and 0."""
        quiz = self.task("quiz", 4)
        good, bad = (evaluate(evaluator, self.model(quiz, right=r), Tasks([quiz])).mean for r in (True, False))
        assert good > bad if evaluator.higher_is_better else good < bad
        if evaluator.unit == "0-100":
            assert math.isclose(good, 100.0)
            assert math.isclose(bad, 0.0, abs_tol=1e-9)

    def test_an_empty_task_raises(self, evaluator: Evaluator) -> None:
        """There is no mean over nothing."""
        error = error_of(lambda: evaluator.evaluate(self.model(Task("empty")), Task("empty")))
        assert str(error).startswith("error[E-EVAL] task 'empty' has no test examples.")

    def test_the_order_of_examples_changes_nothing(self, evaluator: Evaluator) -> None:
        """Each example has the value it has anywhere else, and the index of its place."""
        task = self.task("quiz", 4)
        forward = evaluator.evaluate(self.model(task), task)
        backward = evaluator.evaluate(self.model(task), Task("quiz", test=task.test[::-1]))
        assert [o.value for o in forward] == [o.value for o in backward[::-1]]
        assert [o.index for o in backward] == [0, 1, 2, 3]

    def test_a_part_scores_as_it_does_in_the_whole(self, evaluator: Evaluator) -> None:
        """So a run can resume anywhere."""
        task = self.task("quiz", 4)
        whole = evaluator.evaluate(self.model(task), task)
        places = [Place(task.name, i, task.test[i]) for i in (1, 2)]
        assert evaluator.score_places(self.model(task), places) == whole[1:3]

    def test_outcomes_add_up_to_the_score(self, evaluator: Evaluator) -> None:
        """A task's score is the mean over its examples, the score the mean over tasks."""
        tasks = Tasks([self.task("large", 4), self.task("small", 1)])
        scores = evaluate(evaluator, self.model(tasks["large"]), tasks)
        large, small = ([o.value for o in scores.outcomes if o.task == name] for name in ("large", "small"))
        assert (len(large), len(small)) == (4, 1)
        means = {"large": sum(large) / 4, "small": small[0]}
        found = scores.per_task()
        assert found.keys() == means.keys()
        assert all(math.isclose(found[name], mean, rel_tol=1e-6) for name, mean in means.items())
        assert math.isclose(scores.mean, sum(means.values()) / 2, rel_tol=1e-6)

    def test_no_examples_give_no_outcomes(self, evaluator: Evaluator) -> None:
        """Nothing in, nothing out."""
        assert evaluator.score(self.model(Task("none")), []) == []

    def test_it_is_frozen(self, evaluator: Evaluator) -> None:
        """Equal options are equal objects, and unit and direction belong to the class."""
        self.check_options(evaluator)
        assert evaluator == type(evaluator)()
        try:
            evaluator.unit = "apples"  # type: ignore[misc]
        except dataclasses.FrozenInstanceError:
            pass
        else:
            raise AssertionError("its unit could be changed")

    def test_its_repr_is_code(self, evaluator: Evaluator) -> None:
        """The repr can be pasted back."""
        assert eval(repr(evaluator), {type(evaluator).__name__: type(evaluator)}) == evaluator

    def test_its_first_line_says_what_it_does(self, evaluator: Evaluator) -> None:
        """It stands in lists of metrics."""
        sentence = (type(evaluator).__doc__ or "").partition("\n")[0]
        assert 20 < len(sentence) < 120
        assert sentence.endswith((".", ":"))
