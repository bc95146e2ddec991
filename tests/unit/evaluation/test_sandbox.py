"""Code that a model wrote passes if its tests do, and can do nothing else."""

import os
import socket
import sys
import time
from pathlib import Path
from threading import Event

import pytest

from lorary.errors import EvaluationError
from lorary.evaluation.sandbox import judge as judge_room
from lorary.evaluation.sandbox import talk, walls
from lorary.evaluation.sandbox.judge import CONSENT, judge, require
from lorary.evaluation.sandbox.limits import Limits, Program, Verdict
from lorary.evaluation.sandbox.walls import Bubblewrap, Interpreter, this_interpreter, unwalled

QUICK = Limits(seconds=1, file_bytes=(1 << 20) + os.getpid())
"""Known by its bytes among the processes of this machine."""
SYSTEM = Interpreter("/usr/bin/python3.99", "/usr")
OWN = Interpreter("/opt/py/bin/python3.99", "/opt/py")
SECRET = "a key that nobody is to see"

PASSES = {
    "right": ("def add(a, b):\n    return a + b", "assert add(1, 2) == 3"),
    "prints": ("print('x' * 1_000_000)\ndef one():\n    return 1", "assert one() == 1"),
    "reads nothing": ("import sys\ntext = sys.stdin.read()", "assert text == ''"),
    "writes": ("open('notes', 'w').write('x')", "assert open('notes').read() == 'x'"),
    "imports": ("import ctypes, socket, decimal, sqlite3, multiprocessing", ""),
    "keeps the name of a builtin": ("def sum(a, b):\n    return a + b", "assert sum(1, 2) == 3"),
}
"""Programs that pass: name -> code, tests."""

FAILS = {
    "wrong": ("def add(a, b):\n    return a - b", "assert add(1, 2) == 3", "AssertionError:"),
    "no code": ("def add(a, b:", "assert add(1, 2) == 3", "SyntaxError: "),
    "zero bytes": ("x = '\0'", "", "SyntaxError: |ValueError: "),
    "leaves": ("import sys\nsys.exit(0)", "assert 0", "SystemExit: 0"),
    "leaves at once": ("import os\nos._exit(0)", "assert 0", "ended before its tests had"),
    "leaves when tested": ("import os\ndef f():\n    os._exit(0)", "assert f() == 1", "ended before its tests had"),
    "leaves at exit": ("import atexit, os\natexit.register(os._exit, 0)\nraise SystemExit", "assert 0", "SystemExit:"),
    "is killed": ("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", "", "ended before its tests had"),
    "says what a pass says": (
        "import os\nfor end in range(3):\n    os.write(end, b'ready\\nloaded\\n' + b'0' * 32 + b'\\n')\nos._exit(0)",
        "", "ended before its tests had",
    ),
    "says it everywhere": (
        "import os\nfor end in range(64):\n    try:\n        os.write(end, b'loaded\\n' + b'0' * 32 + b'\\n')\n"
        "    except OSError:\n        pass\nos._exit(0)",
        "", "ended before its tests had",
    ),
    "says too much": (
        "import os\nfor end in range(64):\n    try:\n        os.write(end, b'x' * 9000)\n"
        "    except OSError:\n        pass\nos._exit(0)",
        "", "ended before its tests had",
    ),
    "patches builtins": (
        "import builtins\nbuiltins.abs = lambda x: 0\nbuiltins.exec = builtins.compile = lambda *a: None\n"
        "builtins.AssertionError = builtins.BaseException = ValueError\ndef f():\n    return 5",
        "assert abs(f()) < 1", "AssertionError:",
    ),
    "patches the ways out": (
        "import os, sys\nos.write = os.read = lambda *a: b''\nos._exit = sys.exit = lambda *a: None", "assert 0",
        "AssertionError:",
    ),
    "skips lines": (
        "import sys\ndef trace(frame, event, arg):\n    frame.f_trace_lines = False\nsys.settrace(trace)",
        "assert 0", "AssertionError:",
    ),
    "has an error without words": (
        "class Odd(Exception):\n    def __str__(self):\n        raise ValueError\ndef f():\n    raise Odd",
        "f()", "Odd",
    ),
}  # fmt: skip
"""Programs that fail anywhere: name -> code, tests, why."""

