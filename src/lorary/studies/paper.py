"""All studies of the paper in their order, on one subject, and one page of what became of its claims."""

import dataclasses
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lorary import __version__
from lorary.disk.writing import ELSEWHERE, disk_errors, write_whole
from lorary.errors import LoraryError, OptionError, known_names
from lorary.folder import STUDIES
from lorary.model.base.base_model import BaseModel
from lorary.progress import Tell, unheard
from lorary.reporting.overview import Line, write_overview
from lorary.studies.contract import Study, Subject, Verdict
from lorary.studies.cost import Cost, foresee
from lorary.studies.run_study import REPORT, check_scorable, repeated, run_study
from lorary.studies.scales import at_scale, cut_to, seeds_at
from lorary.studies.sharing.cpu_time import TIMES, cpu_seconds
from lorary.work.backend import Backend

PAPER = "paper"
ORDER = (
    "similarity", "norms", "upstream", "clusters", "zero_shot", "sni", "adaptation", "ablations",
    "intrinsic_dimension",
)  # fmt: skip
"""The studies of the paper, in the order of issue and text; those that aren't installed are left out."""
FACTS, MARKDOWN = "paper.json", "paper.md"


@dataclass(frozen=True)
class Part:
    """One study of the paper, with the seeds that it is repeated with (None: its own one)."""

    name: str
    study: Study
    seeds: Sequence[int] | None


def parts_of(scale: str | None, options: Mapping[str, str] | None = None) -> list[Part]:
    """List the studies that are there, in order; `options` stand over the scale's, in each study that has them.

    Raises E-OPTION for an option that no study has.
    """
    given = dict(options or {})
    only = [name for name in given.pop("studies", "").strip("()[]").split(",") if name]
    for name in only:
        if name not in ORDER:
            raise OptionError("E-OPTION", f"study paper: studies={name!r}.", known_names(name, list(ORDER)))
    names = [name for name in ORDER if name in STUDIES.names() and (not only or name in only)]
    fields = {name: {one.name for one in dataclasses.fields(STUDIES.load(name))} for name in names}
    known = sorted(set[str]().union(*fields.values()))
    for key in given:
        if key not in known:
            raise OptionError("E-OPTION", f"study paper: unknown option {key!r}.", known_names(key, known))
    found = []
    for name in names:
        mine = ",".join(f"{key}={value}" for key, value in given.items() if key in fields[name])
        found.append(Part(name, at_scale(f"{name}:{mine}", scale), seeds_at(name, scale)))
    return found


Failed = Callable[[str, LoraryError], None]
"""Hears which study can't be run on a subject, and why."""
_NOT_ON_THIS = ("E-TASK", "E-SOURCE", "E-EXTRA")
"""What keeps one study from being run, and no other."""


def runnable(parts: Sequence[Part], cut: Subject, on_failure: Failed) -> list[Part]:
    """List the studies that can be planned on a subject; `on_failure` hears of the others.

    Raises what else their plans raise.
    """
    found = []
    for part in parts:
        try:
            part.study.plan(cut)
        except LoraryError as error:
            if error.code not in _NOT_ON_THIS:
                raise
            on_failure(part.name, error)
        else:
            found.append(part)
    return found


def sharing(parts: Sequence[Part], cut: Subject) -> set[str]:
    """Name the studies that have libraries in common: those that would build each such library as most of them do.

    A study that trains in another way than the others keeps all of its libraries to itself.
    """
    wanted: dict[str, dict[str, object]] = {}
    for part in parts:
        shared = [one for one in part.study.plan(cut).builds if one.is_shared and not callable(one.builder)]
        wanted[part.name] = {one.path: one.builder for one in shared}
    usual: dict[str, object] = {}
    for path in {path for builds in wanted.values() for path in builds}:
        usual[path] = Counter(builds[path] for builds in wanted.values() if path in builds).most_common(1)[0][0]
    return {name for name, builds in wanted.items() if all(usual[path] == one for path, one in builds.items())}


