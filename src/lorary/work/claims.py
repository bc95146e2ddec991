"""Claims by lease: who works on which pack, for any number of processes and hosts over one directory.

    .work/<pack>/            one directory per pack that somebody works on or worked on
      1/  2/  ...            one per owner, in turn; the highest number owns the pack
        lease.json           who it is, and a beat that grows while it lives
        checkpoint...        what the work keeps there

An owner comes in by one rename of a directory that holds its lease and links to the last owner's files. A rename on a
directory that isn't empty fails, so of several that want to be number n + 1 one wins, on local disks and on NFS, and
nobody can take over a number that he has not seen. Each owner writes in its own directory only: one that was thought
dead and comes back can spoil nothing; it finds a higher number and gives up.

A lease is stale if its process is seen to be dead from here, or if its beat has not moved for `lease_s` by the
watcher's own clock, so clocks of other hosts don't matter. An owner whose work shows no sign of life for `hang_s` stops
beating: it may hang for ever, while its heart, a thread of its own, would go on. Files must be written by atomic
replace, never over.
"""

import contextlib
import errno
import json
import math
import os
import re
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from lorary.disk.processes import began, host, is_running, place
from lorary.errors import BuildError
from lorary.work.records import are_losses, is_count, is_flag, is_text, is_time, read_record

LEASE_S = 60.0
"""How long an owner may be silent; it speaks at least four times as often."""
BEAT_S = 2.0
"""It speaks at least this often: what it says is also how others see its progress."""
HANG_S = 1800.0
"""How long a job may make no step before it counts as hung; a first compilation or a long validation takes less."""
LONGEST_LEASE_S = 24 * 3600.0
"""Nobody is believed to live for longer without a word, whatever his lease says."""
_LEASE = "lease.json"
_NUMBER = re.compile(r"[1-9][0-9]{0,17}")
_LAST = 10**18 - 1
_QUICKER = {errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT, errno.ENOTDIR, errno.ESTALE}
"""What the disk says when another worker was quicker, or done."""


class LeaseLostError(BuildError):
    """Another worker took the pack over; whoever hears this gives it up and loses nothing."""


@dataclass(frozen=True)
class Lease:
    """What an owner says of itself. Times are seconds since 1970 by its own clock; steps are those of its pack.

    start: when its process started, so that another which has its number by now isn't taken for it; 0: unknown. run:
    names the workers that were started together. tries: how many owners of one run in a row, this one included, died
    without getting further. losses: of its jobs, in nats per token, each at its last step, None for one that is no
    number; for show.
    """

    token: str
    host: str
    place: str
    pid: int
    run: str
    since: float
    at: float
    lease_s: float
    start: int = 0
    beat: int = 0
    first_step: int = 0
    step: int = 0
    tries: int = 1
    is_free: bool = False
    losses: Mapping[str, float | None] = field(default_factory=dict)

    @property
    def is_dead(self) -> bool:
        """Whether its process is seen from here to be gone."""
        return self.place == place() and not is_running(self.pid, self.start)

    @property
    def owner(self) -> str:
        """Who it is, in a word."""
        return f"{self.host}:{self.pid}"


_FIELDS = {
    **dict.fromkeys(("token", "host", "place", "run"), is_text),
    **dict.fromkeys(("since", "at", "lease_s"), is_time),
    **dict.fromkeys(("pid", "start", "beat", "first_step", "step", "tries"), is_count),
    "is_free": is_flag,
    "losses": are_losses,
}


class Watch:
    """Remembers when each lease was last seen to move, by this process's own clock."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: dict[Path, tuple[tuple[str, int], float]] = {}

    def is_stale(self, pack: Path, lease: Lease) -> bool:
        """Tell whether a pack may be taken over: it was left, its owner is dead, or silent for too long."""
        if lease.is_free or lease.is_dead:
            return True
        mark, now = (lease.token, lease.beat), self._clock()
        last, since = self._seen.get(pack, (None, now))
        if last != mark:
            self._seen[pack] = (mark, now)
            return False
        return now - since > min(lease.lease_s, LONGEST_LEASE_S)


def newest(pack: Path) -> int:
    """Give the number of a pack's owner; 0 if it never had one."""
    return max(_numbers(pack), default=0)


def _numbers(pack: Path) -> list[int]:
    try:
        return [int(name) for name in os.listdir(pack) if _NUMBER.fullmatch(name)]
    except (FileNotFoundError, NotADirectoryError):
        return []


def read_lease(pack: Path) -> Lease | None:
    """Read what a pack's owner last said; None if it has none, or one whose lease can't be read."""
    return read_record(pack / str(newest(pack)) / _LEASE, Lease, _FIELDS)


