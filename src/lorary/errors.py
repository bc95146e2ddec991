"""The only exceptions lorary raises on purpose: what, where, expected and found, what to do."""

import difflib
from collections.abc import Sequence
from typing import ClassVar, Self

SHOWN = 3  # of many equal faults, so that a message stays one line


class LoraryError(Exception):
    """A mistake that its reader can mend; `code` is stable, the sentence says where and what to do.

    `str(error)` is one line: `error[E-RANK] expert 'poems': rank 8, but ... Use mix="outputs".`
    """

    codes: ClassVar[frozenset[str]] = frozenset()
    """Those that errors of this class alone bear."""

    def __init__(self, code: str, message: str, hint: str = "") -> None:
        self.code = code
        self.message = message
        self.hint = hint
        super().__init__(f"error[{code}] {message}{' ' + hint if hint else ''}")

    def __reduce__(self) -> tuple[type["LoraryError"], tuple[str, str, str]]:
        """Let it travel between processes."""
        return type(self), (self.code, self.message, self.hint)

    def reworded(self, message: str, hint: str) -> Self:
        """Make the same error in other words, of somebody who knows more of where it happened."""
        return type(self)(self.code, message, hint)


class OptionError(LoraryError):
    """An option, argument or name that is unknown, misspelt or ill-typed, or that needs a package that isn't here."""

    codes = frozenset({"E-EXTRA", "E-NAME", "E-OPTION", "E-PLUGIN", "E-PORT"})


class TaskError(LoraryError):
    """Task data that can't be read, with file and line, or a task that there isn't."""

    codes = frozenset({"E-DATA", "E-TASK"})


class LibraryError(LoraryError):
    """A file or directory that can't be read, written or fetched, or that breaks the format of a library or adapter."""

    codes = frozenset(
        {
            "E-CONFIG", "E-DISK", "E-EMPTY", "E-EXISTS", "E-FILE", "E-HUB", "E-LIBRARY", "E-LIMIT", "E-MAP", "E-PATH",
            "E-PERM", "E-PICKLE", "E-PRIVATE", "E-REGEX", "E-SCHEMA",
        }
    )  # fmt: skip


class AdapterError(LoraryError):
    """An adapter whose tensors or features can't be used, on this base or with the other experts."""

    codes = frozenset(
        {
            "E-ATTACHED", "E-BASEKEY", "E-COMPILER", "E-DTYPE", "E-FEATURE", "E-KEYS", "E-NONFINITE", "E-RANK",
            "E-SHAPE", "E-SPLIT", "E-TARGET",
        }
    )  # fmt: skip


class RoutingError(LoraryError):
    """A router, mix or context that can't do what was asked."""

    codes = frozenset(
        {
            "E-BUSY", "E-CACHE", "E-CHECKPOINT", "E-DETACHED", "E-LEARNED", "E-MASK", "E-PROBE", "E-ROWS", "E-STATE",
            "E-TEXT",
        }
    )  # fmt: skip


class ModelError(LoraryError):
    """A base or saved model that can't be found, loaded or matched, or that can't take what it is given."""

    codes = frozenset(
        {
            "E-BASE", "E-CHAT", "E-CODE", "E-DEVICE", "E-EMBEDDED", "E-ENCODER", "E-LENGTH", "E-MEMORY", "E-MODEL",
            "E-TOKENS", "E-TRAINER",
        }
    )  # fmt: skip


class BuildError(LoraryError):
    """A plan or job that can't run, or that failed."""

    codes = frozenset({"E-BLOCKS", "E-CLUSTERS", "E-DIVERGED", "E-JOBS", "E-LEASE", "E-ROAD", "E-SOURCE", "E-WORKER"})


class EvaluationError(LoraryError):
    """An evaluation that would give a wrong or empty number."""

    codes = frozenset({"E-EVAL", "E-PAIR", "E-REPORT", "E-RUN", "E-SANDBOX"})


FAMILIES: tuple[type[LoraryError], ...] = (
    OptionError, TaskError, LibraryError, AdapterError, RoutingError, ModelError, BuildError, EvaluationError,
)  # fmt: skip


def error_of(code: str, message: str, hint: str = "") -> LoraryError:
    """Make the error of a code that somebody else chose, in the class whose code it is."""
    family = next((family for family in FAMILIES if code in family.codes), LoraryError)
    return family(code, message, hint)


def known_names(wrong: object, known: list[str] | tuple[str, ...]) -> str:
    """Say what is near a wrong name and what is known, as in: Did you mean 'arrow'? Known: arrow, oracle."""
    near = difflib.get_close_matches(str(wrong), known, n=1, cutoff=0.6)
    guess = f"Did you mean {near[0]!r}? " if near else ""
    return f"{guess}Known: {', '.join(known) or 'none'}."


def quote(value: object, limit: int = 80) -> str:
    """Show a foreign value: control characters escaped, cut at `limit` letters."""
    if isinstance(value, str) and len(value) > limit:
        return repr(value[:limit]) + "..."
    text = repr(value)
    return text if len(text) <= limit + 2 else text[:limit] + "..."


def listed(names: Sequence[str]) -> str:
    """List the first few names and count the rest: `'a', 'b', 'c' and 5 more`."""
    text = ", ".join(quote(name) for name in names[:SHOWN])
    return text if len(names) <= SHOWN else f"{text} and {len(names) - SHOWN} more"