PROBES = {
    "reads files of the host": (
        "import os\nfound = [p for p in ('/etc/passwd', '/etc', '/home', '/root', '/var', '/proc', '/sys', '/bin/sh')"
        " if os.path.exists(p)]",
        "assert found == []",
    ),
    "writes elsewhere": (
        "wrote = []\nfor place in ('/x', '/usr/x', '/usr/lib/x', '/dev/x', '/dev/shm/x', '/python/x', '/home'):\n"
        "    try:\n        open(place, 'w')\n        wrote.append(place)\n    except OSError:\n        pass",
        "assert wrote == []",
    ),
    "runs a command": ("import posix\nstatus = posix.system('echo hi')", "assert status != 0"),
    "starts a program": (
        "import subprocess\ntry:\n    subprocess.run(['ls'])\n    ran = True\nexcept OSError:\n    ran = False",
        "assert not ran",
    ),
    "forks in C": (
        "import ctypes, time\nc, n = ctypes.CDLL(None), 0\nwhile n < 50:\n    child = c.fork()\n    if child == 0:\n"
        "        time.sleep(100)\n    if child < 0:\n        break\n    n += 1",
        "assert n <= 3, n",
    ),
    "sees its environment": (
        "import os\nfound = set(os.environ) - {'PWD', 'LD_LIBRARY_PATH'}",
        "assert found == {'PYTHONHASHSEED', 'LC_ALL'}, found",
    ),
    "sees who it is": (
        "import os, socket\nwho = os.getuid() >= 60000 and os.getresuid() == (os.getuid(),) * 3\n"
        "where = socket.gethostname()",
        "assert who and os.getgroups() == [] or os.getgroups() == [65534]\nassert where == 'sandbox'",
    ),
    "wants its rights back": (
        "import os\ntry:\n    os.setuid(0)\n    root = True\nexcept OSError:\n    root = False", "assert not root",
    ),
    "takes memory": (
        "try:\n    much = bytearray(8 << 30)\nexcept MemoryError:\n    much = None", "assert much is None",
    ),
    "writes an endless file": (
        "n = 0\ntry:\n    with open('a', 'wb') as file:\n        while n < 10_000:\n"
        "            file.write(b'x' * 65536)\n            n += 1\nexcept OSError as error:\n    why = error.strerror",
        "assert why == 'File too large'",
    ),
    "writes many files": (
        "n = 0\ntry:\n    while n < 1000:\n        open(f'/tmp/{n}', 'wb').write(b'x' * (1 << 20))\n        n += 1\n"
        "except OSError as error:\n    why = error.strerror",
        "assert why == 'No space left on device'",
    ),
    "makes a world of its own": (
        "import ctypes\nc = ctypes.CDLL(None)\nmade = [c.unshare(kind) for kind in (0x10000000, 0x20000, 0x40000000)]\n"
        "made += [c.mount(b'none', b'/tmp', b'tmpfs', 0, None), c.shmget(0, 1 << 20, 0o1600)]",
        "assert made == [-1] * 5, made",
    ),
    "starts threads and processes as usual": (
        "import os, threading\ntold = []\nthread = threading.Thread(target=told.append, args=(1,))\nthread.start()\n"
        "thread.join()\nchild = os.fork()\nif child == 0:\n    os._exit(7)\nended = os.waitpid(child, 0)[1]",
        "assert told == [1] and os.waitstatus_to_exitcode(ended) == 7",
    ),
    "has no other program in sight": (
        "import os\nothers = []\nfor other in range(1, 5000):\n    try:\n        os.kill(other, 0)\n"
        "        others.append(other)\n    except OSError:\n        pass",
        "assert len(others) <= 2, others",
    ),
}  # fmt: skip
"""What a program may try; it passes if the attempt came to nothing: name -> code, tests."""

HANGS = {
    "computes for ever": "while True:\n    try:\n        while 1:\n            pass\n    except:\n        pass",
    "ignores its limit": "import signal\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True:\n    pass",
    "sleeps": "import time\ntime.sleep(1000)",
    "forks for ever": "import os\nwhile True:\n    try:\n        os.fork()\n    except OSError:\n        pass",
    "waits for what it isn't told": "import os\nfor end in range(32, 64):\n    try:\n        while True:\n"
    "            os.read(end, 1)\n    except OSError:\n        pass",
}
"""Programs that never end."""


def why_none() -> str:
    try:
        require("bubblewrap")
    except EvaluationError as error:
        return str(error)
    return ""


