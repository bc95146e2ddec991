"""Our side of the conversation with one program: it gets its tests late, and only the sentinel's return is a pass."""

import contextlib
import os
import re
import secrets
import selectors
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from threading import Event
from typing import IO

from lorary.errors import EvaluationError
from lorary.evaluation.sandbox.limits import Limits, Program, Verdict
from lorary.evaluation.sandbox.walls import Start

_MOST_BYTES = 4096
"""More than `inside.py` ever says."""
_START_SECONDS = 60.0
_TICK_SECONDS = 0.5
"""How soon it is noticed that nobody wants to know any more."""
_TOO_LONG = "took too long"
_ENDED = "ended before its tests had"


class _OverError(Exception):
    """The program will say no more; the text says why."""


def run(program: Program, start: Start, limits: Limits, stop: Event) -> Verdict:
    """Run one program, and leave nothing of it behind.

    stop: ends it early. Raises E-SANDBOX if it couldn't be started, which says nothing about the program.
    """
    process = _started(start)
    assert process.stdin and process.stdout and process.stderr
    with process.stdin as to, process.stdout as of, process.stderr as errors:
        line = _Line(to, of, stop)
        try:
            if line.hear(time.monotonic() + _START_SECONDS) != "ready":
                raise _OverError
        except _OverError:
            _kill(process)
            raise _not_started(start, process.returncode, errors) from None
        try:
            return _examine(line, program, limits)
        except _OverError as over:
            return Verdict(False, str(over) if not _ran_out(process, over) else _TOO_LONG)
        finally:
            _kill(process)


def _started(start: Start) -> "subprocess.Popen[bytes]":
    first, *others = start.command
    try:
        with _readable(start.forbidden) as handed:
            words = [word for end in handed for word in ("--seccomp", str(end))]
            return subprocess.Popen(
                [first, *words, *others], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                env=dict(start.environment), cwd=start.folder, start_new_session=True, bufsize=0, pass_fds=handed,
            )  # fmt: skip
    except OSError as error:
        raise _cannot(start, error.strerror or str(error)) from error


@contextlib.contextmanager
def _readable(data: bytes) -> Iterator[list[int]]:
    """Give a descriptor to read some bytes from; none where there are none."""
    if not data:
        yield []
        return
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.seek(0)
        yield [file.fileno()]


def _examine(line: "_Line", program: Program, limits: Limits) -> Verdict:
    until = time.monotonic() + limits.clock_seconds
    line.say(program.code)
    word = line.hear(until)
    if word == "loaded":
        sentinel = secrets.token_hex(16)
        line.say(program.tests)
        line.say(sentinel)
        word = line.hear(until)
        if secrets.compare_digest(word.encode(), sentinel.encode()):
            return Verdict(True)
    return Verdict(False, _reason(word))


def _reason(word: str) -> str:
    """Give the error that it reports, if it does; places in memory differ from run to run."""
    kind, _, text = word.partition(" ")
    return re.sub(r"0x[0-9a-f]+", "0x...", text) if kind == "failed" else _ENDED


def _ran_out(process: "subprocess.Popen[bytes]", over: _OverError) -> bool:
    """Tell whether a program that ended did so because it had computed for too long."""
    if str(over) != _ENDED:
        return False
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_TICK_SECONDS)
    return process.returncode in (-signal.SIGXCPU, 128 + signal.SIGXCPU)


def _kill(process: "subprocess.Popen[bytes]") -> None:
    """End a program with all it started: behind walls its first process takes the others along."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _not_started(start: Start, status: int | None, errors: IO[bytes]) -> EvaluationError:
    os.set_blocking(errors.fileno(), False)
    said = (errors.read(_MOST_BYTES) or b"").decode("utf-8", "replace").strip().splitlines()
    why = said[-1] if said else f"it ended with status {status} and said nothing"
    return _cannot(start, why)


def _cannot(start: Start, why: str) -> EvaluationError:
    return EvaluationError("E-SANDBOX", f"{start.command[0]} can't start a program: {why.rstrip('.')}.")


class _Line:
    """Two pipes, neither of which can make us wait for longer than we want."""

    def __init__(self, to: IO[bytes], of: IO[bytes], stop: Event) -> None:
        self._to, self._of, self._stop = to.fileno(), of.fileno(), stop
        self._to_say, self._heard, self._n_heard = b"", b"", 0
        for end in (self._to, self._of):
            os.set_blocking(end, False)

    def say(self, text: str) -> None:
        """Have a frame sent while we listen."""
        data = text.encode("utf-8", "surrogatepass")
        self._to_say += b"%08x" % len(data) + data

    def hear(self, until: float) -> str:
        """Give the next line. Raises _OverError where none comes in time, or too much."""
        while b"\n" not in self._heard:
            self._exchange(until)
        line, _, self._heard = self._heard.partition(b"\n")
        return line.decode("ascii", "replace")

    def _exchange(self, until: float) -> None:
        left = until - time.monotonic()
        if left <= 0 or self._stop.is_set():
            raise _OverError(_TOO_LONG)
        with selectors.DefaultSelector() as selector:
            selector.register(self._of, selectors.EVENT_READ)
            if self._to_say:
                selector.register(self._to, selectors.EVENT_WRITE)
            for key, _ in selector.select(min(left, _TICK_SECONDS)):
                if key.fd == self._of:
                    self._read()
                else:
                    self._write()

    def _read(self) -> None:
        piece = os.read(self._of, _MOST_BYTES)
        if not piece:
            raise _OverError(_ENDED)
        self._heard += piece
        self._n_heard += len(piece)
        if self._n_heard > _MOST_BYTES:
            raise _OverError(_ENDED)

    def _write(self) -> None:
        try:
            self._to_say = self._to_say[os.write(self._to, self._to_say) :]
        except BlockingIOError:
            pass
        except OSError:  # nobody reads it any more; what was said before is still to be heard
            self._to_say = b""
