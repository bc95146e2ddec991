"""What every evaluator promises; a new file in evaluation/evaluators/ is tested without an edit here."""

import pytest

from lorary.folder import EVALUATORS
from lorary.testing.contracts import EvaluatorContract


@pytest.mark.parametrize("name", EVALUATORS.names())
class TestEvaluator(EvaluatorContract):
    @pytest.fixture
    def evaluator(self, name):
        return EVALUATORS.load(name)()
