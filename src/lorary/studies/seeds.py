"""The seeds that a study is repeated with."""

from collections.abc import Sequence
from dataclasses import replace

from lorary.errors import OptionError
from lorary.evaluation.scores import Scores
from lorary.options import MAX_SEED, require_count
from lorary.studies.contract import Results


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
    """Average the scores of equal rows and groups; what was measured stands beside each other."""
    means = {
        group: {name: averaged([run[group][name] for run in runs]) for name in rows} for group, rows in runs[0].items()
    }
    return Results(means, [measured for run in runs for measured in run.measured])