def foresee_paper(
    parts: Sequence[Part],
    subject: Subject,
    base: BaseModel | None,
    base_name: str,
    scale: str | None,
    on_failure: Failed | None = None,
) -> list[Cost]:
    """Foresee all studies; libraries that several have in common are counted once."""
    found: dict[str, Cost] = {}
    cut = cut_to(subject, scale)
    planned = runnable(parts, cut, on_failure or _ignore)
    together = sharing(planned, cut)
    for part in planned:
        shared = {
            f"{place}/{one.path}".removeprefix("/")
            for place, study in repeated(part.study, part.seeds).items()
            for one in study.plan(cut).builds
            if one.is_shared and part.name in together
        }
        for cost in foresee(part.study, cut, base, base_name, part.seeds):
            path = f"shared/{cost.path}" if cost.path in shared else f"{part.name}/{cost.path}"
            found.setdefault(path, dataclasses.replace(cost, path=path))
    return list(found.values())


def run_paper(
    parts: Sequence[Part],
    subject: Subject,
    base: BaseModel | str,
    *,
    into: Path | str,
    scale: str | None = None,
    tell: Tell = unheard,
    on_failure: Failed | None = None,
    backend: Backend | str | None = None,
    loading: Mapping[str, object] | None = None,
    run: str | None = None,
) -> Path:
    """Run the studies in their order, each in a directory of its name; after each, write the overview: its path.

    What several have in common is made once, in `shared`. Called again, it resumes. A study that can't be
    run on this subject keeps no other from being run; the overview says why, and `on_failure` hears it. Raises what
    `check_scorable` raises of any of them before the first is run.
    """
    into, cut = Path(into), cut_to(subject, scale)
    lines: list[Line] = []
    planned = runnable(parts, cut, _ignore)
    together = sharing(planned, cut)
    for part in planned:
        check_scorable(part.study, cut, into / part.name, part.seeds)
    page = into
    for n, part in enumerate(parts, start=1):
        tell(f"study {part.name}")
        try:
            done = run_study(
                part.study, cut, base, into=into / part.name, seeds=part.seeds, tell=tell, backend=backend,
                loading=loading, run=run,
                shared=into / "shared" if part.name in together else None,
            )  # fmt: skip
        except LoraryError as error:
            if error.code not in _NOT_ON_THIS:
                raise
            if on_failure:
                on_failure(part.name, error)
            lines.append(Line(part.name, f"{part.name}: not run", "", "", "can't tell", str(error.message)))
        else:
            lines += [_line(part.name, verdict) for verdict in done.verdicts]
        page = _write(into, lines, scale, cut, parts[:n], base)
    return page


def _ignore(name: str, error: LoraryError) -> None:
    """Say nothing: it is said once it is the study's turn."""


def _line(study: str, verdict: Verdict) -> Line:
    ours = verdict.numbers
    if verdict.interval is not None:
        value, low, high = verdict.interval
        ours = f"{value:+.3g} [{low:+.3g}, {high:+.3g}]" if low == low else f"{value:+.3g} [too few examples]"
    return Line(study, verdict.claim, verdict.paper, ours, verdict.outcome, verdict.meaning, verdict.numbers)


def _write(
    into: Path, lines: Sequence[Line], scale: str | None, subject: Subject, parts: Sequence[Part], base: BaseModel | str
) -> Path:
    hours = sum(sum(cpu_seconds(into / part.name / TIMES).values()) for part in parts) / 3600
    facts = {
        "lorary": __version__, "base": base if isinstance(base, str) else base.name, "scale": scale or "defaults",
        "tasks": len(subject.tasks), "tasks held out": len(subject.heldout), "benchmarks": list(subject.benchmarks),
        "studies": {part.name: {"report": f"{part.name}/{REPORT}"} for part in parts},
    }  # fmt: skip
    content = {"format": 1, **facts, "lines": [vars(line) for line in lines]}
    with disk_errors(repr(str(into)), ELSEWHERE):
        into.mkdir(parents=True, exist_ok=True)
        write_whole(into / FACTS, json.dumps(content, indent=1, ensure_ascii=False).encode() + b"\n")
    return write_overview(into, lines, {**facts, "processor hours": f"{hours:.2f}"}, MARKDOWN)
