"""What the paper claims of numbers of clusters, and of ways to cluster."""

from collections.abc import Sequence

from lorary.studies.comparing.paper_claims import Claim, Said
from lorary.studies.contract import TRAINED

_FEW = "Train a few clusters of tasks rather than one expert for all, or one for each."
_BY_WEIGHTS = "Cluster by the weights of short private experts: it needs no data of the tasks."
_BY_TASKS = "Never deal the examples of one task out to several experts."
_APART = "Of two ways to cluster take the one whose experts are less alike."


def of_scores(group: str, k: int, ks: Sequence[int]) -> list[Claim]:
    """List what is claimed of k clusters beside both ends, 1 and the most of `ks`, and of ways to cluster."""
    on = "" if group == TRAINED else f", {group}"
    middle, most = f"k={k}", max(ks, default=0)
    curve = "-0.65 against {} log-likelihood" if group == TRAINED else "67.1 against {} accuracy"
    one, each = ("-0.88", "-0.965") if group == TRAINED else ("65.6", "64.8")
    named = f"on {group} experts of {k} clusters, averaged, beat one for"
    return [
        Claim(f"C6 (all{on})", f"{named} all tasks", curve.format(one), _FEW, group, middle, "k=1"),
        Claim(
            f"C6 (each{on})", f"{named} each task", curve.format(each), _FEW, group, middle,
            f"k={most}" if most > k else "one expert for each task",
        ),
        Claim(
            f"C7 (MBC{on})", f"on {group} clusters by MBC beat those by embeddings", "66.7 against 66.1 accuracy",
            _BY_WEIGHTS, group, middle, "embeddings",
        ),
        Claim(
            f"C7 (random{on})", f"on {group} random clusters of tasks beat those of examples",
            "66.4 against 64.8 accuracy", _BY_TASKS, group, "random_tasks", "random_examples",
        ),
    ]  # fmt: skip


OF_COSINES = {
    ("random_examples", "random_tasks"): Said(
        "C7 (cosines)", "experts by random_examples are more alike than those by random_tasks",
        "mean cosines 0.82 and 0.58", _BY_TASKS,
    ),
    ("random_tasks", "mbc"): Said(
        "C7 (MBC's cosines)", "experts by random_tasks are more alike than those by mbc",
        "mean cosines 0.58 and 0.27", _BY_WEIGHTS,
    ),
}  # fmt: skip
"""What is claimed of the cosines of two ways to cluster."""


def of_ranks(group: str) -> Said:
    """Say what is claimed of the order of the ways."""
    on = "" if group == TRAINED else f" ({group})"
    paper = "cosines from 0.82 to 0.27, accuracy from 64.8 to 67.1"
    return Said(f"C17{on}", f"on {group} ways whose experts are less alike lose less", paper, _APART)
