"""What came out of the study of evidence: gap closed, and how far from Arrow, on the tasks that chose nothing."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from evidence_runs import BASELINES, COMPASS, Cell, Result
from evidence_tasks import StudyTasks, halves

from lorary.evaluation.compare import Comparison, compare
from lorary.evaluation.evaluators.exact_match import ExactMatch
from lorary.evaluation.scores import Scores
from lorary.studies.seeds import averaged


@dataclass(frozen=True)
class Line:
    """One router on one library. means: by part, as "trained report"; gap: share of the way from uniform to the oracle.

    against: by rival and part, this router minus Arrow on the same examples; the compass minus each baseline.
    """

    arm: str
    library: str
    router: str
    mix: str
    means: Mapping[str, float]
    gap: Mapping[str, float]
    against: Mapping[str, Mapping[str, Comparison]]


def make_lines(results: Iterable[Result], tasks: StudyTasks) -> list[Line]:
    """Put every router beside uniform, Arrow and the oracle of its own library, mix and metric, where they were run.

    What was run with several seeds comes once more, behind the others, each example's value averaged over them.
    """
    kept = [also for result in results for also in _with_accuracy(result)]
    kept += _over_seeds(kept)
    found = {(_place(r), r.cell.router): _parts(r, tasks) for r in kept}
    return [_line(r, found[_place(r), r.cell.router], _beside(found, _place(r))) for r in kept]


def _with_accuracy(result: Result) -> Iterator[Result]:
    """Let answers that were scored by Rouge-L be judged to the letter too."""
    yield result
    if result.cell.metric == "rouge_l":
        scores = {group: _judged(scores) for group, scores in result.scores.items()}
        yield Result(replace(result.cell, arm="answers, exact match", metric="exact_match"), scores)


def _judged(scores: Scores) -> Scores:
    method = ExactMatch(normalise="bbh")  # the rule of the numbers that docs/evidence.md shows
    outcomes = (
        replace(o, value=method.judge(o.details["prediction"], o.details["references"])) for o in scores.outcomes
    )
    return Scores(
        {**scores.header, "metric": "exact_match", "options": {"normalise": method.normalise}}, tuple(outcomes)
    )


def _over_seeds(results: Sequence[Result]) -> Iterator[Result]:
    alike: dict[Cell, list[Result]] = {}
    for result in results:
        if result.cell.pool.startswith("seed"):
            alike.setdefault(replace(result.cell, pool=""), []).append(result)
    for cell, found in alike.items():
        if len(found) > 1:
            pool = "seeds" + "+".join(result.cell.pool.removeprefix("seed") for result in found)
            scores = {group: averaged([result.scores[group] for result in found]) for group in found[0].scores}
            yield Result(replace(cell, pool=pool), scores)


Place = tuple[str, int, str, str]
Parts = Mapping[str, Scores]


def _beside(found: Mapping[tuple[Place, str], Parts], place: Place) -> Mapping[str, Parts]:
    return {router: parts for (where, router), parts in found.items() if where == place}


def _place(result: Result) -> Place:
    cell = result.cell
    return cell.pool, cell.size, cell.mix, cell.metric


def _line(result: Result, parts: Parts, beside: Mapping[str, Parts]) -> Line:
    low, high = beside.get("uniform", {}), beside.get("oracle", {})
    gap = {
        name: (low[name].mean - scores.mean) / (low[name].mean - high[name].mean)
        for name, scores in parts.items()
        if name in low and name in high and low[name].mean != high[name].mean
    }
    cell = result.cell
    rivals = BASELINES if cell.router == COMPASS else ("arrow",)
    against = {router: _against(parts, beside[router]) for router in rivals if router in beside}
    means = {name: scores.mean for name, scores in parts.items()}
    return Line(cell.arm, f"{cell.pool}-{cell.size}", cell.router, cell.mix, means, gap, against)


def _against(parts: Parts, other: Parts) -> Mapping[str, Comparison]:
    return {name: compare(scores, other[name]) for name, scores in parts.items() if name in other}


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
        blocks.append(_table(f"{arm}: {library}, mix of {mix}", _HEADS, list(map(_row, group))))
    return "\n".join(blocks)


def summarise(lines: Sequence[Line]) -> str:
    """Write what the compass comes to: gap closed in all libraries beside Arrow, and how far it is from each router."""
    return "\n".join(filter(None, (_of_libraries(lines), _of_rivals(lines))))


def _of_libraries(lines: Sequence[Line]) -> str:
    found = {(line.library, line.router): line for line in lines if line.arm == "routers"}
    heads, rows = ("library", "Arrow", "compass", *(f"{group}, minus Arrow" for group in _NEVER)), []
    for library in dict.fromkeys(library for library, _ in found):
        arrow, compass = found.get((library, "arrow")), found.get((library, COMPASS))
        if arrow and compass:
            minus = (_minus(compass, f"{group} report") for group in _NEVER)
            rows.append((library, _gap(arrow), _gap(compass), *minus))
    return _table("all libraries, the halves that report", heads, rows)


def _of_rivals(lines: Sequence[Line]) -> str:
    parts = [f"{group} report" for group in ("trained", *_NEVER)]
    heads, rows = ("library", "compass minus", "trained", *_NEVER), []
    for line in (line for line in lines if line.arm == "routers" and line.router == COMPASS):
        rows += [(line.library, f"`{rival}`", *(_minus(line, part, rival) for part in parts)) for rival in line.against]
    return _table("the compass beside every other router, the halves that report", heads, rows, n_names=2)


def _table(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]], n_names: int = 1) -> str:
    """Write a table, its first columns to the left; nothing for no rows."""
    aligned = [":--"] * n_names + ["--:"] * (len(heads) - n_names)
    body = "\n".join("| " + " | ".join(row) + " |" for row in (heads, aligned, *rows))
    return f"### {title}\n\n{body}\n" if rows else ""


_NEVER = ("unseen", "alike", "other")


def _minus(line: Line, part: str, rival: str = "arrow") -> str:
    found = line.against.get(rival, {}).get(part)
    if found is None:
        return "–"
    interval = "too few examples" if math.isnan(found.low) else f"{found.low:+.3f}, {found.high:+.3f}"
    return f"{found.difference:+.3f} [{interval}]"


def _gap(line: Line) -> str:
    gap = line.gap.get("trained report")
    return "–" if gap is None else f"{gap:.0%}"


def _row(line: Line) -> tuple[str, ...]:
    def mean(name: str) -> str:
        return f"{line.means[name]:.3f}" if name in line.means else "–"

    return (
        f"`{line.router}`", mean("trained choose"), mean("trained report"), _gap(line), _minus(line, "trained report"),
        mean("unseen choose"), mean("unseen report"), _minus(line, "unseen report"),
        mean("alike choose"), mean("alike report"), _minus(line, "alike report"),
        mean("other report"), _minus(line, "other report"),
    )  # fmt: skip
