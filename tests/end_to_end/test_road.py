"""The whole road on the toy tasks and a random two-layer base: what it leaves, and that it can be cut anywhere."""

import datetime
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from lorary.errors import LoraryError
from lorary.studies.quickstart import choose_tasks, run_quickstart, summarise
from lorary.studies.road import TRAINED, UNSEEN, Road, walk
from lorary.tasks.task import Task, Tasks
from lorary.testing.contracts import files_of
from recipe_files import write_base, write_tasks

ROAD = Road(steps=3, batch_size=4, n_clusters=2, n_score=3, n_answer=2, n_fit=4, max_new_tokens=4)
ROUTERS = ("uniform", "tp", "cm", "arrow", "compass", "oracle")
ROWS = ["base", "shared", *(f"{library}-{router}" for library in ("private", "mbc") for router in ROUTERS)]


class Watcher:
    """Counts what it hears; interrupts the road at a given step of the work."""

    def __init__(self, stop_at=None):
        self.foreseen = self.total = self.done = 0
        self.heard, self.stop_at, self.tables, self.moves = 0, stop_at, [], {}

    @property
    def ears(self):
        return {"progress": self.progress, "tell": self.tell, "show": self.tables.append}

    def tell(self, what):
        self.moves[what] = 0
        self._count()

    def progress(self, done, total):
        self.foreseen = self.foreseen or total
        moved, self.done, self.total = done > self.done, done, total
        assert self.done <= self.total * 1.0001
        if moved:
            self.moves[list(self.moves)[-1]] += 1
            self._count()

    def _count(self):
        self.heard += 1
        if self.heard == self.stop_at:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def parts(toy):
    return Tasks(toy[name] for name in list(toy)[:4]), Tasks([toy[list(toy)[4]]])


@pytest.fixture(scope="module")
def whole(_pico, parts, tmp_path_factory):
    into = tmp_path_factory.mktemp("whole")
    watcher = Watcher()
    return into, walk(ROAD, _pico, *parts, into, **watcher.ears), watcher


@pytest.mark.slow
def test_every_library_is_scored_under_every_router(whole):
    _, walked, watcher = whole
    assert sorted(walked.libraries) == ["mbc", "private", "shared"]
    names = {group: {scores.name for scores in runs} for group, runs in walked.runs.items()}
    assert names[TRAINED] == set(ROWS)
    assert names[UNSEEN] == {name for name in ROWS if not name.endswith("oracle")}
    assert [row.name for row in walked.table.rows] == ROWS
    assert watcher.tables, "the first comparison comes before the end"


def test_the_foreseen_work_is_about_the_work_done(whole):
    _, _, watcher = whole
    assert watcher.done == pytest.approx(watcher.total)
    assert watcher.done == pytest.approx(watcher.foreseen, rel=0.25)


def test_every_stage_in_which_the_base_is_asked_moves_while_it_lasts(whole):
    _, _, watcher = whole
    still = [what for what, n in watcher.moves.items() if n == 0]
    expected = [f"fitting {lib}-{router}" for lib in ("private", "mbc") for router in ("uniform", "oracle")]
    assert sorted(still) == sorted([*expected, "clustering the private experts"])
    generating = {what: n for what, n in watcher.moves.items() if "Rouge-L" in what}
    assert min(generating.values()) > 1, "each token moves it"


def test_the_summary_says_who_won(whole):
    _, walked, _ = whole
    assert any("Best Rouge-L" in line for line in summarise(walked, ROAD))


@pytest.mark.parametrize(
    "share", [0.3, 0.95, *(pytest.param(share, marks=pytest.mark.slow) for share in (0.1, 0.5, 0.7))]
)
def test_a_road_that_was_cut_ends_as_one_that_was_not(whole, base, parts, tmp_path, share):
    into, walked, watcher = whole
    with pytest.raises(KeyboardInterrupt):
        walk(ROAD, base, *parts, tmp_path, **Watcher(stop_at=max(1, int(watcher.heard * share))).ears)
    again = walk(ROAD, base, *parts, tmp_path)
    for library in ("private", "mbc", "shared"):
        experts = Path("libs") / library / "experts"
        assert files_of(tmp_path / experts) == files_of(into / experts)
    for group, runs in walked.runs.items():
        # Not to the bit: numpy's products may round by where an array lies in memory.
        assert [s.mean for s in again.runs[group]] == pytest.approx([s.mean for s in runs], rel=1e-5)


