"""Who owns a pack: one of many, until it leaves, dies or falls silent."""

import json
import math
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from lorary.disk.processes import began, is_running
from lorary.errors import BuildError
from lorary.work import claims
from lorary.work.claims import Claim, LeaseLostError, Watch, claim, newest, read_lease


@pytest.fixture
def pack(tmp_path):
    return tmp_path / "pack"


@pytest.fixture
def elsewhere(monkeypatch):
    """Claims made by this function come from a host whose processes can't be seen from here."""

    def claim_there(pack, watch=None, **options):
        with monkeypatch.context() as patch:
            patch.setattr(claims, "place", lambda: "another host")
            patch.setattr(claims, "is_running", lambda pid, start: True)
            return claim(pack, watch or Watch(), **options)

    return claim_there


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


class Stopped:
    """A time module whose monotonic clock is moved by hand."""

    def __init__(self, clock):
        self.monotonic, self.time = clock, time.time


def taken(pack, **options) -> Claim:
    mine = claim(pack, Watch(), **options)
    assert mine is not None
    return mine


# ---- one owner ----------------------------------------------------------------------------------


def test_a_pack_has_one_owner(pack):
    mine = taken(pack)
    assert mine.directory == pack / "1"
    assert claim(pack, Watch()) is None
    lease = read_lease(pack)
    assert (lease.pid, lease.beat, lease.tries, lease.is_free, lease.is_dead) == (os.getpid(), 0, 1, False, False)
    assert lease.owner.endswith(f":{os.getpid()}")


def test_another_process_with_its_number_is_no_sign_of_life(pack):
    if not began():
        pytest.skip("this system doesn't say when a process started")
    mine = taken(pack)
    assert mine.lease.start == began() and not read_lease(pack).is_dead
    lease = json.loads((mine.directory / "lease.json").read_text())
    (mine.directory / "lease.json").write_text(json.dumps({**lease, "start": began() - 1}))  # who had our number before
    assert read_lease(pack).is_dead
    assert taken(pack).directory == pack / "2"


def test_a_lease_that_does_not_say_when_its_process_started_is_believed(pack):
    """As an older lorary wrote it."""
    mine = taken(pack)
    lease = json.loads((mine.directory / "lease.json").read_text())
    del lease["start"]
    (mine.directory / "lease.json").write_text(json.dumps(lease))
    assert not read_lease(pack).is_dead
    assert claim(pack, Watch()) is None


def test_what_an_owner_leaves_the_next_goes_on_with(pack):
    with taken(pack).held() as mine:
        mine.reached(7)
        (mine.directory / "checkpoint").write_text("step 5")
        (mine.directory / "deep").mkdir()
        (mine.directory / "deep" / "file").write_text("x")
        (mine.directory / "checkpoint.tmp").write_text("half of st")
    again = taken(pack)
    assert again.directory == pack / "2"
    assert sorted(str(p.relative_to(pack)) for p in pack.rglob("*") if p.is_file()) == [
        "2/checkpoint", "2/deep/file", "2/lease.json",
    ]  # fmt: skip
    assert (again.directory / "checkpoint").read_text() == "step 5"
    assert (again.lease.step, again.lease.first_step) == (7, 7)


def wait_until(happened):
    deadline = time.monotonic() + 120
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_an_owner_whose_work_hangs_falls_silent_until_it_moves(pack, monkeypatch):
    clock, hung = Clock(), []
    monkeypatch.setattr(claims, "time", Stopped(clock))
    with taken(pack, lease_s=0.04).held(30, lambda: hung.append(read_lease(pack).beat)) as mine:
        wait_until(lambda: read_lease(pack).beat > 2)
        clock.now += 31
        wait_until(lambda: len(hung) > 5)
        assert hung[1] == hung[-1], "no beat since"
        mine.reached(8)
        wait_until(lambda: read_lease(pack).step == 8)
    assert read_lease(pack).is_free


def test_work_without_steps_may_take_any_time(pack, monkeypatch):
    clock = Clock()
    monkeypatch.setattr(claims, "time", Stopped(clock))
    with taken(pack, lease_s=0.04).held(None):
        clock.now += 1e9
        before = read_lease(pack).beat
        wait_until(lambda: read_lease(pack).beat > before + 2)


def test_a_finished_pack_is_gone(pack):
    with taken(pack).held() as mine:
        mine.finish()
    assert not pack.exists()
    assert [p.name for p in pack.parent.iterdir()] == []
    assert taken(pack).directory == pack / "1"


