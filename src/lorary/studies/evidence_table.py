"""What came out of the study of evidence: gap closed, and how far from Arrow, on the tasks that chose nothing."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from lorary.evaluation.compare import Comparison, compare
from lorary.evaluation.evaluators.exact_match import ExactMatch
from lorary.evaluation.scores import Scores
from lorary.studies.evidence import Result
from lorary.studies.evidence_tasks import StudyTasks, halves


@dataclass(frozen=True)
class Line:
    """One router on one library. means: by part, as "trained report"; gap: share of the way from uniform to the oracle.

    against: by part, this router minus Arrow on the same examples, with its interval.
    """

    arm: str
    library: str
    router: str
    mix: str
    means: Mapping[str, float]
    gap: Mapping[str, float]
    against: Mapping[str, Comparison]


def make_lines(results: Iterable[Result], tasks: StudyTasks) -> list[Line]:
    """Put every router beside uniform, Arrow and the oracle of its own library, mix and metric, where they were run."""
    kept = [also for result in results for also in _with_accuracy(result)]
    found = {(_place(r), r.cell.router): _parts(r, tasks) for r in kept}
    return [_line(r, found[_place(r), r.cell.router], _rivals(found, _place(r))) for r in kept]


def _with_accuracy(result: Result) -> Iterator[Result]:
    """Let answers that were scored by Rouge-L be judged to the letter too."""
    yield result
    if result.cell.metric == "rouge_l":
        scores = {group: _judged(scores) for group, scores in result.scores.items()}
        yield Result(replace(result.cell, arm="answers, exact match", metric="exact_match"), scores)


def _judged(scores: Scores) -> Scores:
    judge = ExactMatch().judge
    outcomes = (replace(o, value=judge(o.details["prediction"], o.details["references"])) for o in scores.outcomes)
    return Scores({**scores.header, "metric": "exact_match", "options": {}}, tuple(outcomes))


Place = tuple[str, int, str, str]
Parts = Mapping[str, Scores]


def _rivals(found: Mapping[tuple[Place, str], Parts], place: Place) -> Mapping[str, Parts]:
    return {name: found.get((place, name), {}) for name in ("uniform", "oracle", "arrow")}


def _place(result: Result) -> Place:
    cell = result.cell
    return cell.pool, cell.size, cell.mix, cell.metric


def _line(result: Result, parts: Parts, rivals: Mapping[str, Parts]) -> Line:
    low, high, arrow = rivals["uniform"], rivals["oracle"], rivals["arrow"]
    gap = {
        name: (low[name].mean - scores.mean) / (low[name].mean - high[name].mean)
        for name, scores in parts.items()
        if name in low and name in high
    }
    against = {name: compare(scores, arrow[name]) for name, scores in parts.items() if name in arrow}
    cell = result.cell
    means = {name: scores.mean for name, scores in parts.items()}
    return Line(cell.arm, f"{cell.pool}-{cell.size}", cell.router, cell.mix, means, gap, against)


def _parts(result: Result, tasks: StudyTasks) -> Parts:
    """Cut a result into the halves that choose and report; tasks of another collection only report."""
    parts: dict[str, Scores] = {}
    order = {
        "trained": tasks.order[: result.cell.size],
        "unseen": tuple(tasks.unseen),
        "alike": tuple(tasks.alike),
    }
    for group, scores in result.scores.items():
        if group == "other":
            parts["other report"] = scores
            continue
        for half, names in halves(order[group]).items():
            if names:
                parts[f"{group} {half}"] = only(scores, names)
    return parts


def only(scores: Scores, names: Sequence[str]) -> Scores:
    """Keep the outcomes of some tasks."""
    header = {**scores.header, "tasks": {t: facts for t, facts in scores.header["tasks"].items() if t in names}}
    return Scores(header, tuple(outcome for outcome in scores.outcomes if outcome.task in names))


_HEADS = (
    "router", "trained, choose", "trained, report", "gap closed", "minus Arrow", "unseen, choose", "unseen, report",
    "minus Arrow", "alike, choose", "alike, report", "minus Arrow", "other, report", "minus Arrow",
)  # fmt: skip


def to_markdown(lines: Sequence[Line]) -> str:
    """Write a table for each arm, library and mix."""
    blocks = []
    lines = sorted(lines, key=lambda line: (line.library, line.arm, line.mix))  # stable: routers as they were run
    for (arm, library, mix), group in groupby(lines, key=lambda line: (line.arm, line.library, line.mix)):
        rows = [_HEADS, (":--", *["--:"] * (len(_HEADS) - 1)), *map(_row, group)]
        table = "\n".join("| " + " | ".join(row) + " |" for row in rows)
        blocks.append(f"### {arm}: {library}, mix of {mix}\n\n{table}\n")
    return "\n".join(blocks)


def _row(line: Line) -> tuple[str, ...]:
    def mean(name: str) -> str:
        return f"{line.means[name]:.3f}" if name in line.means else "–"

    def minus(name: str) -> str:
        found = line.against.get(name)
        return "–" if found is None else f"{found.difference:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"

    gap = line.gap.get("trained report")
    return (
        f"`{line.router}`", mean("trained choose"), mean("trained report"), "–" if gap is None else f"{gap:.0%}",
        minus("trained report"), mean("unseen choose"), mean("unseen report"), minus("unseen report"),
        mean("alike choose"), mean("alike report"), minus("alike report"), mean("other report"), minus("other report"),
    )  # fmt: skip
