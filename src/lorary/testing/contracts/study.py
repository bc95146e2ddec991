"""What every study promises, as a test class to inherit from.

In the tests of a plug-in:

    class TestMyStudy(StudyContract):
        @pytest.fixture
        def study(self):
            return MyStudy(steps=2, limit=2)

Fixtures to give: `study`, whose options make it cheap; `base`; `subject`, what it is run on.
"""

import copy
import dataclasses
from pathlib import Path

from lorary.building.contract import Builder
from lorary.evaluation.scores import read_scores
from lorary.library.layout import MANIFEST
from lorary.library.library import Library
from lorary.model.base.base_model import BaseModel
from lorary.studies.contract import GIVEN, Build, Cell, Measure, Study, Subject
from lorary.studies.cost import foresee
from lorary.studies.run_study import REPORT, Finished, run_study
from lorary.studies.sharing.cpu_time import TIMES
from lorary.testing.contracts.builder import Killed, files_of


class StudyContract:
    """What a study promises. Needs the fixtures `study`, `base` and `subject`."""

    def test_the_plan_lists_what_run_does_once(
        self, study: Study, base: BaseModel, subject: Subject, tmp_path: Path
    ) -> None:
        """It makes the libraries, scores and measures that were foreseen, with their steps and sizes; no others.

        A second call makes nothing, and shows what the first did.
        """
        costs = foresee(study, subject, base, base.name)
        assert not list(tmp_path.iterdir()), "a plan writes nothing"
        done = run_study(study, subject, base, into=tmp_path / "run")
        made = {str(path.relative_to(tmp_path / "run")): path for path in (tmp_path / "run").rglob("*.jsonl")}
        runs = {name: path for name, path in made.items() if "experts" not in path.parts}
        libraries = {path.parent for path in (tmp_path / "run").rglob(MANIFEST)}
        found = {str(path.relative_to(tmp_path / "run")): Library.open(path) for path in libraries}
        measures = {str(path.relative_to(tmp_path / "run")) for path in _measures(tmp_path / "run")}
        assert {cost.path for cost in costs} == {*runs, *found, *measures}
        for cost in costs:
            if cost.path in runs:
                assert len(read_scores(runs[cost.path]).outcomes) == cost.n_examples
            elif cost.path in found:
                jobs = {(e.provenance.data_hash, e.provenance.steps) for e in found[cost.path].values()}
                assert sum(steps or 0 for _, steps in jobs) == cost.steps, cost.path
                assert cost.n_experts in (None, len(found[cost.path]))
        _check_shown(done)
        _check_second(done, study, base, subject, tmp_path / "run")

    def test_without_a_base_the_plan_is_the_same_but_for_tokens(
        self, study: Study, base: BaseModel, subject: Subject
    ) -> None:
        """Where the base isn't at hand tokens are guessed."""
        here, there = (foresee(study, subject, known, base.name) for known in (base, None))
        assert [dataclasses.replace(cost, tokens=0) for cost in here] == [
            dataclasses.replace(cost, tokens=0) for cost in there
        ]
        assert all((a.tokens > 0) == (b.tokens > 0) for a, b in zip(here, there, strict=True))

    def test_kill_and_resume_is_uninterrupted(
        self, study: Study, base: BaseModel, subject: Subject, tmp_path: Path
    ) -> None:
        """Broken off in the middle of its work and run again, it leaves the files, table and verdicts of one run."""
        told: list[str] = []
        whole = run_study(study, subject, base, into=tmp_path / "whole", tell=told.append)
        for moment in (told[len(told) // 3], told[-1]):
            _run_until(moment, study, subject, base, tmp_path / "cut")
        resumed = run_study(study, subject, base, into=tmp_path / "cut")
        assert _made_in(tmp_path / "cut") == _made_in(tmp_path / "whole")
        assert (resumed.tables, resumed.verdicts) == (whole.tables, whole.verdicts)
        assert [str(verdict) for verdict in resumed.verdicts] == [str(verdict) for verdict in whole.verdicts]

    def test_it_is_frozen(self, study: Study) -> None:
        """Equal options are equal objects."""
        again = copy.copy(study)
        assert dataclasses.is_dataclass(study)
        assert (again, hash(again)) == (study, hash(study))
        assert type(study).__dataclass_params__.frozen  # type: ignore[attr-defined]
        assert eval(repr(study), {type(study).__name__: type(study)}) == study

    def test_later_builds_start_from_earlier_ones(self, study: Study, subject: Subject) -> None:
        """A plan is in the order in which it can be done, and no path comes twice."""
        plan, known = study.plan(subject), set[str | None]({None, GIVEN})
        for one in plan.builds:
            assert one.source in known
            assert isinstance(one.builder, Builder) or one.like is not None
            known.add(one.path)
        assert {cell.library for cell in plan.cells} <= known
        taken: set[str] = set()
        for measure in plan.measures:
            assert {*measure.libraries} <= known
            assert {*measure.after} <= taken
            taken.add(measure.path)
        assert {path for one in plan.builds for path in one.after} <= taken
        parts: list[Build | Cell | Measure] = [*plan.builds, *plan.cells, *plan.measures]
        paths = [part.path for part in parts]
        assert len(paths) == len(set(paths))


def _run_until(moment: str, study: Study, subject: Subject, base: BaseModel, into: Path) -> None:
    def tell(what: str) -> None:
        if what == moment:
            raise Killed

    try:
        run_study(study, subject, base, into=into, tell=tell)
    except Killed:
        assert not (into / REPORT).exists()
    else:
        raise AssertionError("the study was too short to be killed")


def _times(into: Path) -> dict[str, int]:
    """When each file was written, the page and the libraries' notes aside."""
    kept = [path for path in into.rglob("*") if path.suffix in (".jsonl", ".safetensors")]
    return {str(path): path.stat().st_mtime_ns for path in [*kept, *_measures(into)]}


def _made_in(into: Path) -> dict[str, str]:
    """Hash all files but the one that says how long things took."""
    return {path: found for path, found in files_of(into).items() if path != TIMES}


def _measures(into: Path) -> list[Path]:
    """List the files of measures: all JSON outside of libraries."""
    libraries = {path.parent for path in into.rglob(MANIFEST)}
    return [path for path in into.rglob("*.json") if libraries.isdisjoint(path.parents)]


def _check_second(done: Finished, study: Study, base: BaseModel, subject: Subject, into: Path) -> None:
    """Run a study that is done: it shows what it showed, and writes no library and no score."""
    before = _times(into)
    told: list[str] = []
    again = run_study(study, subject, base, into=into, tell=told.append)
    assert _times(into) == before
    assert not [line for line in told if line.startswith("made")]
    assert (again.tables, again.verdicts, again.report) == (done.tables, done.verdicts, done.report)


def _check_shown(done: Finished) -> None:
    assert done.tables
    assert all(table.rows for table in done.tables)
    assert all(verdict.claim and (verdict.holds is None or verdict.numbers) for verdict in done.verdicts)
    assert done.report.is_file()
