"""Processes to be harmed: forked from one that has imported everything, so that a kill finds them at work."""

import contextlib
import ctypes
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

MARK = "LORARY_SOAK_ROUND"
"""The environment variable by which the processes of a round are found, orphans included."""
LONGEST_S = 120.0
_NEW_USER, _NEW_MOUNTS = 0x10000000, 0x00020000


@dataclass(frozen=True)
class End:
    """How a process ended: its exit code (-9 for killed), what it wrote, how long it took and its largest size."""

    code: int
    out: str
    err: str
    seconds: float
    peak_mb: float


class Running:
    """A function at work in a process of its own, its streams in pipes, which no full disk stops."""

    def __init__(self, do: Callable[[], object]) -> None:
        self.began = time.monotonic()
        pipes = [os.pipe(), os.pipe()]
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            _become(do, [writer for _, writer in pipes])
        self._readers = [reader for reader, _ in pipes]
        self._said: dict[int, bytes] = dict.fromkeys(self._readers, b"")
        for reader, writer in pipes:
            os.close(writer)
            os.set_blocking(reader, False)

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send a signal; to nobody if it ended already."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def allow_files_of(self, n_bytes: int) -> None:
        """From now on no file of the process can grow beyond this."""
        with contextlib.suppress(ProcessLookupError):
            hard = resource.prlimit(self.pid, resource.RLIMIT_FSIZE)[1]
            resource.prlimit(self.pid, resource.RLIMIT_FSIZE, (n_bytes, hard))

    def wait(self, longest_s: float = LONGEST_S) -> End:
        """Wait for its end; one that takes too long is killed and told as hung."""
        deadline, hung = time.monotonic() + longest_s, False
        while True:
            pid, status, used = os.wait4(self.pid, os.WNOHANG)
            self._listen()
            if pid:
                break
            if time.monotonic() > deadline and not hung:
                hung = True
                self.kill()
            time.sleep(0.002)
        code = os.waitstatus_to_exitcode(status)
        out, err = (self._said[reader].decode(errors="replace") for reader in self._readers)
        for reader in self._readers:
            os.close(reader)
        err += f"\nHUNG for {longest_s:g} s" if hung else ""
        return End(code, out, err, time.monotonic() - self.began, used.ru_maxrss / 1000)

    def _listen(self) -> None:
        for reader in self._readers:
            with contextlib.suppress(BlockingIOError):
                while part := os.read(reader, 1 << 16):
                    self._said[reader] += part


def run(do: Callable[[], object], longest_s: float = LONGEST_S) -> End:
    """Run a function in a process of its own to its end."""
    return Running(do).wait(longest_s)


def command(*arguments: object) -> Callable[[], None]:
    """Make a function that is a command of lorary."""

    def do() -> None:
        from lorary.cli.entry import main

        sys.argv = ["lorary", *map(str, arguments)]
        main()

    return do


def cold(*arguments: object) -> Callable[[], None]:
    """Make a function that becomes a command in a fresh interpreter, as a user starts it."""

    def do() -> None:
        line = [sys.executable, "-m", "lorary.cli.entry", *map(str, arguments)]
        os.execv(sys.executable, line)

    return do


def _become(do: Callable[[], object], writers: Sequence[int]) -> None:
    code = 70
    try:
        for number, writer in enumerate(writers, start=1):
            os.dup2(writer, number)
            os.close(writer)
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 - a pipe now, maybe not before
        sys.stderr = open(2, "w", encoding="utf-8", buffering=1, closefd=False)  # noqa: SIM115
        os.setsid()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        do()
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 71
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


# ---- a small disk -------------------------------------------------------------------------------


def small_disk(place: Path, n_bytes: int) -> None:
    """Give this process a view of its own of the files, in which `place` is a disk of so many bytes; needs no rights.

    Raises OSError where the system grants no namespaces to its users.
    """
    libc, user, group = ctypes.CDLL(None, use_errno=True), os.getuid(), os.getgid()
    if libc.unshare(_NEW_USER | _NEW_MOUNTS):
        raise OSError(ctypes.get_errno(), "no namespaces for users")
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {user} 1")
    Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    options = f"size={n_bytes},mode=0700".encode()
    if libc.mount(b"tmpfs", os.fsencode(place), b"tmpfs", 0, options):
        raise OSError(ctypes.get_errno(), "no disk in memory")


def has_small_disks(place: Path) -> bool:
    """Tell whether this machine lets its users make such disks."""
    place.mkdir(parents=True, exist_ok=True)
    return run(lambda: small_disk(place, 1 << 20)).code == 0


@contextlib.contextmanager
def filled(place: Path, room: int) -> Iterator[None]:
    """Leave so many bytes of a disk in the block: all others are taken by a file."""
    ballast = place / ".ballast"
    with ballast.open("wb") as file:
        while (free := os.statvfs(place).f_bavail * os.statvfs(place).f_frsize) > room:
            with contextlib.suppress(OSError):  # others write meanwhile
                os.posix_fallocate(file.fileno(), os.fstat(file.fileno()).st_size, max(1, free - room))
                break
    try:
        yield
    finally:
        ballast.unlink()


# ---- orphans ------------------------------------------------------------------------------------


def of_round(token: str) -> list[int]:
    """List the processes that were started in a round and still run, this one left out."""
    wanted, found = f"{MARK}={token}".encode(), []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
                if state not in "ZX" and wanted in (entry / "environ").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
    return found
