"""How fast work goes, and how long it will take."""

import math
import time
from collections.abc import Callable

_MEMORY_S = 60.0  # what is longer ago than this counts for little
_LEAST_S = 5.0  # of work, before anything is said


class Pace:
    """The speed of some work as it is reported, that of the last minutes above all: other work on a machine changes it.

    What was done before the first call doesn't count.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began: float | None = None
        self._at = self._done = self._amount = self._time_s = 0.0

    def record(self, done: float) -> None:
        """Take down how much is done now."""
        now = self._clock()
        if self._began is None:
            self._began = self._at = now
            self._done = done
        elif now > self._at:
            spent_s = now - self._at
            kept = math.exp(-spent_s / _MEMORY_S)
            seen_s = _MEMORY_S * (1 - kept)  # the same weights, summed over the time since the last word
            self._amount = kept * self._amount + (done - self._done) * seen_s / spent_s
            self._time_s = kept * self._time_s + seen_s
            self._at, self._done = now, done

    def left_s(self, missing: float) -> float | None:
        """Guess how long what is missing takes; None while there is too little to guess from."""
        if missing <= 0 or self._amount <= 0 or self._began is None or self._at - self._began < _LEAST_S:
            return None
        return missing * self._time_s / self._amount

    def left(self, missing: float) -> str:
        """Write the guess for people, or nothing."""
        left_s = self.left_s(missing)
        if left_s is None:
            return ""
        return f"about {in_time(left_s)} left" if left_s >= 60 else "under a minute left"


def in_time(seconds: float) -> str:
    """Write a span of time for people: 40 s, 12 min, 3.5 h."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
