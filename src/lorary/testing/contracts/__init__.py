"""What every method promises, as test classes to inherit from; one file per point of extension.

In the tests of a plug-in:

    class TestMyRouter(RouterContract):
        @pytest.fixture
        def router(self):
            return MyRouter()

Each file says which fixtures it needs. So that a failed promise shows what was compared, put this in conftest.py:
`pytest.register_assert_rewrite("lorary.testing.contracts")`.
"""

from lorary.testing.contracts.backend import BackendContract as BackendContract
from lorary.testing.contracts.benchmark import BenchmarkContract as BenchmarkContract
from lorary.testing.contracts.builder import BuilderContract as BuilderContract
from lorary.testing.contracts.builder import Killed as Killed
from lorary.testing.contracts.builder import files_of as files_of
from lorary.testing.contracts.clusterer import ClustererContract as ClustererContract
from lorary.testing.contracts.evaluator import EvaluatorContract as EvaluatorContract
from lorary.testing.contracts.router import RouterContract as RouterContract
from lorary.testing.contracts.study import StudyContract as StudyContract
from lorary.testing.contracts.tracker import TrackerContract as TrackerContract
