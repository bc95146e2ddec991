"""Regular expressions from a stranger's config: run by an engine that stops in time, where they are of the usual forms.

PEFT runs what it finds with Python's `re`, in which one pattern of ten letters can take for ever. The engine here takes
a time limit. It knows more than `re` and reads some of that otherwise, so only forms that both read alike are taken:
letters, `.`, `^`, `$`, `|`, groups, looking ahead and back, classes, and repetitions.
"""

import re
import time
from collections.abc import Callable

import regex

from lorary.errors import LibraryError, quote

MAX_LETTERS = 2000
MAX_GROUPS = 60
MAX_EXPRESSIONS = 64
_FORMS = re.compile(
    r"""(?:
        [A-Za-z0-9_/:\-\ ] | \. | \^ | \$ | \|                             # letters, any letter, ends, or
      | \\[.\-_/:dDwWsSbB^$|()\[\]{}*+?\\]                                 # escaped ones, and kinds of letters
      | \[\^?(?:(?!--)[A-Za-z0-9_/:.\-] | \\[.\-_/:dDwWsS\\])+\]           # classes
      | \((?:\?(?:[:=!]|<[=!])|(?!\?)) | \)                                # groups, looking ahead and back
      | (?:[*+?] | \{\d{1,3}(?:,\d{0,3})?\} | \{,\d{1,3}\})\??             # repetitions, lazy ones too
    )*""",
    re.VERBOSE | re.ASCII,
)
_FIRST_S, _EACH_S, _ALL_S = 0.2, 0.005, 5.0
_HINT = "Write it as the end of a module path, such as layers.0.attn.q_proj."


class Expressions:
    """Expressions that are matched with paths. What they take together is bounded, and grows with the asking alone.

    Raises E-REGEX for one that isn't of the usual forms, E-LIMIT for more than 64.
    """

    def __init__(self) -> None:
        self._compiled: list[regex.Pattern[str]] = []
        self._given_s, self._taken_s = _FIRST_S, 0.0

    def add(self, pattern: str, within: str = "{}") -> int:
        """Take one, as a part of a larger one where PEFT has it so; give the number by which it is asked."""
        if len(self._compiled) >= MAX_EXPRESSIONS:
            message = f"more than {MAX_EXPRESSIONS} regular expressions."
            raise LibraryError("E-LIMIT", message, "Write them as ends of module paths, or as fewer.")
        if len(pattern) > MAX_LETTERS or pattern.count("(") > MAX_GROUPS or not _FORMS.fullmatch(pattern):
            raise _unreadable(pattern)
        try:
            self._compiled.append(regex.compile(within.replace("{}", pattern)))
        except (regex.error, RecursionError, OverflowError):
            raise _unreadable(pattern) from None
        return len(self._compiled) - 1

    def match(self, number: int, path: str) -> "regex.Match[str] | None":
        """Match one with the start of a path, as `re.match` would. Raises E-REGEX when it takes too long."""
        return self._timed(self._compiled[number].match, path)

    def fits(self, number: int, path: str) -> bool:
        """Tell whether one matches a whole path, as `re.fullmatch` would. Raises as `match`."""
        return self._timed(self._compiled[number].fullmatch, path) is not None

    def _timed(self, method: Callable[..., "regex.Match[str] | None"], path: str) -> "regex.Match[str] | None":
        self._given_s += _EACH_S
        left_s = min(self._given_s, _ALL_S) - self._taken_s
        start = time.process_time()  # which is what the engine goes by, too
        try:
            if left_s > 0:
                return method(path, timeout=left_s)
        except (TimeoutError, MemoryError, RecursionError):
            pass
        finally:
            self._taken_s += time.process_time() - start
        raise LibraryError("E-REGEX", "its regular expressions take too long to match.", _HINT)


def _unreadable(pattern: str) -> LibraryError:
    return LibraryError("E-REGEX", f"pattern {quote(pattern)} can't be read safely.", _HINT)
