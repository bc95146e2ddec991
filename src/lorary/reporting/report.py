"""Runs of scores, whatever they are, on one page."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from lorary.evaluation.scores import Scores
from lorary.hashing import hash_json
from lorary.options import require
from lorary.reporting.figure import draw_scores
from lorary.reporting.html import write_report
from lorary.reporting.table import make_table


def report(
    runs: Sequence[Scores], into: str | Path, *, title: str = "Scores", png_dir: str | Path | None = None
) -> Path:
    """Write one table and one figure of runs; runs on the same test examples share a group of columns.

    Raises E-REPORT without runs, and if two runs with one name and one metric scored the same examples; E-OPTION for
    what is no run.
    """
    require("runs", runs, (list, tuple), "a list of scores")
    for run in runs:
        require("run", run, Scores, "scores", "evaluate() gives them, `lorary report` reads files of them.")
    groups = _by_tasks(runs)
    table = make_table(groups)
    n_called = Counter((run.name, run.metric) for run in runs)
    provenance = {
        f"{run.name}, {run.metric}" + (f", {label}" if n_called[run.name, run.metric] > 1 else ""): run.header["model"]
        for label, group in groups.items()
        for run in group
    }
    return write_report(
        into, title=title, tables=[table], pictures=[draw_scores(table)], provenance=provenance, png_dir=png_dir
    )


def _by_tasks(runs: Sequence[Scores]) -> dict[str, list[Scores]]:
    """Group runs by their test examples; a group bears the names of its tasks, and a number if that's not unique."""
    by_hash: dict[str, list[Scores]] = {}
    for run in runs:
        by_hash.setdefault(hash_json(run.header["tasks"]), []).append(run)
    groups: dict[str, list[Scores]] = {}
    for group in by_hash.values():
        tasks = list(group[0].header["tasks"])
        label = ", ".join(tasks[:3]) + (", …" if len(tasks) > 3 else "")
        while label in groups:
            label += f" ({len(groups) + 1})"
        groups[label] = group
    return groups
