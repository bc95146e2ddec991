"""What every benchmark promises, as a test class to inherit from.

In the tests of a plug-in:

    class TestMyBenchmark(BenchmarkContract):
        @pytest.fixture
        def benchmark(self):
            return MyBenchmark()

        @pytest.fixture
        def shapes(self):
            return [[{"question": ..., "label": 0}, ...], [...]]

Fixtures to give: `benchmark`, and `shapes`: rows that say the same in each of the shapes that it reads.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from lorary.errors import LoraryError
from lorary.evaluation.benchmarking.contract import Benchmark
from lorary.evaluation.contract import Evaluator
from lorary.options import name_of
from lorary.tasks.rows.fields import Row
from lorary.testing.contracts.options import OptionsContract, error_of

Values = Mapping[str, Any]
_NONSENSE: tuple[Any, ...] = (
    None,
    "",
    " ",
    "?",
    -1,
    7,
    True,
    0.5,
    [],
    [1, 2],
    ["a"],
    {},
    {"text": ["a", "b"]},
    "\ud83d",
)


def _rows(values: Sequence[Values]) -> list[Row]:
    return [Row(row, f"rows.jsonl:{number}", "sums", None) for number, row in enumerate(values, start=1)]


def _is_read_or_refused(benchmark: Benchmark, broken: Sequence[Values]) -> bool:
    try:
        return bool(benchmark.examples(_rows(broken)))
    except LoraryError as error:
        return f"rows.jsonl:{len(broken)}" in str(error)


class BenchmarkContract(OptionsContract):
    """What a benchmark promises. Needs the fixtures `benchmark` and `shapes`."""

    def test_every_shape_gives_the_same_examples(
        self, benchmark: Benchmark, shapes: Sequence[Sequence[Values]]
    ) -> None:
        """How a row is written decides nothing, and the same rows always give the same examples."""
        first, *others = [benchmark.examples(_rows(values)) for values in shapes]
        assert first
        assert {example.task for example in first} == {benchmark.name}
        assert all(other == first for other in others)
        assert benchmark.examples(_rows(shapes[0])) == first

    def test_its_metric_is_one(self, benchmark: Benchmark) -> None:
        """It has a metric whose values can be averaged with other benchmarks'."""
        evaluator = benchmark.evaluator
        assert isinstance(evaluator, Evaluator)
        assert (evaluator.unit, evaluator.higher_is_better) == ("0-100", True)

    def test_what_is_no_row_is_refused_with_its_place(self, benchmark: Benchmark) -> None:
        """A row that lacks everything is an error that says where it stands."""
        error = error_of(lambda: benchmark.examples(_rows([{"nothing": "of it"}] * 10)))
        assert error.code == "E-DATA"
        assert "rows.jsonl:1" in str(error)

    def test_nonsense_in_a_row_is_refused_or_read(
        self, benchmark: Benchmark, shapes: Sequence[Sequence[Values]]
    ) -> None:
        """No value of a field ends in anything but examples, or an error with the row's place."""
        for values in shapes:
            for key in values[-1]:
                for nonsense in _NONSENSE:
                    broken = [*values[:-1], {**values[-1], key: nonsense}]
                    assert _is_read_or_refused(benchmark, broken), (key, nonsense)

    def test_it_is_frozen_and_named(self, benchmark: Benchmark) -> None:
        """Equal options are equal objects; it says what it is called, what is scored, and where its data is."""
        self.check_options(benchmark)
        assert benchmark.name == name_of(benchmark)
        assert benchmark.title
        assert benchmark.part in ("valid", "test", "")
        assert benchmark.hub
        assert all(name.startswith("hf://datasets/") for name in benchmark.hub)
