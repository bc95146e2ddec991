"""Stages of long work: foreseen in tokens passed forward once, and told while they pass."""

from collections.abc import Iterator
from contextlib import contextmanager

from lorary.progress import Progress, Tell


class Stages:
    """Tells how far work is, stage after stage; what one was foreseen to be gives way to what it is."""

    def __init__(self, total: float, progress: Progress, tell: Tell) -> None:
        self.tell, self._progress = tell, progress
        self._done, self._total, self._left = 0.0, total, 0.0

    @contextmanager
    def stage(self, what: str, amount: float) -> Iterator[None]:
        """Go through a stage that was foreseen to be so much work."""
        self._left = amount
        self.tell(what)
        self._report()
        yield
        self.skip(self._left)

    def skip(self, amount: float) -> None:
        """Leave out so much of the stage, since it was done before."""
        amount = min(amount, self._left)
        self._left -= amount
        self._total -= amount
        self._report()

    def pass_on(self, amount: float) -> None:
        """Go on by so much; if that was more than was foreseen, there is more to do in all."""
        self._total += max(0.0, amount - self._left)
        self._left = max(0.0, self._left - amount)
        self._done += amount
        self._report()

    def _report(self) -> None:
        self._progress(round(self._done), round(self._total))
