"""Run a study, or the rest of it: build its libraries, score its cells, take its measures, write its page.

Every library, file of scores and measure is made once, so a study that was stopped resumes where it was.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from lorary import __version__
from lorary.adapters.contract import Mix
from lorary.adapters.mixing.tuning import nothing_measured
from lorary.building.build import build
from lorary.building.contract import Builder, JobStep
from lorary.errors import OptionError
from lorary.evaluation.contract import LanguageModel
from lorary.evaluation.run import evaluate
from lorary.evaluation.scores import Scores
from lorary.folder import STUDIES
from lorary.library.library import Library
from lorary.model.base.base_model import BaseModel
from lorary.model.routed.route import route
from lorary.model.text.batching import tokens_at_once
from lorary.options import as_dict, name_of, require
from lorary.reporting.html import check_page_place, write_report
from lorary.reporting.table import Table
from lorary.studies.contract import GIVEN, Bench, Build, Cell, Measure, Results, Study, Subject, Verdict
from lorary.studies.kept import kept
from lorary.studies.seeds import over_seeds, require_seeds

Tell = Callable[[str], None]
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
    base: BaseModel,
    *,
    into: Path | str,
    seeds: Sequence[int] | None = None,
    tell: Tell = lambda what: None,
) -> Finished:
    """Build, score and judge all that a study plans, or the rest of it; `tell` hears what is being done.

    The same call makes the same files to the byte on one machine: nothing that was timed decides how anything is
    computed. `seeds`: repeat the study with each; claims are then judged on each example's mean over the seeds.
    Raises E-OPTION for seeds that it can't take, what its plan and the building and scoring raise, E-EXISTS for
    another's file in the place of the page, E-DISK, E-PERM.
    """
    study = STUDIES.parse(study) if isinstance(study, str) else study
    require("study", study, Study, "a study, as RoutingStudy()")
    into, repeats = Path(into), repeated(study, seeds)
    check_page_place(into / REPORT)
    with _steady(base):
        runs = {place: _run(one, subject, base, into / place, tell) for place, one in repeats.items()}
    tables = [t for place, results in runs.items() for t in study.tables(results, _title(place) or name_of(study))]
    results = over_seeds(list(runs.values())) if len(runs) > 1 else next(iter(runs.values()))
    means = study.tables(results, f"mean of {len(runs)} seeds") if len(runs) > 1 else tables
    verdicts = study.judge(results)
    report = write_report(
        into / REPORT,
        title=f"Study: {name_of(study)}",
        summary=[(type(study).__doc__ or "").partition("\n")[0], *map(str, verdicts)],
        tables=tables if means is tables else [*means, *tables],
        pictures=study.figures(results),
        provenance=_facts(study, subject, base, list(repeats)),
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
    return {f"seed{seed}": dataclasses.replace(varied, seed=seed) for seed in seeds}


def _title(place: str) -> str:
    return place.replace("seed", "seed ")


def _facts(study: Study, subject: Subject, base: BaseModel, places: Sequence[str]) -> dict[str, Any]:
    return {
        "lorary": __version__,
        "base": {"name": base.name, **base.identity},
        "options": as_dict(study),
        "seeds": [_title(place) for place in places if place],
        "tasks": ", ".join(subject.tasks),
        "tasks held out": ", ".join(subject.heldout),
        "library": "" if subject.source is None else subject.source.hash,
    }


@contextmanager
def _steady(base: BaseModel) -> Iterator[None]:
    """Let nothing that is measured or free just now decide how anything is computed."""
    before = base.batch_tokens
    base.batch_tokens = before or tokens_at_once(base, steady=True)
    try:
        with nothing_measured():
            yield
    finally:
        base.batch_tokens = before


def _run(study: Study, subject: Subject, base: BaseModel, into: Path, tell: Tell) -> Results:
    plan = study.plan(subject)
    bench = Bench(base, {} if subject.source is None else {GIVEN: subject.source})
    for one in plan.builds:
        bench = _measure([m for m in plan.measures if m.path in one.after], bench, into, tell)
        bench = dataclasses.replace(bench, libraries={**bench.libraries, one.path: _build(one, bench, into, tell)})
    results: dict[str, dict[str, Scores]] = {}
    for cell, scores in zip(plan.cells, score_all(plan.cells, bench.libraries, base, into, tell), strict=True):
        results.setdefault(cell.group, {})[cell.name] = scores
    return Results(results, [_measure(plan.measures, bench, into, tell).measured])


def _build(one: Build, bench: Bench, into: Path, tell: Tell) -> Library:
    def on_step(step: JobStep) -> None:
        if step.step == step.n_steps:
            tell(f"made {step.job}")

    tell(f"building {Path(one.path).name}")
    builder = one.builder if isinstance(one.builder, Builder) else one.builder(bench)
    source = None if one.source is None else bench.libraries[one.source]
    return build(builder, one.tasks, bench.base, source=source, into=into / one.path, report=on_step)


def _measure(measures: Sequence[Measure], bench: Bench, into: Path, tell: Tell) -> Bench:
    """Take the measures that aren't there yet, in their order; gives the bench with all of them."""
    for one in measures:
        if one.path not in bench.measured:
            tell(f"measuring {Path(one.path).stem}")
            bench = dataclasses.replace(bench, measured={**bench.measured, one.path: kept(one, bench, into)})
    return bench


# ---- scoring ------------------------------------------------------------------------------------


def score_all(
    cells: Sequence[Cell], libraries: Mapping[str, Library], base: BaseModel, into: Path, tell: Tell
) -> Iterator[Scores]:
    """Score cells in their order; neighbours of one library, router and mix share a routed model."""
    for _, alike in groupby(cells, key=lambda cell: (cell.library, cell.router, cell.mix, id(cell.fit))):
        same = list(alike)
        with _model(same[0], libraries, base) as model:
            for cell in same:
                tell(f"scoring {cell.name} on {cell.group}")
                path = into / cell.path
                yield evaluate(cell.evaluator, model, cell.tasks, into=path, name=cell.name, limit=cell.limit)


def _model(cell: Cell, libraries: Mapping[str, Library], base: BaseModel) -> AbstractContextManager[LanguageModel]:
    if cell.library is None:
        return nullcontext(base)
    library = libraries[cell.library]
    return route(base, library, cell.router, mix=cell.mix or _usual_mix(library), tasks=cell.fit)


def _usual_mix(library: Library) -> Mix:
    """Mix factors, as the paper does, where all experts have one rank."""
    return "factors" if len({expert.rank for expert in library.values()}) == 1 else "outputs"
