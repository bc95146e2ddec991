"""The one door: programs in, verdicts out; which walls there are, and whether there must be any."""

import os
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from threading import Event
from typing import Literal, TypeAlias

from lorary.errors import EvaluationError
from lorary.evaluation.sandbox.limits import Limits, Program, Verdict
from lorary.evaluation.sandbox.talk import run
from lorary.evaluation.sandbox.walls import Bubblewrap, this_interpreter, unwalled

Walls: TypeAlias = Literal["bubblewrap", "none"]
"""What stands between a model's code and this machine."""
CONSENT = "LORARY_RUN_CODE_UNSANDBOXED"
"""The variable by which a user says a second time that nothing shall; its value is "yes"."""
_TRIAL = Program("import math, re, heapq, collections, itertools, typing", "assert math.gcd(12, 18) == 6")
_MOST_AT_ONCE = 32
_OR_ELSE = f"Or score what runs no code; to run it unprotected, say so twice: sandbox=none, and {CONSENT}=yes set."


def judge(programs: Sequence[Program], limits: Limits, walls: Walls = "bubblewrap") -> list[Verdict]:
    """Run programs, as many at once as there are cores, and give their verdicts in order.

    Whatever a program does, it has a verdict, and none affects another's. Raises E-SANDBOX as `require`, and if no
    program can be started.
    """
    require(walls)
    stop = Event()
    with ThreadPoolExecutor(max(1, min(_n_cores(), len(programs)))) as pool:
        try:
            return list(pool.map(partial(_judge, limits=limits, walls=walls, stop=stop), programs))
        except BaseException:  # Ctrl-C among them
            stop.set()
            pool.shutdown(cancel_futures=True)
            raise


def require(walls: Walls) -> None:
    """See to it that a program can be run behind walls, or that the user said twice that there shall be none.

    Raises E-SANDBOX.
    """
    if walls == "none":
        if os.name != "posix":
            raise EvaluationError(
                "E-SANDBOX", f"code isn't run on {sys.platform}, with or without sandbox.", "Use Linux."
            )
        if os.environ.get(CONSENT) != "yes":
            what = "sandbox=none would let code that a model wrote do all that you may do on this machine."
            raise EvaluationError("E-SANDBOX", what, f"If you mean it, set {CONSENT}=yes; else leave sandbox out.")
        return
    if reason := _why_no_walls(os.environ.get("PATH", "")):
        raise EvaluationError("E-SANDBOX", *reason)


@cache
def _why_no_walls(_: str) -> tuple[str, str] | None:
    """Try the sandbox once; give what is wrong with it, and what to do. None: it stands."""
    found = Bubblewrap.find()
    if found is None:
        what = "code that a model wrote is run only in a sandbox, and there is none: bubblewrap's `bwrap` isn't found."
        how = "Install the package bubblewrap (apt, dnf, pacman, apk)."
        return what, f"{how if sys.platform == 'linux' else 'Use Linux, or a container of it.'} {_OR_ELSE}"
    try:
        verdict = _judge(_TRIAL, Limits(), "bubblewrap", Event())
    except EvaluationError as error:
        how = "Let this user make namespaces, as docs/how_to/code.md says."
        return f"code that a model wrote is run only in a sandbox, and {error.message}", f"{how} {_OR_ELSE}"
    if verdict.passed:
        return None
    how = f"Use a Python whose files everybody may read, and a newer bubblewrap. {_OR_ELSE}"
    return f"{found.program} makes no sandbox that this Python works in: {verdict.why}.", how


def _judge(program: Program, limits: Limits, walls: Walls, stop: Event) -> Verdict:
    python = this_interpreter()
    if walls == "none":
        with tempfile.TemporaryDirectory(prefix="lorary-code-", ignore_cleanup_errors=True) as folder:
            return run(program, unwalled(limits, python, folder), limits, stop)
    found = Bubblewrap.find()
    if found is None:
        raise EvaluationError("E-SANDBOX", "bubblewrap's `bwrap` isn't found any more.", "Install it again.")
    return run(program, found.start(limits, python), limits, stop)


def _n_cores() -> int:
    """Count the cores that are ours: OMP_NUM_THREADS is a bound, as it is for a worker's threads."""
    affinity = getattr(os, "sched_getaffinity", None)
    n = len(affinity(0)) if affinity else os.cpu_count() or 1
    given = os.environ.get("OMP_NUM_THREADS", "")
    return min(n, _MOST_AT_ONCE, int(given) if given.isdecimal() and int(given) else n)
