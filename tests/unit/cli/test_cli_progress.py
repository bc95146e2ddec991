"""How far work is, and how long it will take, as it is told."""

import pty
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from io import RawIOBase

import pytest

from lorary.cli.printing.console import Bar, progress
from lorary.cli.printing.pace import Pace, in_time
from lorary.progress import unheard
from lorary.studies.stages import Stages


class Clock:
    """Stands still unless it is turned."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def pace(clock: Clock) -> Pace:
    return Pace(clock)


Run = Callable[..., None]


@pytest.fixture
def go(clock: Clock, pace: Pace) -> Run:
    """Work at a speed for a time, heard of at every tick."""

    def run(speed: float, seconds: float, tick: float = 1.0) -> None:
        pace.record(run.done)
        for _ in range(round(seconds / tick)):
            clock.now += tick
            run.done += speed * tick
            pace.record(run.done)

    run.done = 0.0  # type: ignore[attr-defined]
    return run


@pytest.mark.parametrize("tick", [0.1, 1.0, 20.0])
def test_at_one_speed_the_guess_is_exact_however_often_it_is_heard_of(pace: Pace, go: Run, tick: float) -> None:
    go(2.0, 200, tick)
    assert pace.left_s(100) == pytest.approx(50)


def test_the_guess_follows_a_machine_that_gets_busy_and_one_that_gets_quiet(pace: Pace, go: Run) -> None:
    go(10.0, 600)
    go(1.0, 240)
    assert pace.left_s(1000) == pytest.approx(1000, rel=0.2), "the mean of all would say 135 s"
    go(10.0, 240)
    assert pace.left_s(1000) == pytest.approx(100, rel=0.2)


def test_what_was_done_before_the_first_word_took_no_time(pace: Pace, go: Run) -> None:
    go.done = 5000.0  # type: ignore[attr-defined]
    go(1.0, 10)
    assert pace.left_s(100) == pytest.approx(100)


@pytest.mark.parametrize(
    ("seconds", "speed", "missing", "said"),
    [
        (4, 1, 100, ""),
        (60, 0, 5, ""),
        (60, 1, 0, ""),
        (60, 1, 240, "about 4 min left"),
        (60, 9, 1, "under a minute left"),
    ],
)
def test_the_guess_in_words(pace: Pace, go: Run, seconds: float, speed: float, missing: float, said: str) -> None:
    go(speed, seconds)
    assert pace.left(missing) == said


def test_spans_of_time_are_for_people() -> None:
    assert [in_time(s) for s in (40, 720, 12600)] == ["40 s", "12 min", "3.5 h"]


def test_stages_tell_what_is_left_of_them_to_do() -> None:
    told: list[tuple[str, str]] = []
    bar = Bar(lambda done, total, numbers, note: told.append((numbers, note)), per=1000)
    bar.note("loading")
    stages = Stages(9000, bar, bar.note)
    with stages.stage("training", 6000):
        stages.pass_on(2000)
    assert list(dict.fromkeys(told)) == [
        ("", "loading"), ("", "training"), ("0/9", "training"), ("2/9", "training"), ("2/5", "training"),
    ]  # fmt: skip


def test_a_stage_that_was_foreseen_too_small_makes_the_whole_larger() -> None:
    told: list[tuple[int, int]] = []
    stages = Stages(100, lambda *heard: told.append(heard), unheard)
    with stages.stage("training", 30):
        for amount in (20, 20, 0):
            stages.pass_on(amount)
    assert told == [(0, 100), (20, 100), (40, 110), (40, 110), (40, 110)]


def _on_screen(columns: int, monkeypatch: pytest.MonkeyPatch, work: Callable[[Bar], None]) -> str:
    """Give what a progress bar wrote to a terminal of so many columns."""
    ours, theirs = pty.openpty()
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TERM", "xterm-256color")
    for name in ("FORCE_COLOR", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    with open(theirs, "w", encoding="utf-8") as stream, monkeypatch.context() as patched:
        patched.setattr(sys, "stderr", stream)
        with progress("quickstart") as bar:
            work(bar)
    with open(ours, "rb", buffering=0) as screen:
        written = b"".join(_pieces(screen)).decode()
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", written)


def _pieces(screen: RawIOBase) -> Iterator[bytes]:
    with suppress(OSError):  # as a terminal ends on Linux
        while piece := screen.read(4096):
            yield piece


@pytest.mark.parametrize("columns", [60, 80, 100, 120])
def test_a_bar_shows_title_and_numbers_whole_and_cuts_the_note(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    note = "scoring private-compass: Rouge-L on trained tasks, and \x1b[31mmore"
    shown = _on_screen(columns, monkeypatch, lambda bar: bar(1203, 2077, note)).splitlines()[-1]
    assert re.match(r"quickstart .* 1203/2077: +scoring priv", shown)
    assert len(shown.rstrip()) <= columns


def test_a_bar_whose_total_is_not_known_is_not_full(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = _on_screen(80, monkeypatch, lambda bar: bar.note("loading the base")).splitlines()[-1]
    assert "0/0" not in shown and "loading the base" in shown
