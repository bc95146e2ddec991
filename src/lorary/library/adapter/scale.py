r"""Rank and scale of each site, exactly as PEFT resolves them.

PEFT matches each pattern key as `(.*\.)?(key)$` against the module path; the first key that matches wins.
Keys that are names, perhaps with `^`, `$` and `\.`, are matched by look-up: a stranger's config may hold a hundred
thousand, for ten thousand sites. The others are run within bounds, by `foreign_patterns`.
"""

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from lorary.errors import LibraryError
from lorary.library.adapter.foreign_patterns import Expressions
from lorary.library.adapter.site_keys import endings

MAX_FORMS = 256  # a model's own names have some ten
_PLAIN = re.compile(r"\^?(?:[A-Za-z0-9_.-]|\\[._-])*\$?")  # of what is escaped, letters mean kinds of letters
_Form = tuple[tuple[int, int], ...]
_LETTER = re.compile(r"\\.|.")


def is_plain(pattern: str) -> bool:
    """Tell whether a pattern can be matched without running it."""
    return _PLAIN.fullmatch(pattern) is not None


class Patterns:
    """Patterns in their order, of which the first that matches a site wins.

    Plain ones are kept by form: their length, and where they have an unescaped dot, which is any one letter for a
    regular expression. What is left of a text without these places is looked up.
    Raises E-REGEX for a pattern that can't be run safely, E-LIMIT for more than 256 forms or 64 that
    aren't plain.
    """

    def __init__(self, patterns: Iterable[str]) -> None:
        self._patterns = tuple(patterns)
        self._forms: dict[int, dict[_Form, dict[tuple[bool, tuple[str, ...]], int]]] = {}
        self._expressions, self._run = Expressions(), dict[int, int]()
        for order, pattern in enumerate(self._patterns):
            if is_plain(pattern):
                self._add(pattern, order)
            else:
                self._run[order] = self._expressions.add(pattern, r"(.*\.)?({})$")
        if sum(map(len, self._forms.values())) > MAX_FORMS:
            message = f"{len(self._patterns):,} patterns of more than {MAX_FORMS} forms: lengths, and places of dots."
            raise LibraryError("E-LIMIT", message, r"Write the dots in them as \., or fewer patterns.")

    def _add(self, pattern: str, order: int) -> None:
        letters = _LETTER.findall(pattern.strip("^$"))
        text = "".join(letter[-1] for letter in letters)
        form = _between([place for place, letter in enumerate(letters) if letter == "."], len(text))
        known = self._forms.setdefault(len(text), {}).setdefault(form, {})
        known.setdefault((pattern.startswith("^"), _cut(text, form)), order)

    def first(self, site: str) -> str | None:
        """Find the pattern that PEFT would use for a site, or None. Raises E-REGEX for one that takes too long."""
        orders = [order for ending in endings(site) for order in self._found(ending, ending == site)]
        best = min(orders, default=len(self._patterns))
        earlier = (order for order in self._run if order < best)
        best = next((order for order in earlier if self._expressions.match(self._run[order], site)), best)
        return self._patterns[best] if best < len(self._patterns) else None

    def _found(self, ending: str, is_whole: bool) -> Iterable[int]:
        for form, known in self._forms.get(len(ending), {}).items():
            pieces = _cut(ending, form)
            for key in ((False, pieces), (True, pieces)) if is_whole else ((False, pieces),):
                if key in known:
                    yield known[key]


def _between(places: list[int], length: int) -> _Form:
    starts, ends = [0, *(place + 1 for place in places)], [*places, length]
    return tuple((start, end) for start, end in zip(starts, ends, strict=True) if start < end)


def _cut(text: str, form: _Form) -> tuple[str, ...]:
    return tuple([text[start:end] for start, end in form])


def ranks_of(config: Mapping[str, object], sites: Iterable[str]) -> dict[str, int]:
    """Give the rank that the config promises for each site; the tensors decide whether that is true.

    Raises as `Patterns` does.
    """
    found = _values(config, "rank_pattern", "r", sites)
    return {site: int(rank) for site, rank in found.items()}


def scales_of(config: Mapping[str, object], ranks: Mapping[str, int]) -> dict[str, float]:
    """Give the factor on B A at each site, by its rank: alpha / rank, or alpha / sqrt(rank) with rsLoRA.

    Raises as `Patterns` does.
    """
    alphas = _values(config, "alpha_pattern", "lora_alpha", ranks)
    root = math.sqrt if config.get("use_rslora") else float
    return {site: float(alphas[site] / root(rank)) for site, rank in ranks.items()}


def _values(config: Mapping[str, Any], field: str, default: str, sites: Iterable[str]) -> dict[str, Any]:
    values = config.get(field) or {}
    patterns = Patterns(values)
    found = {site: patterns.first(site) for site in sites}
    return {site: config[default] if pattern is None else values[pattern] for site, pattern in found.items()}
