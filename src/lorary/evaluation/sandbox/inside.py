"""What runs beside a program, in its process: sets the limits, runs code and tests, and then gives the sentinel back.

Alone in its interpreter: it imports the standard library only, and nothing of it is secret. The program comes through
standard input in frames (eight hexadecimal digits, then so many bytes): the code, when "ready" was said; the tests,
when "loaded" was said; behind them the sentinel, a number that exists nowhere before, and that is read once the tests
have ended. Whoever ends the process earlier, however politely, hasn't passed.
"""

import builtins
import json
import os
import random
import resource
import sys
import types
from collections.abc import Callable
from typing import Any


def main() -> None:
    """Run one program. Never returns."""
    # As they are now: the program may put others in their places.
    leave, write, run, parse, anything = os._exit, os.write, exec, compile, BaseException
    given = json.loads(sys.argv.pop())
    hear, tell = _private_ends(given["n_files"])
    _drop(given["user"])
    _limit(given)
    pristine = dict(vars(builtins))
    room = types.ModuleType("solution")
    sys.modules["solution"] = sys.modules["__main__"] = room
    random.seed(0)
    frame = _frames(hear)
    write(tell, b"ready\n")
    try:
        run(parse(frame(), "solution", "exec"), room.__dict__)
        write(tell, b"loaded\n")
        sys.settrace(None)
        sys.setprofile(None)
        room.__dict__["__builtins__"] = pristine
        run(parse(frame(), "tests", "exec"), room.__dict__)
        write(tell, frame() + b"\n")
    except anything as error:
        write(tell, b"failed " + _said(error) + b"\n")
    leave(0)


def _private_ends(n_files: int) -> list[int]:
    """Take the two pipes away from standard input and output, which become empty."""
    nothing = os.open(os.devnull, os.O_RDWR)
    places = random.SystemRandom().sample(range(n_files // 2, n_files), 2)
    ends = [os.dup2(end, place, inheritable=False) for end, place in enumerate(places)]
    for end in (0, 1, 2):
        os.dup2(nothing, end)
    os.close(nothing)
    return ends


def _drop(user: int | None) -> None:
    """Become somebody without rights, where it took root to make the walls."""
    if user is not None:
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)


def _limit(given: dict[str, Any]) -> None:
    names = {
        "CPU": "seconds", "AS": "memory_bytes", "FSIZE": "file_bytes", "NPROC": "n_processes", "NOFILE": "n_files",
        "CORE": "core_bytes",
    }  # fmt: skip
    for what, name in names.items():
        if (most := given[name]) is not None:
            # A second more of computing, after which nothing helps: at the first limit the end still has a name.
            resource.setrlimit(getattr(resource, f"RLIMIT_{what}"), (most, most + (what == "CPU")))


def _frames(hear: int) -> Callable[[], bytes]:
    """Give a function that reads the next frame, and no byte behind it."""
    read = os.read

    def exactly(n: int) -> bytes:
        data = b""
        while len(data) < n:
            piece = read(hear, n - len(data))
            if not piece:
                raise EOFError
            data += piece
        return data

    return lambda: exactly(int(exactly(8), 16))


def _said(error: BaseException) -> bytes:
    try:
        text = f"{type(error).__name__}: {error}"
    except BaseException:
        text = type(error).__name__
    return " ".join(text.split())[:200].encode("ascii", "backslashreplace")


if __name__ == "__main__":
    main()