def test_a_second_walk_writes_nothing(whole, base, parts):
    into, _, _ = whole
    before = {path: path.stat().st_mtime_ns for path in into.rglob("*") if path.is_file()}
    watcher = Watcher()
    walk(ROAD, base, *parts, into, **watcher.ears)
    assert watcher.total == watcher.done == 0, "what was done before is no work"
    assert {path: path.stat().st_mtime_ns for path in into.rglob("*") if path.is_file()} == before


def test_too_few_tasks_are_refused(base, parts, tmp_path):
    one = parts[0].only(list(parts[0])[:1])
    with pytest.raises(LoraryError) as caught:
        walk(ROAD, base, one, parts[1], tmp_path)
    assert str(caught.value) == (
        "error[E-ROAD] 1 tasks to build from and 1 held out, expected at least 2 and 1. "
        "Give more tasks, or name other held-outs."
    )


@pytest.mark.slow
def test_the_built_in_tasks_are_held_out_by_default():
    to_train, heldout = choose_tasks(None, (), ())
    assert (len(to_train), len(heldout)) == (12, 4)
    assert not set(to_train) & set(heldout)
    to_train, heldout = choose_tasks(None, ["extract_place"], ["extract_person", "extract_date", "extract_place"])
    assert (list(to_train), list(heldout)) == (["extract_date", "extract_person"], ["extract_place"])


@pytest.mark.slow
def test_without_a_valid_part_there_is_a_report_without_curves(base, toy, tmp_path):
    some = Tasks(Task(name, toy[name].train, test=toy[name].test) for name in list(toy)[:3])
    unseen = list(toy)[2]
    given = {
        "road": replace(ROAD, steps=1), "heldout": [unseen, unseen],
        "base": str(write_base(tmp_path / "base", base)), "tasks": str(write_tasks(tmp_path / "tasks", some)),
    }  # fmt: skip
    done = run_quickstart(into=tmp_path / "out", **given)
    assert done.report.exists()
    assert sorted(p.name for p in (tmp_path / "out" / "pictures").iterdir()) == [
        "scores.png", "similarity.png", "tree.png"
    ]  # fmt: skip


AGAIN = """
import sys, time
from pathlib import Path
into, base, tasks, unseen, days = sys.argv[1:]
now = time.time
time.time = lambda: now() + 24 * 3600 * int(days)
from lorary.adapters.mixing import tuning
tuning._WORTH_MEASURING = 0
from lorary.studies.quickstart import run_quickstart
from lorary.studies.road import Road

road = Road(steps=2, batch_size=4, n_clusters=2, n_score=2, n_answer=1, n_fit=2, max_new_tokens=2)
run_quickstart(into=Path(into), road=road, heldout=[unseen], base=base, tasks=tasks)
"""


@pytest.mark.slow
def test_two_quickstarts_give_the_same_bytes(base, toy, tmp_path):
    """Pictures and report included, whatever the day, the order of sets, the place, and what is in lorary's cache."""
    some = Tasks(toy[name] for name in list(toy)[:4])
    given = [write_base(tmp_path / "base", base), write_tasks(tmp_path / "tasks", some), list(toy)[3]]
    running = [
        subprocess.Popen(
            [sys.executable, "-c", AGAIN, *map(str, (tmp_path / name, *given, days))],
            env={**os.environ, "PYTHONHASHSEED": seed, "LORARY_CACHE": str(tmp_path / f"cache {name}"), "TZ": zone},
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )
        for name, seed, zone, days in (("first", "1", "UTC", 0), ("second", "2", "Pacific/Kiritimati", 40))
    ]  # fmt: skip
    for process in running:
        _, said = process.communicate(timeout=300)
        assert process.returncode == 0, said.decode()[-3000:]
    first, second = (files_of(tmp_path / name) for name in ("first", "second"))
    assert [name for name in first if first[name] != second.get(name)] == [] and first.keys() == second.keys()
    assert {"report.html", "pictures/scores.png", "libs/mbc/library.json"} <= first.keys()
    assert not list(tmp_path.glob("cache */strategies*")), "what is timed once is otherwise the next time"
    today = f"{datetime.datetime.now(datetime.UTC):%Y-%m-}".encode()
    dated = [path for path in (tmp_path / "first").rglob("*") if path.is_file() and today in path.read_bytes()]
    assert dated == [], "a date is another one tomorrow"
