"""What a study measures itself, as files beside the libraries and scores."""

import json
from dataclasses import dataclass, field, replace

import pytest

from lorary.errors import EvaluationError
from lorary.reporting.canvas import Picture
from lorary.reporting.table import Cell as TableCell
from lorary.reporting.table import Column, Row, Table
from lorary.studies.contract import GIVEN, Bench, Measure, Plan, Study, Subject, Verdict
from lorary.studies.cost import Cost, foresee
from lorary.studies.kept import kept
from lorary.studies.run_study import run_study
from lorary.testing.pico import random_library


@dataclass(frozen=True)
class Share:
    """What the measures of these tests find."""

    name: str
    values: tuple[float, ...]

    def __post_init__(self):
        if any(value > 1 for value in self.values):
            raise ValueError("a share is at most 1")


@dataclass
class Counting:
    """Finds a share, and counts how often it is asked."""

    values: tuple = (0.1, 1 / 3)
    n_calls: int = 0

    def __call__(self, bench):
        self.n_calls += 1
        return Share("one", self.values)


@pytest.fixture
def bench(base, tmp_path):
    return Bench(base, {"libs/own": random_library(tmp_path / "own", base, ["copy"], ranks=2)})


@pytest.fixture
def measure(toy):
    return Measure("measures/share.json", Counting(), Share, ["libs/own"], toy.only(["copy"]), options={"n": (2, 3)})


def test_it_is_made_once_and_is_the_same_when_read(measure, bench, tmp_path):
    first, second = kept(measure, bench, tmp_path), kept(measure, bench, tmp_path)
    assert first == second == Share("one", (0.1, 1 / 3))
    assert measure.compute.n_calls == 1
    assert [path.name for path in (tmp_path / "measures").iterdir()] == ["share.json"]


@pytest.mark.parametrize("what", ["options", "libraries", "tasks", "after"])
def test_a_file_that_was_made_from_something_else_is_refused(what, measure, bench, toy, base, tmp_path):
    measure = replace(measure, after=["measures/before.json"])
    bench = replace(bench, measured={"measures/before.json": Share("before", ())})
    kept(measure, bench, tmp_path)
    if what == "options":
        measure = replace(measure, options={"n": (2, 4)})
    elif what == "tasks":
        measure = replace(measure, tasks=toy.only(["swap"]))
    elif what == "after":
        bench = replace(bench, measured={"measures/before.json": Share("before", (1.0,))})
    else:
        other = random_library(tmp_path / "other", base, ["swap"], ranks=2)
        bench = replace(bench, libraries={"libs/own": other})
    with pytest.raises(EvaluationError) as caught:
        kept(measure, bench, tmp_path)
    path = tmp_path / "measures" / "share.json"
    assert str(caught.value) == (
        f"error[E-RUN] {path}: holds another measure: other {what}. "
        "Write to another directory, or delete this file to measure anew."
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda found: {**found, "values": ["1"]}, "json: found.values.0: Input should be a valid number."),
        (lambda found: {**found, "values": [2]}, "json: found: a share is at most 1."),
        (lambda found: {"name": "one"}, "json: found.values: Field required."),
    ],
)
def test_a_file_that_holds_something_else_is_refused(change, message, measure, bench, tmp_path):
    kept(measure, bench, tmp_path)
    path = tmp_path / "measures" / "share.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "found": change(content["found"])}))
    with pytest.raises(EvaluationError) as caught:
        kept(measure, bench, tmp_path)
    assert message in str(caught.value)
    assert str(caught.value).endswith("Delete it; run again.")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 1}', '{"format": 2, "origin": {}, "found": {}}'])
def test_a_file_that_is_none_of_a_measure_is_refused(text, measure, bench, tmp_path):
    (tmp_path / "measures").mkdir()
    (tmp_path / "measures" / "share.json").write_text(text)
    with pytest.raises(EvaluationError) as caught:
        kept(measure, bench, tmp_path)
    assert caught.value.code == "E-RUN"


def test_a_directory_in_its_place_is_refused(measure, bench, tmp_path):
    (tmp_path / "measures" / "share.json").mkdir(parents=True)
    with pytest.raises(EvaluationError) as caught:
        kept(measure, bench, tmp_path)
    assert caught.value.code == "E-RUN"


def test_what_is_no_number_is_not_kept(measure, bench, tmp_path):
    with pytest.raises(EvaluationError) as caught:
        kept(replace(measure, compute=Counting((float("nan"),))), bench, tmp_path)
    assert caught.value.code == "E-EVAL"
    assert not (tmp_path / "measures").exists()


@dataclass(frozen=True)
class Counted(Study):
    """A study without a build or a score: two measures, the second of which starts from the first."""

    counting: Counting = field(default_factory=Counting)
    seed: int = 42

    def plan(self, subject):
        def double(bench):
            return Share("two", tuple(value / 2 for value in bench.measured["measures/one.json"].values))

        two = Measure("measures/two.json", double, Share, after=["measures/one.json"])
        examples = subject.tasks["copy"].test[:2]
        one = Measure("measures/one.json", self.counting, Share, [GIVEN], examples=examples, steps=3, passes=2.5)
        return Plan(measures=[one, two])

    def judge(self, results):
        found = results.found("measures/two.json")
        return [Verdict("It is small", all(share.values[0] < 0.1 for share in found), f"{len(found)} seeds.")]

    def tables(self, results, title):
        column = Column("all", "share", "share", "0-1", True, 1, 2)
        return [Table((column,), (Row("two", (TableCell(0.05, 0, 1),)),), title)]

    def figures(self, results):
        return [Picture("share", "Share", "How much.", "Share.", b"", b"<svg/>")]


def test_measures_reach_verdicts_tables_and_figures(base, toy, tmp_path):
    subject = Subject(toy, toy.only([]), random_library(tmp_path / "lib", base, ["copy"]))
    counting = Counting()
    done = run_study(Counted(counting), subject, base, into=tmp_path / "run", seeds=(1, 2))
    assert counting.n_calls == 2
    assert [str(verdict) for verdict in done.verdicts] == ["It is small: true here. 2 seeds."]
    assert "<h3>Share</h3>" in done.report.read_text()
    again = run_study(Counted(counting), subject, base, into=tmp_path / "run", seeds=(1, 2))
    assert (counting.n_calls, again.tables) == (2, done.tables)


def test_measures_are_foreseen(base, toy):
    one, two = foresee(Counted(), Subject(toy, toy.only([])), base, "pico")
    tokens = sum(map(len, base.encode(toy["copy"].test[:2])))
    assert one == Cost("seed42/measures/one.json", None, 2, 3, round(2.5 * tokens))
    assert two == Cost("seed42/measures/two.json", None, None, 0, 0)
