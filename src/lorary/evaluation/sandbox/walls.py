"""Ways to start the interpreter that a program runs in: behind bubblewrap's walls, or, where somebody insists, none."""

import dataclasses
import json
import os
import platform
import secrets
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from lorary.evaluation.sandbox.forbidden import filter_for
from lorary.evaluation.sandbox.limits import Limits

NOBODY = 65534
_LIBRARIES = ("/usr/lib", "/usr/lib64", "/usr/lib32", "/usr/libx32", "/usr/local/lib", "/lib", "/lib64", "/nix/store")
_DEVICES = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")
_PYTHON = "/python"
"""Where the interpreter stands inside, unless it is the system's: the folders above it tell who runs it."""
_ENVIRONMENT = {"PYTHONHASHSEED": "0", "LC_ALL": "C.UTF-8"}
"""All that a program finds there. The seed: sets have the same order in every run."""
_FIRST_STRANGER, _N_STRANGERS = 61184, 4336
"""User numbers without a user, as systemd hands them out: limits of processes count per user."""


@dataclass(frozen=True)
class Start:
    """A command that starts `inside.py`, its environment, and the folder it stands in; None: the present one.

    forbidden: a filter of system calls, whose descriptor the command is given behind its first word; empty for none.
    """

    command: tuple[str, ...]
    environment: Mapping[str, str]
    folder: str | None = None
    forbidden: bytes = b""


@dataclass(frozen=True)
class Interpreter:
    """A Python without packages: its program, and the folder that its standard library is in."""

    program: str
    prefix: str

    @property
    def is_of_system(self) -> bool:
        """Tell whether its library is among the system's."""
        return self.prefix in ("/usr", "/usr/local")

    @property
    def inside(self) -> str:
        """Its program's path behind walls."""
        return self.program if self.is_of_system else _PYTHON + self.program.removeprefix(self.prefix)


def this_interpreter() -> Interpreter:
    """Find the Python that runs now, outside of its virtual environment."""
    program = getattr(sys, "_base_executable", None) or sys.executable
    return Interpreter(os.path.realpath(program), os.path.realpath(sys.base_prefix))


@dataclass(frozen=True)
class Bubblewrap:
    """The program `bwrap`, and what this version and this user can do with it.

    sized: it can bound a file system in memory, so that programs may have a place for files; nested: it can forbid
    further user namespaces. as_root: root makes the walls without a user namespace, and whoever is inside then becomes
    somebody without rights; in a namespace of root's, processes would be root's outside, whom no limit of processes
    binds.
    """

    program: str
    sized: bool = True
    forbids_namespaces: bool = True
    as_root: bool = False

    @classmethod
    def find(cls) -> "Bubblewrap | None":
        """Find it on the path of this process; None where there is none."""
        program = shutil.which("bwrap") if sys.platform == "linux" else None
        if program is None:
            return None
        words = _help(program)
        return cls(program, "--size" in words and "--perms" in words, "--disable-userns" in words, os.geteuid() == 0)

    def start(self, limits: Limits, python: Interpreter) -> Start:
        """Say how a program is started: nothing of the host but interpreter and libraries, all of it read-only."""
        user = _FIRST_STRANGER + secrets.randbelow(_N_STRANGERS) if self.as_root else None
        walls = [*self._spaces(), *_host_files(python), *self._own_files(limits), "--remount-ro", "/"]
        n = limits.n_processes + (not self.as_root)  # the sandbox's own first process is the same user's
        inside = _inside(python.inside, limits, user=user, n_processes=n)
        return Start((self.program, *walls, "--", *inside), _ENVIRONMENT, "/", filter_for(platform.machine()))

    def _spaces(self) -> list[str]:
        """No network, no other processes, no messages, no terminal; and an end as soon as ours comes."""
        words = ["--unshare-net", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--unshare-cgroup-try"]
        words += ["--die-with-parent", "--new-session", "--hostname", "sandbox"]
        if self.as_root:
            return [*words, "--cap-drop", "ALL", "--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
        words += ["--unshare-user", "--uid", str(NOBODY), "--gid", str(NOBODY)]
        return [*words, "--disable-userns"] if self.forbids_namespaces else words

    def _own_files(self, limits: Limits) -> list[str]:
        if not self.sized:  # a folder in memory without a bound could take all of it
            return ["--chdir", "/"]
        return ["--perms", "1777", "--size", str(limits.disk_bytes), "--tmpfs", "/tmp", "--chdir", "/tmp"]


def _host_files(python: Interpreter) -> list[str]:
    """Show the interpreter, the libraries of the system and a few devices, and no program beside; links as they are."""
    links = [path for path in _LIBRARIES if os.path.islink(path)]
    shown = {path: path for path in _LIBRARIES if os.path.isdir(path) and path not in links}
    shown[python.program if python.is_of_system else python.prefix] = python.program if python.is_of_system else _PYTHON
    words = [word for path, place in shown.items() for word in ("--ro-bind", path, place)]
    words += [word for device in _DEVICES for word in ("--dev-bind", device, device)]
    words += [word for path in links for word in ("--symlink", os.readlink(path), path)]
    if not python.is_of_system:
        words += ["--setenv", "LD_LIBRARY_PATH", f"{_PYTHON}/lib"]
    # Folders that bwrap makes by the way are shut to all but root; in memory of their own they aren't.
    above = sorted({str(parent) for place in (*shown.values(), *_DEVICES) for parent in Path(place).parents} - {"/"})
    made = [word for folder in above for word in ("--tmpfs", folder)]
    return [*made, *words, *(word for folder in above for word in ("--remount-ro", folder))]


def unwalled(limits: Limits, python: Interpreter, folder: str) -> Start:
    """Say how a program is started without walls: all limits but those of processes and of all files together."""
    return Start(tuple(_inside(python.program, limits, user=None, n_processes=None)), _ENVIRONMENT, folder)


def _inside(program: str, limits: Limits, *, user: int | None, n_processes: int | None) -> Sequence[str]:
    given: dict[str, Any] = {**dataclasses.asdict(limits), "user": user, "n_processes": n_processes, "core_bytes": 0}
    if sys.platform == "darwin":  # has no such limit
        given["memory_bytes"] = None
    return (program, "-s", "-S", "-B", "-c", _source(), json.dumps(given))


@cache
def _source() -> str:
    return Path(__file__).with_name("inside.py").read_text(encoding="utf-8")


@cache
def _help(program: str) -> str:
    try:
        shown = subprocess.run([program, "--help"], capture_output=True, text=True, check=False, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return shown.stdout + shown.stderr