@dataclass
class Claim:
    """A pack that is ours as long as nobody has a higher number. `directory` is where its work goes."""

    directory: Path
    lease: Lease
    is_lost: bool = False
    _stop: threading.Event = field(default_factory=threading.Event)
    _moved: float = field(default_factory=time.monotonic)
    _changing: threading.Lock = field(default_factory=threading.Lock)
    """Held while the lease is exchanged: the heart counts beats as the work counts steps, and neither may be lost."""

    @property
    def pack(self) -> Path:
        """The pack's directory."""
        return self.directory.parent

    def reached(self, step: int, losses: Mapping[str, float] | None = None) -> None:
        """Say how far the work is, and what losses jobs have. Raises LeaseLostError if the pack is another's by now."""
        told = {job: loss if math.isfinite(loss) else None for job, loss in (losses or {}).items()}
        with self._changing:
            self.lease = replace(self.lease, step=step, losses={**self.lease.losses, **told})
        self.moved()
        self.check()

    def moved(self) -> None:
        """Say that the work isn't hung."""
        self._moved = time.monotonic()

    def check(self) -> None:
        """Raise LeaseLostError if the last beat found that the pack is another's."""
        if self.is_lost:
            raise LeaseLostError("E-LEASE", f"pack {self.pack.name}: another worker took it over.", "It goes on there.")

    def confirm(self) -> None:
        """Look whether the pack is still ours. Raises LeaseLostError as `check`."""
        self._look()
        self.check()

    def _look(self) -> None:
        self.is_lost = self.is_lost or newest(self.pack) != int(self.directory.name)

    def beat(self) -> None:
        """Say that we live, and look whether we were taken over."""
        self._look()
        if not self.is_lost:
            with self._changing:
                self.lease = replace(self.lease, beat=self.lease.beat + 1, at=time.time())
            with contextlib.suppress(OSError):  # a disk that hiccups is asked again at the next beat
                _write(self.directory, self.lease)

    @contextlib.contextmanager
    def held(self, hang_s: float | None = None, on_hang: Callable[[], None] | None = None) -> Iterator["Claim"]:
        """Beat while the `with` block works; what it doesn't finish is left for others to go on with.

        A block that says neither `moved` nor `reached` for `hang_s` (None: for ever) falls silent, and `on_hang`, which
        may end the process, is called at each beat that is left out. If it moves after all, it beats again.
        """
        self.moved()
        heart = threading.Thread(
            target=self._keep_beating, args=(hang_s, on_hang), name=f"lease of {self.pack.name}", daemon=True
        )
        heart.start()
        try:
            yield self
        finally:
            self._stop.set()
            heart.join()
            self.lease = replace(self.lease, is_free=True)
            self.beat()

    def _keep_beating(self, hang_s: float | None, on_hang: Callable[[], None] | None) -> None:
        while not self._stop.wait(min(BEAT_S, self.lease.lease_s / 4)):
            if hang_s is None or time.monotonic() - self._moved <= hang_s:
                self.beat()
            elif on_hang:
                on_hang()

    def finish(self) -> None:
        """Remove the pack's directory at one instant: its work is done and kept elsewhere."""
        away = self.pack.with_name(f".{self.pack.name}.{secrets.token_hex(4)}")
        with contextlib.suppress(OSError):  # another, that thought us dead, was as quick
            os.rename(self.pack, away)
            shutil.rmtree(away, ignore_errors=True)


def claim(pack: Path, watch: Watch, *, run: str = "", lease_s: float = LEASE_S) -> Claim | None:
    """Claim a pack: one that nobody has, or one whose owner left or died, with all that he had written.

    None if somebody works on it, or was quicker. Raises OSError if the disk refuses, E-LEASE where owners' numbers end.
    """
    number, last = newest(pack), read_lease(pack)
    if last is not None and not watch.is_stale(pack, last):
        return None
    if number == _LAST:
        message = f"pack {pack.name} has a directory {number}, which no owner made."
        raise BuildError("E-LEASE", message, f"Remove {str(pack / str(number))!r}.")
    lease = _next_lease(last, run, lease_s)
    arriving = pack / f".{lease.token}"
    try:
        arriving.mkdir(parents=number == 0)
        if number:
            _link_files(pack / str(number), arriving)
        _write(arriving, lease)
        os.rename(arriving, pack / str(number + 1))
    except OSError as error:
        shutil.rmtree(arriving, ignore_errors=True)
        if error.errno not in _QUICKER:
            raise
        if not _is_ours(pack, lease):  # over NFS an answer may get lost: then it is ours, and yet an error
            return None
    if newest(pack) > number + 1:  # while we looked, one came and left and another came; our number was free again
        shutil.rmtree(pack / str(number + 1), ignore_errors=True)
        return None
    for older in (older for older in _numbers(pack) if older <= number):
        shutil.rmtree(pack / str(older), ignore_errors=True)
    return Claim(pack / str(number + 1), lease)


def _next_lease(last: Lease | None, run: str, lease_s: float) -> Lease:
    now, step = time.time(), last.step if last else 0
    is_stuck = last is not None and last.run == run and not last.is_free and last.step <= last.first_step
    tries = last.tries + 1 if last and is_stuck else 1
    token = secrets.token_hex(8)
    return Lease(
        token, host(), place(), os.getpid(), run, now, now, lease_s, began(), first_step=step, step=step, tries=tries
    )


def _is_ours(pack: Path, lease: Lease) -> bool:
    found = read_lease(pack)
    return found is not None and found.token == lease.token


def _link_files(source: Path, target: Path) -> None:
    """Give an owner's files to the next: as links where the disk has them, which costs neither time nor space."""
    for path in sorted(source.rglob("*")):
        if path.name == _LEASE or path.name.endswith(".tmp") or not path.is_file():
            continue
        there = target / path.relative_to(source)
        there.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):  # its owner lives after all, and replaces it
            try:
                os.link(path, there)
            except FileNotFoundError:
                raise
            except OSError:
                shutil.copy2(path, there)


def _write(directory: Path, lease: Lease) -> None:
    beside = directory / f".{_LEASE}.tmp"
    beside.write_text(json.dumps(asdict(lease)), encoding="utf-8")
    os.replace(beside, directory / _LEASE)
