"""The entry point `lorary`: signals, streams and exit codes; `app` has the commands."""

import os
import signal
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

from lorary.cli.exit_codes import FAILED, INTERRUPTED, READER_GONE

_AGAIN_S = 0.02
_PATIENCE_S = 5.0  # with imports
_QUIET = {
    "DO_NOT_TRACK": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",
}
"""Keeps the packages we use quiet; read when they are imported."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit with its code: 0 done, 1 error, 2 usage, 3 partial, 130 interrupted."""
    from lorary.cli.printing.reading_lines import ReadingLines
    from lorary.tasks.telling import telling
    from lorary.work.waiting import short_waits

    for name, value in {**_QUIET, **short_waits(os.environ)}.items():
        os.environ.setdefault(name, value)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a terminal without UTF-8 is no reason to fail
    with _stoppable(), _without_reader(), warnings.catch_warnings(), telling(ReadingLines()):
        warnings.showwarning = _say_warning
        from lorary.cli.app import command_line  # in here, since it takes a moment in which Ctrl-C may come

        command_line()(_debug_first(list(sys.argv[1:] if arguments is None else arguments)), prog_name="lorary")


def _say_warning(message: Warning | str, *_where: Any, **_more: Any) -> None:
    """Tell a warning as any other word on stderr; where in the code it was raised helps nobody here."""
    from lorary.cli.printing.console import say

    text = str(message)
    say(text if text.startswith("warning") else f"warning: {text}")


def _debug_first(arguments: list[str]) -> list[str]:
    """Let --debug stand anywhere before "--", although it belongs to all commands."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    if "--debug" not in arguments[:end]:
        return arguments
    return ["--debug", *(a for a in arguments[:end] if a != "--debug"), *arguments[end:]]


@contextmanager
def _without_reader() -> Iterator[None]:
    """End without noise when stdout can't be written: its reader has gone, as `| head` does, or the disk is full."""
    try:
        yield
    finally:
        try:
            if sys.stdout is not None:
                sys.stdout.flush()
        except OSError as error:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter's own flush complains
            sys.exit(READER_GONE if isinstance(error, BrokenPipeError) else FAILED)


@contextmanager
def _stoppable() -> Iterator[None]:
    """Make SIGTERM behave as Ctrl-C, and the second of either end the process at once. The first is never lost.

    Python raises KeyboardInterrupt wherever it is. In a finaliser or a callback it is lost, so it is raised again;
    what is being imported may swallow it, so it waits for that; and a library may make another error of it, so what
    counts at the end is that it came.
    """
    numbers = (signal.SIGINT, signal.SIGTERM)
    clock = getattr(signal, "SIGALRM", None)  # not on Windows: there it is raised once and at once
    before = {number: signal.getsignal(number) for number in (*numbers, *([clock] if clock else []))}
    hook, deadline, over = sys.unraisablehook, None, False

    def stop(_number: int, frame: FrameType | None) -> None:
        nonlocal deadline
        deadline = time.monotonic() + _PATIENCE_S
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)
        interrupt(0, frame)

    def interrupt(_number: int, frame: FrameType | None) -> None:
        if clock and time.monotonic() < (deadline or 0) and _is_importing(frame):
            signal.setitimer(signal.ITIMER_REAL, _AGAIN_S)
        elif not over:
            raise KeyboardInterrupt

    def unheard(lost: Any) -> None:
        if deadline is None or not issubclass(lost.exc_type, KeyboardInterrupt):
            hook(lost)
        elif clock:
            signal.setitimer(signal.ITIMER_REAL, _AGAIN_S)

    try:
        sys.unraisablehook = unheard
        for number in before:
            signal.signal(number, interrupt if number == clock else stop)
        yield
    except BaseException as end:
        if deadline is None and not (isinstance(end, SystemExit) and end.code == INTERRUPTED):
            raise
        _leave_interrupted(*getattr(end, "__notes__", []))
    else:
        if deadline is not None:
            _leave_interrupted()
    finally:
        over = True
        if clock and deadline is not None:
            signal.setitimer(signal.ITIMER_REAL, 0)
        sys.unraisablehook = hook
        for number, handler in before.items():
            signal.signal(number, handler)


def _is_importing(frame: FrameType | None) -> bool:
    """Tell whether what is running, below our own entry, is an import."""
    while frame is not None and frame.f_code is not main.__code__:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False


def _leave_interrupted(*notes: str) -> NoReturn:
    from lorary.cli.printing.console import say

    say(" ".join(["interrupted.", *notes]))
    raise SystemExit(INTERRUPTED) from None


if __name__ == "__main__":
    main()
