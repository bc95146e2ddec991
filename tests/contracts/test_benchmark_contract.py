"""What every benchmark promises; a new file in evaluation/benchmarks/ needs its rows in tests/benchmark_rows.py."""

import pytest

from benchmark_rows import HUB, OURS
from lorary.folder import BENCHMARKS
from lorary.testing.contracts.benchmark import BenchmarkContract


@pytest.mark.parametrize("name", BENCHMARKS.names())
class TestBenchmark(BenchmarkContract):
    @pytest.fixture
    def benchmark(self, name):
        return BENCHMARKS.load(name)()

    @pytest.fixture
    def shapes(self, name):
        return [OURS[name], HUB[name]]
