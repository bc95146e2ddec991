"""Which tokens rows have in common at their beginning, so that they are read once for all of them."""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby, islice
from typing import NamedTuple

from lorary.model.text.tokens import Encoded

_LEVELS = 4
"""Branches that follow each other at most, each of which keeps a cache: a subject's prefix, a question, a beginning."""
_WORTH = 8
"""A branch saves one token of so many of its rows at least: it is one more call."""


class Ask(NamedTuple):
    """A token of a row's completion, to be foreseen at a column of the branch."""

    column: int
    row: int
    token: int


@dataclass(eq=False)
class Branch:
    """Tokens that follow those of the branches before, for one row or for all that hang on it.

    width: of the longest of its rows, what is before included, as its length tells.
    """

    row: int
    tokens: Sequence[int]
    width: int
    asks: list[Ask] = field(default_factory=list)
    branches: list["Branch"] = field(default_factory=list)

    def __len__(self) -> int:
        return self.width

    @property
    def rows(self) -> Iterator[int]:
        """The rows that ask for something on it or on its branches."""
        yield from (ask.row for ask in self.asks)
        for branch in self.branches:
            yield from branch.rows


class _Run(NamedTuple):
    """Rows in the order of their tokens, which are alike as far as `parent` goes, up to `start`."""

    numbers: list[int]
    start: int
    parent: Branch | None
    level: int


def grow(rows: Sequence[Encoded], kinds: Mapping[int, Hashable]) -> list[Branch]:
    """Find the beginnings that rows of one kind share. kinds: row number -> kind, of the rows that are looked at.

    A row that shares nothing worth a call hangs on no branch. The last token of a row is never read.
    """
    texts = {number: (*rows[number].prompt, *rows[number].completion[:-1]) for number in kinds}
    by_kind: dict[Hashable, list[int]] = {}
    for number in sorted(kinds, key=texts.__getitem__):
        by_kind.setdefault(kinds[number], []).append(number)
    roots: list[Branch] = []
    waiting = [_Run(numbers, 0, None, 0) for numbers in by_kind.values()]
    while waiting:
        run = waiting.pop()
        if len(run.numbers) == 1:
            if run.parent:
                _hang(run.numbers[0], rows, texts, run)
            continue
        common = _common(rows, texts, run.numbers)
        if run.level < _LEVELS and _is_worth(texts, run, common):
            width = max(len(texts[number]) for number in run.numbers)
            branch = Branch(run.numbers[0], texts[run.numbers[0]][run.start : common], width)
            (run.parent.branches if run.parent else roots).append(branch)
            run = _Run(run.numbers, common, branch, run.level + 1)
        waiting += [run._replace(numbers=part) for part in _parts(rows, texts, run.numbers, common)]
    return roots


def _common(rows: Sequence[Encoded], texts: Mapping[int, Sequence[int]], numbers: Sequence[int]) -> int:
    """Count the tokens that sorted rows have in common, completions left out."""
    most = min(len(rows[number].prompt) for number in numbers)
    pairs = zip(texts[numbers[0]], texts[numbers[-1]], strict=False)
    return next((i for i, (one, other) in enumerate(islice(pairs, most)) if one != other), most)


def _is_worth(texts: Mapping[int, Sequence[int]], run: _Run, common: int) -> bool:
    saved = (len(run.numbers) - 1) * (common - run.start)
    return saved > 0 and _WORTH * saved >= sum(len(texts[number]) - run.start for number in run.numbers)


def _parts(
    rows: Sequence[Encoded], texts: Mapping[int, Sequence[int]], numbers: Sequence[int], at: int
) -> Iterator[list[int]]:
    """Part rows by their next token; those whose completion begins there go on alone."""
    yield from ([number] for number in numbers if len(rows[number].prompt) == at)
    longer = [number for number in numbers if len(rows[number].prompt) > at]
    for _, part in groupby(longer, key=lambda number: texts[number][at]):
        yield list(part)


def _hang(number: int, rows: Sequence[Encoded], texts: Mapping[int, Sequence[int]], run: _Run) -> None:
    """Hang what is left of a row on its branch, and ask for each token of its completion where it is foreseen."""
    assert run.parent is not None
    row, rest = rows[number], texts[number][run.start :]
    leaf = Branch(number, rest, len(texts[number]))
    for column, token in enumerate(row.completion, start=len(row.prompt) - 1 - run.start):
        asked, column = (run.parent, len(run.parent.tokens) - 1) if column < 0 else (leaf, column)
        asked.asks.append(Ask(column, number, token))
    if rest:
        run.parent.branches.append(leaf)
