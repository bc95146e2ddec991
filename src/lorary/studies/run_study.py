"""Run a study, or the rest of it: build its libraries, score its cells, take its measures, write its page.

Every library, file of scores and measure is made once, so a study that was stopped resumes where it was.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorary import __version__
from lorary.disk.reading import absolute_name
from lorary.errors import OptionError
from lorary.evaluation.evaluate import check_tasks
from lorary.evaluation.scores import Scores, read_scores
from lorary.folder import STUDIES
from lorary.grid.evaluate_grid import carry_out
from lorary.model.base.base_model import BaseModel
from lorary.model.base.outline import name_of as name_of_base
from lorary.options import as_dict, name_of, require
from lorary.pages.files import check_page_place
from lorary.progress import Tell, unheard
from lorary.reporting.html import write_report
from lorary.reporting.table import Table
from lorary.studies.contract import Results, Study, Subject, Verdict
from lorary.studies.kept import read_kept
from lorary.studies.seeds import joined, judged_by_seed, over_seeds, require_seeds
from lorary.studies.sharing.making import Place
from lorary.studies.sharing.study_work import StudyWork
from lorary.work.backend import Backend, Order, new_run
from lorary.work.jobs import JobStep, Listener

REPORT = "report.html"


@dataclass(frozen=True)
class Finished:
    """What a study shows: its tables, what became of its claims, and the page that holds both."""

    tables: Sequence[Table]
    verdicts: Sequence[Verdict]
    report: Path


def run_study(
    study: Study | str,
    subject: Subject,
    base: BaseModel | str,
    *,
    into: Path | str,
    seeds: Sequence[int] | None = None,
    tell: Tell = unheard,
    backend: Backend | str | None = None,
    loading: Mapping[str, object] | None = None,
    run: str | None = None,
    shared: Path | str | None = None,
) -> Finished:
    """Build, score and judge all that a study plans, or the rest of it; `tell` hears what is being done.

    The same call makes the same files to the byte on one machine, however many workers share it (but for
    cpu_seconds.tsv): nothing that was timed decides how anything is computed.
    `base`: a loaded one, on which this process works alone, or a name, which each worker loads once with what `loading`
    holds of `load_base`'s arguments. `backend`: where workers run, as "local:workers=4"; by default on this machine.
    `seeds`: repeat the study with each; claims are then judged on each example's mean over the seeds. `run`: see
    `build_recipe`. `shared`: the directory of libraries that other studies of this subject and scale have in common
    with it. Raises E-OPTION for seeds that it can't take and for a backend with a loaded base, what `check_scorable`
    and the building and scoring raise, E-EXISTS for another's file in the place of the page, E-DISK, E-PERM.
    """
    study = STUDIES.parse(study) if isinstance(study, str) else study
    require("study", study, Study, "a study, as RoutingStudy()")
    into, repeats = Path(into), repeated(study, seeds)
    check_page_place(into / REPORT)
    check_scorable(study, subject, into, seeds)
    place = absolute_name(base) if isinstance(base, str) else base
    apart = None if shared is None else Path(shared).absolute()
    work = StudyWork(repeats, subject, into.absolute(), place, apart, dict(loading or {}))
    carry_out(Order(work, run or new_run(), _telling(tell)), base, backend)
    runs = {name: _results(one) for name, one in work.places.items()}
    return _shown(study, subject, base, into, runs)


def check_scorable(study: Study, subject: Subject, into: Path, seeds: Sequence[int] | None = None) -> None:
    """Refuse what couldn't be scored once all is built: examples that lack what a metric needs, code without a sandbox.

    What stands below `into` isn't scored again. Raises E-EVAL, E-SANDBOX, and what the plan raises.
    """
    seen = set[tuple[Any, int, int]]()
    for place, one in repeated(study, seeds).items():
        for cell in one.plan(subject).cells:
            this = (cell.evaluator, id(cell.tasks), cell.limit)
            if this not in seen and not (into / place / cell.path).exists():
                check_tasks(cell.evaluator, cell.tasks, cell.limit)
                seen.add(this)


def _telling(tell: Tell) -> Listener:
    """Make a listener that hears of jobs that are done; of many workers' only by what stands on disk."""

    def on_step(step: JobStep) -> None:
        if step.step == step.n_steps:
            tell(f"made {step.job}")

    return Listener.of(None, on_step, tell)


def _results(place: Place) -> Results:
    """Read what a plan gave."""
    found: dict[str, dict[str, list[Scores]]] = {}
    for cell in place.plan.cells:
        found.setdefault(cell.group, {}).setdefault(cell.name, []).append(read_scores(place.into / cell.path))
    scores = {group: {name: joined(parts) for name, parts in rows.items()} for group, rows in found.items()}
    return Results(scores, [{one.path: read_kept(one, place.into) for one in place.plan.measures}])


def _shown(study: Study, subject: Subject, base: BaseModel | str, into: Path, runs: Mapping[str, Results]) -> Finished:
    tables = [t for name, results in runs.items() for t in study.tables(results, _title(name) or name_of(study))]
    results = over_seeds(list(runs.values())) if len(runs) > 1 else next(iter(runs.values()))
    means = study.tables(results, f"mean of {len(runs)} seeds") if len(runs) > 1 else tables
    verdicts = judged_by_seed(study, results, list(runs.values()))
    report = write_report(
        into / REPORT,
        title=f"Study: {name_of(study)}",
        summary=[(type(study).__doc__ or "").partition("\n")[0], *map(str, verdicts)],
        tables=tables if means is tables else [*means, *tables],
        pictures=study.figures(results),
        provenance=_facts(study, subject, base, runs),
    )
    return Finished(tables if means is tables else [*tables, *means], verdicts, report)


def repeated(study: Study, seeds: Sequence[int] | None) -> dict[str, Study]:
    """Give the study with each of its seeds, by the directory of each. Raises E-OPTION for seeds it can't take."""
    name, has_seed = name_of(study), any(field.name == "seed" for field in dataclasses.fields(study))
    if seeds is None:
        return {f"seed{as_dict(study)['seed']}": study} if has_seed else {"": study}
    require_seeds(f"study {name}", seeds)
    if not has_seed:
        raise OptionError("E-OPTION", f"study {name}: it trains nothing, so it has no seeds.", "Leave them out.")
    varied: Any = study
    whole = dataclasses.replace(varied, seed=seeds[0])
    return {f"seed{seeds[0]}": whole, **{f"seed{seed}": study.repeat(seed) for seed in seeds[1:]}}


def _title(place: str) -> str:
    return place.replace("seed", "seed ")


def _facts(study: Study, subject: Subject, base: BaseModel | str, runs: Mapping[str, Results]) -> dict[str, Any]:
    return {
        "lorary": __version__,
        "base": _facts_of(base, runs),
        "options": as_dict(study),
        "seeds": [_title(name) for name in runs if name],
        "tasks": ", ".join(subject.tasks),
        "tasks held out": ", ".join(subject.heldout),
        "benchmarks": ", ".join(subject.benchmarks),
        "library": "" if subject.source is None else subject.source.hash,
    }


def _facts_of(base: BaseModel | str, runs: Mapping[str, Results]) -> dict[str, Any]:
    """Say what the base was; one that others loaded is known by what their scores say of it."""
    if isinstance(base, BaseModel):
        return {"name": base.name, **base.identity}
    models = [scores.header["model"] for run in runs.values() for rows in run.values() for scores in rows.values()]
    alone: dict[str, Any] = next((dict(model) for model in models if "router" not in model), {})
    return {"name": name_of_base(base), **alone}
