"""What a program may use, and what became of it."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Program:
    """An answer as code, and the tests that must run to their end behind it, in the same names."""

    code: str
    tests: str


@dataclass(frozen=True)
class Verdict:
    """Whether a program passed its tests; if not, `why` in a few words."""

    passed: bool
    why: str = ""


@dataclass(frozen=True)
class Limits:
    """What one program may use.

    seconds: of computing; by the clock it has three times as long. memory_bytes, file_bytes: each process, each file;
    disk_bytes: all its files; n_processes: processes and threads, its own included.
    """

    seconds: int = 10
    memory_bytes: int = 1 << 30
    file_bytes: int = 1 << 20
    disk_bytes: int = 16 << 20
    n_processes: int = 4
    n_files: int = 64
    clock_seconds: float = field(init=False)

    def __post_init__(self) -> None:
        """Say how long it may take by the clock: on a busy machine, waiting isn't its fault."""
        object.__setattr__(self, "clock_seconds", 3.0 * self.seconds)
