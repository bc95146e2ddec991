import pytest
from lorary_by_size.by_size import BySize
from lorary_by_size.contains import Contains

from lorary.testing.contracts import EvaluatorContract, RouterContract


class TestBySize(RouterContract):
    @pytest.fixture
    def router(self):
        return BySize(power=2.0)


class TestContains(EvaluatorContract):
    @pytest.fixture
    def evaluator(self):
        return Contains()
