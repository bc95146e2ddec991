"""A metric that processes of the tests can import: slow enough to be killed in the middle."""

import time
from dataclasses import dataclass

from lorary.evaluation.evaluators.perplexity import Perplexity


@dataclass(frozen=True, kw_only=True)
class Slow(Perplexity):
    """Measure the loss, and wait `pause_s` after each batch. tag: tells two of them apart."""

    pause_s: float = 0.0
    tag: str = ""

    def score(self, model, examples):
        scored = super().score(model, examples)
        time.sleep(self.pause_s)
        return scored
