"""One study, or all of the paper's, as the command line asks for them."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lorary.cli.application import or_list
from lorary.cli.options.completion import offer_methods
from lorary.cli.options.groups import Group
from lorary.cli.options.loading import Loading
from lorary.cli.options.parameters import method_option
from lorary.cli.options.workers import Workers
from lorary.cli.printing.console import print_json, say
from lorary.cli.printing.findings import print_costs, print_findings

if TYPE_CHECKING:
    from lorary.errors import LoraryError
    from lorary.studies.contract import Subject
    from lorary.studies.paper import Part

_PAPER = "paper"
StudySpec = Annotated[
    str,
    typer.Argument(
        metavar="SPEC",
        is_eager=True,
        callback=or_list("STUDIES"),
        autocompletion=offer_methods("STUDIES", _PAPER),
        help="Which study, e.g. upstream:steps=20 (`list` shows all), or paper: all of the paper's.",
    ),
]


@dataclass(frozen=True)
class Benchmarks(Group):
    """What is scored beside tasks."""

    benchmarks: Annotated[
        str | None,
        typer.Option(
            metavar="DIR", help="Directory of benchmarks, or hf://datasets, for studies that score them (zero_shot)."
        ),
    ] = None
    benchmark: Annotated[
        list[str] | None,
        method_option("--benchmark", "BENCHMARKS", "One of them, e.g. piqa (`list` shows all); repeatable."),
    ] = None

    def check(self) -> None:
        """Refuse names without data."""
        if self.benchmark and self.benchmarks is None:
            raise typer.BadParameter("say where their data is: --benchmarks DIR.", param_hint="--benchmark")

    def on(self, subject: "Subject") -> "Subject":
        """Read them, and give the subject with them."""
        from lorary.studies.subject import choose_benchmarks

        if self.benchmarks is None:
            return subject
        return replace(subject, benchmarks=choose_benchmarks(self.benchmarks, self.benchmark or ()))


@dataclass(frozen=True)
class Asked:
    """Which study, or all of the paper's. What a spec, a scale or seeds say wrong is refused at once."""

    spec: str
    scale: str | None = None
    seeds: Sequence[int] | None = None
    parts: "Sequence[Part]" = field(init=False)

    def __post_init__(self) -> None:
        """Make the studies."""
        from lorary.options import split_spec
        from lorary.studies.paper import Part, parts_of
        from lorary.studies.run_study import repeated
        from lorary.studies.scales import at_scale, seeds_at

        name, options = split_spec(self.spec)
        if name == _PAPER:
            parts = parts_of(self.scale, options)
        else:
            parts = [Part(name, at_scale(self.spec, self.scale), seeds_at(name, self.scale))]
        if self.seeds is not None:
            parts = [Part(part.name, part.study, self.seeds) for part in parts]
        for part in parts:
            repeated(part.study, part.seeds)
        object.__setattr__(self, "parts", parts)

    @property
    def is_paper(self) -> bool:
        """Whether all are asked for."""
        return self.spec.partition(":")[0].strip() == _PAPER


def print_plan(asked: Asked, subject: "Subject", base: str, json: bool) -> None:
    """Print what it will cost."""
    from lorary.building.estimate import recall_rate
    from lorary.model.base.outline import name_of, outline
    from lorary.studies.cost import foresee
    from lorary.studies.paper import foresee_paper
    from lorary.studies.scales import cut_to

    found, called = outline(base), name_of(base)
    if asked.is_paper:
        costs = foresee_paper(asked.parts, subject, found, called, asked.scale, _say_failed)
    else:
        (part,) = asked.parts
        costs = foresee(part.study, cut_to(subject, asked.scale), found, called, part.seeds)
    if found is None:
        say(f"Base {base!r} isn't on this machine: tokens are estimated from characters.")
    return print_costs(costs, recall_rate(called), json)


def _say_failed(name: str, error: "LoraryError") -> None:
    say(f"study {name} can't be run on this: {error}")


def run(asked: Asked, subject: "Subject", base: str, into: Path, how: Loading, workers: Workers, json: bool) -> None:
    """Run what is asked for, and print what came out."""
    from lorary.studies.paper import run_paper
    from lorary.studies.run_study import run_study
    from lorary.studies.scales import cut_to
    from lorary.studies.sharing.cpu_time import TIMES, cpu_seconds

    place = workers.place()
    more: dict[str, Any] = {"tell": say, "backend": place, "loading": how.options, "run": workers.run}
    if asked.is_paper:
        page = run_paper(asked.parts, subject, base, into=into, scale=asked.scale, on_failure=_say_failed, **more)
        return print_json({"report": str(page)}) if json else print((into / "paper.md").read_text(encoding="utf-8"))
    (part,) = asked.parts
    cut = cut_to(subject, asked.scale)
    part.study.plan(cut)
    done = run_study(part.study, cut, base, into=into, seeds=part.seeds, **more)
    hours = sum(cpu_seconds(into / TIMES).values()) / 3600
    say(f"{hours:.2f} processor hours in all.")
    return print_findings(done, json)
