"""The seeds that a study is repeated with."""

from collections.abc import Sequence
from dataclasses import replace

from lorary.errors import OptionError
from lorary.evaluation.scores import Scores
from lorary.options import MAX_SEED, require_count
from lorary.studies.contract import Results, Study, Verdict


def require_seeds(what: str, seeds: Sequence[int]) -> None:
    """Refuse seeds that some step of a study would refuse, hours later. Raises E-OPTION, also if there are none."""
    if not seeds:
        raise OptionError("E-OPTION", f"{what}: there are no seeds.", "Give at least one, as 42.")
    for seed in seeds:
        require_count(f"{what}: seed", seed, least=0)
        if seed > MAX_SEED:
            raise OptionError("E-OPTION", f"{what}: seed={seed}, expected at most {MAX_SEED}.")


def averaged(several: Sequence[Scores]) -> Scores:
    """Average each example's value; who bootstraps then draws examples, and keeps the seeds as it keeps the tasks."""
    rows = zip(*(scores.outcomes for scores in several), strict=True)
    means = (replace(row[0], value=sum(o.value for o in row) / len(row), details={}) for row in rows)
    return Scores(several[0].header, tuple(means))


def over_seeds(runs: Sequence[Results]) -> Results:
    """Average the scores of equal rows and groups, as many as there are; what was measured stands beside each other.

    The first run has all rows; the others those that are repeated.
    """
    means = {
        group: {name: averaged([run[group][name] for run in runs if name in run.get(group, {})]) for name in rows}
        for group, rows in runs[0].items()
    }
    return Results(means, [measured for run in runs for measured in run.measured])


def judged_by_seed(study: Study, results: Results, runs: Sequence[Results]) -> list[Verdict]:
    """Judge the means over the seeds; a claim whose sign the seeds don't agree on can't be told."""
    verdicts = study.judge(results)
    if len(runs) < 2:
        return verdicts
    by_claim: dict[str, list[float]] = {}
    for run in runs:
        for verdict in study.judge(run):
            if verdict.interval is not None:
                by_claim.setdefault(verdict.claim, []).append(verdict.interval[0])
    return [_with_seeds(verdict, by_claim.get(verdict.claim, [])) for verdict in verdicts]


def _with_seeds(verdict: Verdict, differences: Sequence[float]) -> Verdict:
    if not differences:
        return verdict
    said = ", ".join(f"{difference:+.3g}" for difference in differences)
    agree = min(differences) > 0 or max(differences) < 0
    note = "" if agree else " The seeds don't agree."
    return replace(
        verdict, holds=verdict.holds if agree else None, numbers=f"{verdict.numbers} By seed: {said}.{note}".lstrip()
    )


def joined(parts: Sequence[Scores]) -> Scores:
    """Join scores on different tasks, by one metric or in one unit, into those of one row."""
    if len(parts) == 1:
        return parts[0]
    first = parts[0].header
    metrics = {scores.metric for scores in parts}
    metric = {"metric": "score", "options": {}} if len(metrics) > 1 else {}
    tasks = {name: facts for scores in parts for name, facts in scores.header["tasks"].items()}
    outcomes = sorted((o for scores in parts for o in scores.outcomes), key=lambda o: (o.task, o.index))
    return Scores({**first, **metric, "tasks": dict(sorted(tasks.items()))}, tuple(outcomes))
