"""The only exceptions lorary raises on purpose: what, where, expected and found, what to do."""

import difflib
from collections.abc import Sequence

SHOWN = 3  # of many equal faults, so that a message stays one line


class LoraryError(Exception):
    """A mistake that its reader can mend; `code` is stable, the sentence says where and what to do.

    `str(error)` is one line: `error[E-RANK] expert 'poems': rank 8, but ... Use mix="outputs".`
    """

    def __init__(self, code: str, message: str, hint: str = "") -> None:
        self.code = code
        self.message = message
        self.hint = hint
        super().__init__(f"error[{code}] {message}{' ' + hint if hint else ''}")

    def __reduce__(self) -> tuple[type["LoraryError"], tuple[str, str, str]]:
        """Let it travel between processes."""
        return type(self), (self.code, self.message, self.hint)


class OptionError(LoraryError):
    """An unknown, misspelt or ill-typed option or method name."""


class TaskError(LoraryError):
    """Task data that can't be read, with file and line."""


class LibraryError(LoraryError):
    """A library directory, or one adapter directory in it, that breaks the format."""


class AdapterError(LoraryError):
    """An adapter whose numbers or features can't be used on this base."""


class RoutingError(LoraryError):
    """A router, mix or context that can't do what was asked."""


class ModelError(LoraryError):
    """A base model that can't be found, loaded or matched."""


class BuildError(LoraryError):
    """A plan or job that can't run, or that failed."""


class EvaluationError(LoraryError):
    """An evaluation that would give a wrong or empty number."""


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