@pytest.fixture(scope="module")
def verdicts() -> dict[str, Verdict]:
    """All programs behind walls, at once."""
    if reason := why_none():
        pytest.skip(reason)
    with pytest.MonkeyPatch.context() as patch, socket.socket() as listener:
        patch.setattr(judge_room, "_n_cores", lambda: 12)
        patch.setenv("A_SECRET_OF_OURS", SECRET)
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        call = (
            f"import socket\ntry:\n    socket.create_connection(('127.0.0.1', {listener.getsockname()[1]}), 1)\n"
            "    reached = True\nexcept OSError:\n    reached = False"
        )
        every = {name: Program(code, "") for name, code in HANGS.items()}
        every |= {name: Program(code, tests) for name, (code, tests) in (PASSES | PROBES).items()}
        every |= {name: Program(code, tests) for name, (code, tests, _) in FAILS.items()}
        every |= {"calls home": Program(call, "assert not reached")}
        return dict(zip(every, judge(list(every.values()), QUICK), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("name", PASSES)
def test_a_right_program_passes(verdicts: dict[str, Verdict], name: str) -> None:
    assert verdicts[name] == Verdict(True)


@pytest.mark.parametrize("name", FAILS)
def test_only_tests_that_end_are_a_pass(verdicts: dict[str, Verdict], name: str) -> None:
    assert not verdicts[name].passed
    assert any(verdicts[name].why.startswith(why) for why in FAILS[name][2].split("|"))


@pytest.mark.parametrize("name", [*PROBES, "calls home"])
def test_a_program_reaches_nothing(verdicts: dict[str, Verdict], name: str) -> None:
    assert verdicts[name] == Verdict(True)


@pytest.mark.parametrize("name", HANGS)
def test_a_program_cannot_hang_the_evaluation(verdicts: dict[str, Verdict], name: str) -> None:
    assert verdicts[name] == Verdict(False, "took too long")


def test_nothing_is_left_of_a_program(verdicts: dict[str, Verdict]) -> None:
    assert verdicts
    time.sleep(0.2)
    running = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
    assert running
    assert not [command for command in running if str(QUICK.file_bytes).encode() in command]


def test_verdicts_stand_in_order() -> None:
    if reason := why_none():
        pytest.skip(reason)
    found = judge([Program("", f"assert {n} % 2") for n in range(4)], Limits())
    assert [verdict.passed for verdict in found] == [False, True, False, True]
    assert judge([], Limits()) == []


# ---- without walls: the same conversation ------------------------------------------------------


@pytest.fixture
def unprotected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CONSENT, "yes")
    monkeypatch.setattr(judge_room, "_n_cores", lambda: 4)


@pytest.mark.parametrize("name", ["wrong", "leaves at once", "patches builtins", "says it everywhere"])
def test_without_walls_a_pass_needs_the_tests_too(unprotected: None, name: str) -> None:
    code, tests, why = FAILS[name]
    (verdict,) = judge([Program(code, tests)], Limits(), "none")
    assert not verdict.passed
    assert verdict.why.startswith(why)


@pytest.mark.slow
def test_without_walls_limits_and_time_hold(unprotected: None) -> None:
    here = Program("import os\nplace = os.getcwd()", f"assert 'lorary-code-' in place and place != {os.getcwd()!r}")
    hangs = Program(HANGS["computes for ever"], "")
    ran = [hangs, Program(*PASSES["right"]), Program(*PASSES["writes"]), here]
    ran += [Program(*PROBES["takes memory"])] * (sys.platform == "linux")
    assert judge(ran, QUICK, "none") == [Verdict(False, "took too long"), *[Verdict(True)] * (len(ran) - 1)]


def test_no_walls_are_said_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(CONSENT, raising=False)
    with pytest.raises(EvaluationError, match=rf"E-SANDBOX.*set {CONSENT}=yes"):
        judge([Program("", "")], QUICK, "none")
    monkeypatch.setenv(CONSENT, "1")
    with pytest.raises(EvaluationError, match="E-SANDBOX"):
        require("none")


def test_the_second_word_alone_takes_no_walls_away(unprotected: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(EvaluationError, match=r"E-SANDBOX.*`bwrap` isn't found.*[Ii]nstall the package bubblewrap"):
        judge([Program("", "")], QUICK)


def test_a_sandbox_that_cannot_start_is_no_failed_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "bwrap"
    broken.write_text("#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(EvaluationError, match=r"E-SANDBOX.*No permissions to create new namespace\. Let this user"):
        judge([Program("", "")], QUICK)


def test_other_systems_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    judge_room._why_no_walls.cache_clear()
    try:
        with pytest.raises(EvaluationError, match=r"E-SANDBOX.*Use Linux, or a container of it"):
            require("bubblewrap")
    finally:
        judge_room._why_no_walls.cache_clear()


# ---- the plan ----------------------------------------------------------------------------------


def options(start: walls.Start) -> list[tuple[str, ...]]:
    """Group the words of a command by option, up to the program that runs inside."""
    words = start.command[1 : start.command.index("--")]
    starts = [i for i, word in enumerate(words) if word.startswith("--")]
    return [tuple(words[a:b]) for a, b in zip(starts, [*starts[1:], len(words)], strict=True)]


@pytest.mark.parametrize("python", [SYSTEM, OWN], ids=["system", "own"])
@pytest.mark.parametrize("as_root", [True, False], ids=["root", "user"])
def test_the_walls_are_whole(python: Interpreter, as_root: bool) -> None:
    start = Bubblewrap("bwrap", as_root=as_root).start(Limits(), python)
    given = options(start)
    for space in ("net", "pid", "ipc", "uts"):
        assert (f"--unshare-{space}",) in given
    assert {("--die-with-parent",), ("--new-session",), ("--remount-ro", "/"), ("--size", str(16 << 20))} <= set(given)
    assert (("--unshare-user",) in given) is not as_root
    assert (("--cap-drop", "ALL") in given) is as_root
    shown = {option[1] for option in given if option[0] in ("--ro-bind", "--dev-bind", "--bind")}
    assert not [option for option in given if option[0] == "--bind"], "nothing of the host may be written to"
    assert all(path.startswith(("/usr/lib", "/usr/local/lib", "/lib", "/dev/", "/nix/store")) for path in shown - {
        python.program, python.prefix
    })  # fmt: skip
    assert "/usr" not in shown
    assert set(start.environment) == {"PYTHONHASHSEED", "LC_ALL"}
    command = start.command[start.command.index("--") + 1 :]
    assert command[0] == ("/usr/bin/python3.99" if python is SYSTEM else "/python/bin/python3.99")
    assert '"user": null' in command[-1] or as_root


def test_an_old_bubblewrap_gets_no_place_for_files() -> None:
    given = options(Bubblewrap("bwrap", sized=False, forbids_namespaces=False).start(Limits(), OWN))
    assert not {option[0] for option in given} & {"--size", "--perms", "--disable-userns"}
    assert ("--tmpfs", "/tmp") not in given


def test_this_interpreter_is_no_virtual_one() -> None:
    python = this_interpreter()
    assert python.program.startswith(python.prefix)
    assert not Path(python.prefix, "pyvenv.cfg").exists()


# ---- the conversation --------------------------------------------------------------------------


def conversing(tmp_path: Path, script: str) -> walls.Start:
    program = tmp_path / "program.py"
    program.write_text(script)
    return walls.Start((sys.executable, "-S", str(program)), {}, str(tmp_path))


def test_the_sentinel_is_another_each_time(tmp_path: Path) -> None:
    """Whoever repeats an earlier one fails; whoever gives back what it is sent behind the tests passes."""
    script = (
        "import os, pathlib\nread = lambda: os.read(0, int(os.read(0, 8), 16))\n"
        "os.write(1, b'ready\\n')\nread()\nos.write(1, b'loaded\\n')\nread()\nlast = read()\n"
        "place = pathlib.Path('last')\nearlier = place.read_bytes() if place.exists() else last\n"
        "place.write_bytes(last)\nos.write(1, earlier + b'\\n')\n"
    )
    start = conversing(tmp_path, script)
    first, second = (talk.run(Program("", ""), start, QUICK, Event()) for _ in range(2))
    assert first.passed
    assert not second.passed


def test_it_is_heard_in_pieces_and_told_in_full(tmp_path: Path) -> None:
    script = (
        "import os, time\nos.write(1, b'rea')\ntime.sleep(0.05)\nos.write(1, b'dy\\n')\n"
        "n = int(os.read(0, 8), 16)\ntime.sleep(0.2)\nseen = 0\nwhile seen < n:\n    seen += len(os.read(0, 1 << 16))\n"
        "os.write(1, b'failed %d at 0x7f00ab\\n' % seen)\n"
    )
    verdict = talk.run(Program("x" * 300_000, ""), conversing(tmp_path, script), QUICK, Event())
    assert verdict == Verdict(False, "300000 at 0x...")


def test_a_stop_ends_it_at_once(tmp_path: Path) -> None:
    stop = Event()
    stop.set()
    began = time.monotonic()
    with pytest.raises(EvaluationError, match="E-SANDBOX"):
        talk.run(Program("", ""), conversing(tmp_path, "import time\ntime.sleep(60)"), QUICK, stop)
    assert time.monotonic() - began < 5


def test_a_missing_program_is_said(tmp_path: Path) -> None:
    gone = walls.Start((str(tmp_path / "gone"),), {})
    with pytest.raises(EvaluationError, match=r"E-SANDBOX.*can't start a program: No such file"):
        talk.run(Program("", ""), gone, QUICK, Event())


def test_limits_are_told_to_the_program() -> None:
    given = unwalled(Limits(seconds=7), OWN, "/").command
    assert given[0] == OWN.program
    assert '"seconds": 7' in given[-1]
    assert '"n_processes": null' in given[-1]
