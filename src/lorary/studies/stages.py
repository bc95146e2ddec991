"""Stages of long work: foreseen in tokens, and told while they pass."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from lorary.reporting.table import Table


class Watcher(Protocol):
    """Who is told how far the road is: a progress bar, or nobody."""

    def begin(self, total: float) -> None:
        """Hear how much work there is, in tokens passed forward once."""

    def doing(self, what: str) -> None:
        """Hear what is being done now."""

    def advance(self, amount: float) -> None:
        """Hear that some of the work is done."""

    def replan(self, change: float) -> None:
        """Hear that there is so much more work than was said, or less: some may have been done before."""

    def show(self, table: Table) -> None:
        """Be given results as soon as there are some."""


class Stages:
    """Tells a watcher of stages, one after the other; what one was foreseen to be gives way to what it is."""

    def __init__(self, watcher: Watcher) -> None:
        self._watcher = watcher
        self._left = 0.0

    @contextmanager
    def stage(self, what: str, amount: float) -> Iterator[None]:
        """Go through a stage that was foreseen to be so much work."""
        self._watcher.doing(what)
        self._left = amount
        yield
        self.skip(self._left)

    def skip(self, amount: float) -> None:
        """Leave out so much of the stage, since it was done before."""
        amount = min(amount, self._left)
        self._left -= amount
        if amount:
            self._watcher.replan(-amount)

    def pass_on(self, amount: float) -> None:
        """Go on by so much; if that was more than was foreseen, say so."""
        if amount > self._left:
            self._watcher.replan(amount - self._left)
        self._left = max(0.0, self._left - amount)
        self._watcher.advance(amount)
