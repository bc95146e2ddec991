"""What the kernel doesn't do for a program: a filter of system calls, in the form that bubblewrap passes on.

Without rights, a program could still make itself a user namespace, and in it file systems without a bound.
"""

import errno
import struct

_NEW_NAMESPACES = 0x7E020000
"""The flags of `clone` that make namespaces."""
_CLONE3 = 435  # its flags are out of sight: said to be missing, it is replaced by clone
_MACHINES = {
    "x86_64": (0xC000003E, 56, {
        "unshare": 272, "setns": 308, "mount": 165, "pivot_root": 155, "ptrace": 101, "shmget": 29, "bpf": 321,
        "perf_event_open": 298, "userfaultfd": 323, "add_key": 248, "request_key": 249, "keyctl": 250,
    }),
    "aarch64": (0xC00000B7, 220, {
        "unshare": 97, "setns": 268, "mount": 40, "pivot_root": 41, "ptrace": 117, "shmget": 194, "bpf": 280,
        "perf_event_open": 241, "userfaultfd": 282, "add_key": 217, "request_key": 218, "keyctl": 219,
    }),
}  # fmt: skip
"""Machine -> what the kernel calls it, the number of `clone`, and those of calls that are refused."""
_OF_ALL = {"io_uring_setup": 425, "open_tree": 428, "move_mount": 429, "fsopen": 430}

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _ANSWER = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _ERROR = 0x7FFF0000, 0x00050000
_FOREIGN = 0x40000000  # from here on numbers are those of another interface


def filter_for(machine: str) -> bytes:
    """Make the filter for a kind of machine, as `platform.machine()` names it; empty for one that isn't known."""
    if machine not in _MACHINES:
        return b""
    name, clone, numbers = _MACHINES[machine]
    steps = [_step(_LOAD, 4), _step(_EQUAL, name, 1, 0), _refuse(errno.EPERM), _step(_LOAD, 0)]
    steps += [_step(_AT_LEAST, _FOREIGN, 0, 1), _refuse(errno.EPERM)]
    steps += [_step(_EQUAL, _CLONE3, 0, 1), _refuse(errno.ENOSYS)]
    for number in (*numbers.values(), *_OF_ALL.values()):
        steps += [_step(_EQUAL, number, 0, 1), _refuse(errno.EPERM)]
    steps += [_step(_EQUAL, clone, 0, 3), _step(_LOAD, 16), _step(_ANY_BIT, _NEW_NAMESPACES, 0, 1)]
    return b"".join([*steps, _refuse(errno.EPERM), _step(_ANSWER, _ALLOW)])


def _step(code: int, value: int, if_so: int = 0, if_not: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_so, if_not, value)


def _refuse(why: int) -> bytes:
    return _step(_ANSWER, _ERROR | why)
