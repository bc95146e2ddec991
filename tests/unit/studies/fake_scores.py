"""Scores that nobody measured."""

from lorary.evaluation.contract import Outcome
from lorary.evaluation.scores import Scores


def fake_scores(name, values, *, metric="perplexity", unit="nats per token", higher=False):
    """Make scores of values by task."""
    header = {
        "format": 1, "metric": metric, "options": {}, "name": name, "unit": unit, "higher_is_better": higher,
        "model": {}, "tasks": {t: {"n_examples": len(v), "hash": ""} for t, v in values.items()},
    }  # fmt: skip
    return Scores(header, tuple(Outcome(t, i, x, {}) for t, v in values.items() for i, x in enumerate(v)))


def on_tasks(shifts, n=8):
    """Give values of as many tasks as there are shifts, n examples each, that wobble."""
    return {f"t{i}": [x + shift + 0.01 * (-1) ** x for x in range(n)] for i, shift in enumerate(shifts)}
