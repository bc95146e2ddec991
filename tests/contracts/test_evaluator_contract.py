"""What every evaluator promises; a new file in evaluation/evaluators/ is tested without an edit here."""

import dataclasses
from collections.abc import Sequence

import pytest

from lorary.errors import EvaluationError
from lorary.evaluation.contract import Evaluator, LogLikelihood, Place
from lorary.evaluation.run import evaluate
from lorary.folder import EVALUATORS
from lorary.tasks.example import Example
from lorary.tasks.task import Task, Tasks

QUESTIONS = [
    ("Is water wet?", "yes", "no"),
    ("Is fire cold?", "no", "yes"),
    ("Two and two?", "four and no more", "five"),
    ("Name a poet.", "Emily Dickinson", "a stone"),
]


class Knowing:
    """A fake model that answers every question right, or every question wrong."""

    def __init__(self, *, right: bool) -> None:
        self.right = right
        self.identity = {"base": "fake", "right": right}

    def log_likelihood(self, examples: Sequence[Example]) -> list[LogLikelihood]:
        found = []
        for example in examples:
            n_tokens = len(example.completion.split()) + 1
            likely = (example.completion in answers_of(example.prompt)) == self.right
            found.append(LogLikelihood(n_tokens * (-0.01 if likely else -5.0), n_tokens))
        return found

    def generate_text(self, examples: Sequence[Example], *, max_new_tokens: int) -> list[str]:
        return [example.completion if self.right else "zzz" for example in examples]


def answers_of(prompt: str) -> list[str]:
    return [right for question, right, _ in QUESTIONS if question == prompt]


def make_task(name: str, *, n_examples: int) -> Task:
    chosen = QUESTIONS[:n_examples]
    return Task(name, test=tuple(Example(q, right, name, choices=(wrong, right)) for q, right, wrong in chosen))


@pytest.fixture(params=EVALUATORS.names())
def evaluator(request: pytest.FixtureRequest) -> Evaluator:
    return EVALUATORS.load(request.param)()


def test_perfect_answers_score_best(evaluator):
    tasks = Tasks([make_task("quiz", n_examples=4)])
    good = evaluate(evaluator, Knowing(right=True), tasks).mean
    bad = evaluate(evaluator, Knowing(right=False), tasks).mean
    assert good > bad if evaluator.higher_is_better else good < bad
    if evaluator.unit == "0-100":
        assert (good, bad) == pytest.approx((100.0, 0.0))


def test_an_empty_task_raises(evaluator):
    with pytest.raises(EvaluationError, match=r"error\[E-EVAL\] task 'empty' has no test examples\."):
        evaluator.evaluate(Knowing(right=True), Task("empty"))


def test_the_order_of_examples_changes_nothing(evaluator):
    task = make_task("quiz", n_examples=4)
    forward = evaluator.evaluate(Knowing(right=True), task)
    backward = evaluator.evaluate(Knowing(right=True), Task("quiz", test=task.test[::-1]))
    assert [o.value for o in forward] == [o.value for o in backward[::-1]]
    assert [o.index for o in backward] == [0, 1, 2, 3]


def test_a_part_scores_as_it_does_in_the_whole(evaluator):
    task = make_task("quiz", n_examples=4)
    whole = evaluator.evaluate(Knowing(right=True), task)
    places = [Place(task.name, i, task.test[i]) for i in (1, 2)]
    assert evaluator.score_places(Knowing(right=True), places) == whole[1:3]


def test_outcomes_add_up_to_the_score(evaluator):
    tasks = Tasks([make_task("large", n_examples=4), make_task("small", n_examples=1)])
    scores = evaluate(evaluator, Knowing(right=True), tasks)
    large = [o.value for o in scores.outcomes if o.task == "large"]
    small = [o.value for o in scores.outcomes if o.task == "small"]
    assert (len(large), len(small)) == (4, 1)
    assert scores.per_task() == pytest.approx({"large": sum(large) / 4, "small": small[0]})
    assert scores.mean == pytest.approx((sum(large) / 4 + small[0]) / 2)


def test_no_examples_give_no_outcomes(evaluator):
    assert evaluator.score(Knowing(right=True), []) == []


def test_it_is_frozen_options(evaluator):
    assert dataclasses.is_dataclass(evaluator)
    assert evaluator == type(evaluator)()
    assert hash(evaluator) == hash(type(evaluator)())
    with pytest.raises(dataclasses.FrozenInstanceError):
        evaluator.unit = "apples"


def test_its_repr_is_code(evaluator):
    assert eval(repr(evaluator), {type(evaluator).__name__: type(evaluator)}) == evaluator


@pytest.mark.parametrize("name", EVALUATORS.names())
def test_its_first_line_says_what_it_does(name):
    sentence = EVALUATORS.sentence(name)
    assert 20 < len(sentence) < 120
    assert sentence.endswith((".", ":"))
