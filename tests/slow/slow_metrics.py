"""A metric that processes of the tests can import: slow enough to be killed in the middle."""

import os
import time
from dataclasses import dataclass
from pathlib import Path

from lorary.evaluation.evaluators.perplexity import Perplexity


@dataclass(frozen=True, kw_only=True)
class Slow(Perplexity):
    """Measure the loss, and wait `pause_s` after each batch. tag: tells two of them apart.

    Before its first batch a process waits in $MEETING, if there is one, until another is there: however slow their
    start is, both are at work then.
    """

    pause_s: float = 0.0
    tag: str = ""

    def score(self, model, examples):
        if meeting := os.environ.get("MEETING"):
            meet(Path(meeting))
        scored = super().score(model, examples)
        time.sleep(self.pause_s)
        return scored


def meet(place):
    (place / str(os.getpid())).touch()
    deadline = time.monotonic() + 120
    while len(list(place.iterdir())) < 2 and time.monotonic() < deadline:
        time.sleep(0.1)