def test_a_disk_without_links_copies(pack, monkeypatch):
    def refuse(*_):
        raise PermissionError

    monkeypatch.setattr(claims.os, "link", refuse)
    with taken(pack).held() as mine:
        (mine.directory / "checkpoint").write_text("step 5")
    assert (taken(pack).directory / "checkpoint").read_text() == "step 5"


def test_what_the_disk_refuses_is_no_race(pack, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(claims, "_write", full)
    with pytest.raises(OSError, match="No space left"):
        claim(pack, Watch())
    assert not newest(pack)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"token": 1}'])
def test_a_lease_that_cannot_be_read_holds_nobody_back(pack, content):
    taken(pack)
    (pack / "1" / "lease.json").write_text(content)
    assert read_lease(pack) is None
    assert taken(pack).directory == pack / "2"


@pytest.mark.parametrize(
    "fields",
    [
        {"at": "x"}, {"since": 1e300}, {"at": -1}, {"pid": "1"}, {"pid": True}, {"start": -1}, {"losses": 3},
        {"losses": {"a": "b"}}, {"lease_s": None}, {"step": 10**400}, {"tries": 1.5}, {"is_free": 0}, {"new": 1},
    ],
    ids=str,
)  # fmt: skip
def test_a_lease_of_other_types_is_none(pack, fields):
    path = taken(pack).directory / "lease.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))
    assert read_lease(pack) is None


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.write_text("[" * 200_000)])
def test_a_lease_that_is_no_file_hangs_nobody(pack, make):
    (pack / "1").mkdir(parents=True)
    make(pack / "1" / "lease.json")
    assert read_lease(pack) is None
    assert taken(pack).directory == pack / "2"


def test_a_loss_that_is_no_number_leaves_the_lease_whole(pack):
    mine = taken(pack)
    mine.reached(1, {"a": math.nan, "b": 0.5})
    mine.beat()
    assert read_lease(pack).losses == {"a": None, "b": 0.5}


def test_only_numbers_are_owners(pack):
    for name in ("\u00b2", "007", "1" * 200):
        (pack / name).mkdir(parents=True)
    assert newest(pack) == 0
    assert taken(pack).directory == pack / "1"


def test_numbers_end_somewhere(pack):
    (pack / str(10**15)).mkdir(parents=True)
    assert taken(pack).directory == pack / str(10**15 + 1)
    (pack / str(10**18 - 1)).mkdir()
    with pytest.raises(BuildError, match=r"error\[E-LEASE\] pack pack has a directory 9{18}, which no owner made\."):
        claim(pack, Watch())


def test_nobody_is_believed_for_ever(pack, elsewhere):
    elsewhere(pack, lease_s=1e9)
    clock = Clock()
    watch = Watch(clock)
    assert claim(pack, watch) is None
    clock.now += 24 * 3600 + 1
    assert claim(pack, watch).directory == pack / "2"


# ---- stale --------------------------------------------------------------------------------------

DIE = """
import sys, time
from pathlib import Path
from lorary.work.claims import Watch, claim
with claim(Path(sys.argv[1]), Watch()).held() as mine:
    (mine.directory / "checkpoint").write_text("whole")
    print("claimed", flush=True)
    time.sleep(60)
"""


