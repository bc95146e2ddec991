"""Scores on benchmarks: a row for each model, which ends with the mean."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lorary.cli.printing.console import print_json, print_table, say

if TYPE_CHECKING:
    from lorary.evaluation.benchmarking.contract import Exam
    from lorary.evaluation.scores import Scores


def print_benchmarks(runs: "Sequence[tuple[Path, Scores]]", exams: "Sequence[Exam]", place: str, *, json: bool) -> None:
    """Print a table of models by benchmarks; the last column is the plain mean over them."""
    by_model = [runs[start : start + len(exams)] for start in range(0, len(runs), len(exams))]
    if json:
        return print_json({"models": [_plain(model, exams) for model in by_model]})
    for line in _left_out(exams, place):
        say(line)
    titles = Counter(exam.title for exam in exams)
    heads = [exam.title if titles[exam.title] == 1 else exam.name for exam in exams]
    rows = [["", *heads, f"mean of {len(exams)}"]]
    for model in by_model:
        scores = [one for _, one in model]
        rows.append([scores[0].name, *(f"{one.mean:.1f}" for one in scores), _mean_in_words(scores)])
    return print_table(rows)


def _mean_in_words(scores: "Sequence[Scores]") -> str:
    found = _mean(scores)
    return "-" if found is None else f"{found['mean']:.1f} [{found['low']:.1f}, {found['high']:.1f}]"


def _mean(scores: "Sequence[Scores]") -> dict[str, float] | None:
    """Average, unless a benchmark counts in another unit."""
    from lorary.evaluation.benchmarking.mean import mean_over

    if len({(one.unit, one.higher_is_better) for one in scores}) > 1:
        return None
    found = mean_over(scores)
    return {"mean": found.mean, "low": found.low, "high": found.high}


def _plain(model: "Sequence[tuple[Path, Scores]]", exams: "Sequence[Exam]") -> dict[str, Any]:
    scores = [one for _, one in model]
    each = {
        exam.name: {"run": str(path), "mean": one.mean, "unit": one.unit, "n_examples": len(one.outcomes)}
        for exam, (path, one) in zip(exams, model, strict=True)
    }
    return {"name": scores[0].name, "benchmarks": each, **(_mean(scores) or {})}


def _left_out(exams: "Sequence[Exam]", place: str) -> list[str]:
    """Say which benchmarks there are that weren't scored, so that nobody takes this mean for that of all."""
    from lorary.folder import BENCHMARKS

    here = {exam.name.partition(":")[0] for exam in exams}
    missing = [name for name in BENCHMARKS.names() if name not in here]
    return [f"not scored, of the benchmarks there are: {', '.join(missing)}"] if missing else []
