"""What every evaluator promises; a new file in evaluation/evaluators/ is tested without an edit here."""

import pytest

from lorary.errors import EvaluationError
from lorary.evaluation.sandbox.judge import require
from lorary.folder import EVALUATORS
from lorary.tasks.example import Example
from lorary.tasks.task import Task
from lorary.testing.contracts import EvaluatorContract

RUNS_CODE = {"pass_at_k"}


@pytest.mark.parametrize("name", sorted(set(EVALUATORS.names()) - RUNS_CODE))
class TestEvaluator(EvaluatorContract):
    @pytest.fixture
    def evaluator(self, name):
        return EVALUATORS.load(name)()


@pytest.mark.parametrize("name", sorted(RUNS_CODE))
class TestEvaluatorOfCode(EvaluatorContract):
    @pytest.fixture
    def evaluator(self, name):
        try:
            require("bubblewrap")
        except EvaluationError as error:
            pytest.skip(str(error))
        return EVALUATORS.load(name)()

    def task(self, name, n_examples):
        return Task(name, test=tuple(
            Example(f"def f{n}():\n    return ", str(n), name, tests=f"assert f{n}() == {n}") for n in range(n_examples)
        ))  # fmt: skip