def test_a_killed_owner_is_followed_at_once(pack):
    with subprocess.Popen([sys.executable, "-c", DIE, str(pack)], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout.readline() == "claimed\n"
        assert claim(pack, Watch()) is None
        owner.send_signal(signal.SIGKILL)
        deadline = time.monotonic() + 120
        while is_running(owner.pid) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert owner.returncode is None, "not waited for: a zombie doesn't run either"
        mine = taken(pack)
    assert (mine.directory / "checkpoint").read_text() == "whole"
    assert mine.lease.tries == 2


def test_a_silent_owner_elsewhere_is_followed_after_its_lease(pack, elsewhere):
    owner, clock = elsewhere(pack, lease_s=60.0), Clock()
    watch = Watch(clock)
    assert claim(pack, watch) is None
    clock.now += 59.9
    assert claim(pack, watch) is None
    owner.beat()
    clock.now += 59.9
    assert claim(pack, watch) is None, "it spoke since"
    clock.now += 60.0
    assert claim(pack, watch) is None, "its last word was heard only just now"
    clock.now += 60.1
    assert claim(pack, watch).directory == pack / "2"


def test_clocks_of_other_hosts_do_not_matter(pack, elsewhere, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(claims.time, "time", lambda: 0.0)  # fifty years behind
        elsewhere(pack)
    clock = Clock()
    watch = Watch(clock)
    assert claim(pack, watch) is None
    clock.now += 59.0
    assert claim(pack, watch) is None


def test_a_process_id_of_another_place_says_nothing(pack, elsewhere, monkeypatch):
    monkeypatch.setattr(claims, "is_running", lambda pid, start: False)
    elsewhere(pack)
    assert not read_lease(pack).is_dead
    assert claim(pack, Watch()) is None
    taken(pack.with_name("here"))
    assert read_lease(pack.with_name("here")).is_dead


def test_the_owner_speaks_while_it_works(pack):
    with taken(pack, lease_s=0.04).held():
        deadline = time.monotonic() + 120
        while read_lease(pack).beat < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert read_lease(pack).beat >= 3
    assert read_lease(pack).is_free


# ---- races --------------------------------------------------------------------------------------


def test_of_many_that_take_over_one_wins(pack):
    for number in range(1, 25):
        barrier, winners = threading.Barrier(8), []

        def rush(barrier=barrier, winners=winners):
            barrier.wait()
            if mine := claim(pack, Watch()):
                winners.append(mine)

        threads = [threading.Thread(target=rush) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [mine.directory.name for mine in winners] == [str(number)]
        assert [p.name for p in pack.iterdir()] == [str(number)]
        with winners[0].held():  # and leave it again
            pass


@pytest.mark.parametrize("n_faster", [1, 2])
def test_who_judged_an_owner_stale_cannot_follow_its_followers(pack, monkeypatch, n_faster):
    """The slowest has looked, then others take over in turn; what it saw stale isn't there any more."""
    with taken(pack).held():
        pass
    rename, faster = os.rename, []

    def late(source, target):
        if not faster:
            faster.append(None)
            for _ in range(n_faster - 1):
                with taken(pack).held():
                    pass
            faster.append(taken(pack))
        rename(source, target)

    monkeypatch.setattr(claims.os, "rename", late)
    assert claim(pack, Watch()) is None
    assert read_lease(pack) == faster[1].lease
    assert [p.name for p in pack.iterdir()] == [str(1 + n_faster)]


def test_a_step_that_is_reached_during_a_beat_is_not_lost(pack, monkeypatch):
    mine, now = taken(pack), time.time()
    working = threading.Thread(target=mine.reached, args=(8,))

    def slowly():
        if working.ident is None:
            working.start()
            working.join(0.2)
        return now

    monkeypatch.setattr(claims, "time", Stopped(time.monotonic))
    monkeypatch.setattr(claims.time, "time", slowly)
    mine.beat()
    working.join()
    assert mine.lease.step == 8 and mine.lease.beat == 1


def test_an_answer_lost_on_the_way_is_looked_up(pack, monkeypatch):
    rename = os.rename

    def lossy(source, target):
        rename(source, target)
        raise FileNotFoundError(2, "the request was sent again and found nothing")

    monkeypatch.setattr(claims.os, "rename", lossy)
    assert taken(pack).directory == pack / "1"


def test_who_was_followed_notices_and_can_spoil_nothing(pack, elsewhere):
    old, clock = elsewhere(pack), Clock()
    (old.directory / "checkpoint").write_text("old")
    watch = Watch(clock)
    assert claim(pack, watch) is None
    clock.now += 61
    new = claim(pack, watch)
    old.reached(3)
    old.directory.mkdir()  # as a checkpoint does that finds its directory missing
    (old.directory / "checkpoint").write_text("older")
    assert (new.directory / "checkpoint").read_text() == "old"
    old.beat()
    with pytest.raises(LeaseLostError) as caught:
        old.reached(4)
    assert str(caught.value) == "error[E-LEASE] pack pack: another worker took it over. It goes on there."
    assert read_lease(pack) == new.lease
    new.beat()
    new.reached(1)


# ---- tries --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("steps", "runs", "tries"),
    [((0, 0, 0), "aaaa", 4), ((0, 5, 5), "aaaa", 2), ((0, 0, 0), "aaab", 1), ((1, 2, 3), "aaaa", 1)],
)
def test_owners_that_died_without_getting_further_are_counted(pack, elsewhere, steps, runs, tries):
    clock = Clock()
    watch = Watch(clock)
    for run, step in zip(runs, (*steps, 0), strict=True):
        if lease := read_lease(pack):
            assert not watch.is_stale(pack, lease)
            clock.now += 61
        owner = elsewhere(pack, watch, run=run)
        assert owner is not None
        owner.reached(step)
        owner.beat()
    assert owner.lease.tries == tries
