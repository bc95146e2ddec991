"""What each way of building a library, and of adapting one to new tasks, gives for the same training."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lorary.adapters.contract import Mix
from lorary.building.builders.from_expert import FromExpert
from lorary.building.builders.lib_mu import LibMu
from lorary.building.builders.lib_poly import LibPoly
from lorary.building.builders.lib_polyz import LibPolyZ
from lorary.building.builders.lorahub import LoraHub
from lorary.building.builders.pi_tuning import PiTuning
from lorary.building.builders.private import Private
from lorary.building.builders.shared import Shared
from lorary.building.builders.ties import Ties
from lorary.building.builders.uniform import UniformMerge
from lorary.building.builders.weighted import Weighted
from lorary.building.contract import Builder
from lorary.building.limits import check_positive
from lorary.errors import OptionError, TaskError, known_names
from lorary.evaluation.evaluators.perplexity import Perplexity
from lorary.options import name_of
from lorary.routing.contract import find_router
from lorary.studies.comparing.stock import STARTS, StockStudy
from lorary.studies.contract import (
    TRAINED,
    UNSEEN,
    Build,
    Cell,
    Plan,
    Results,
    Subject,
    Verdict,
    file_name,
    judge,
)
from lorary.tasks.task import Tasks

_ADAPTED = "adapted"
_ROUTERS: Mapping[str, Sequence[str]] = {
    "private": ("uniform", "arrow", "oracle"),
    "gated": ("phatgoose",),
    "mbc": ("uniform", "arrow", "oracle"),
    "shared": ("uniform",),
    "poly": ("uniform", "arrow", "poly"),
    "mhr": ("uniform", "mhr"),
    "merge_uniform": ("uniform",),
    "merge_ties": ("uniform",),
    "merge_weighted": ("uniform",),
}
"""The libraries, and the routers that each is scored with."""
_START = {
    **STARTS,
    **dict.fromkeys(("merge_uniform", "merge_ties", "merge_weighted"), "private"),
}
"""The libraries that start from another."""
_ADAPTATIONS = ("private", "from_expert", "lib_mu", "pi_tuning", "lib_poly", "lib_polyz", "lorahub")


@dataclass(frozen=True, kw_only=True)
class BuilderStudy(StockStudy):
    """Compare all ways to build a library, and to adapt one to new tasks, at the same amount of training.

    Trained: new examples of the tasks that the libraries are built from. Unseen: the tasks held out, with the library
    as it is. Adapted: the same tasks, after a few examples of each were used. All by the loss on the right answer.
    Libraries: n_tasks * steps optimiser steps in all, whether the experts share them out (private), train one after the
    other, or are trained jointly (shared, poly, mhr); of mbc's, `first_share` go to the private experts that are
    clustered (2405.11157 Algorithm 1). So all see the same number of examples, and of tokens up to the draw. The gates
    of `gated`, the private experts once more, come on top: `steps` for each.
    Adaptation: `new_steps` per held-out task on its first n_few examples; methods that train all new tasks jointly get
    the sum. LoraHub tries as many mixtures of five examples as cost the same, a backward pass counted as two forward
    ones. Validation picks the better of the half-way and the last weights.
    """

    n_few: int = 16
    """Training examples of each held-out task to adapt to."""
    new_steps: int = 10
    """Optimiser steps for each held-out task."""
    n_score: int = 6
    """Test examples of each trained task to score."""
    n_score_new: int = 12
    """Test examples of each held-out task to score."""
    libraries: tuple[str, ...] = tuple(_ROUTERS)
    """The libraries to compare."""
    adaptations: tuple[str, ...] = _ADAPTATIONS
    """The builders that adapt a library to the held-out tasks; private starts from nothing."""

    def __post_init__(self) -> None:
        """Refuse options that have no meaning."""
        super().__post_init__()
        check_positive(self, "n_few", "new_steps", "n_score", "n_score_new")

    # ---- plan -------------------------------------------------------------------------------------

    def plan(self, subject: Subject) -> Plan:
        """List libraries and scores. Raises E-TASK for fewer than two tasks, E-OPTION for unknown libraries."""
        for option, known in (("libraries", tuple(_ROUTERS)), ("adaptations", _ADAPTATIONS)):
            for name in getattr(self, option):
                if name not in known:
                    raise OptionError("E-OPTION", f"study builders: {option}={name!r}.", known_names(name, known))
        if len(subject.tasks) < 2:
            found = f"{len(subject.tasks)} tasks to build from"
            raise TaskError("E-TASK", f"study builders: {found}, expected at least 2.", "Give more tasks.")
        few = Tasks(task.first(train=self.n_few, valid=8) for task in subject.heldout.values() if task.train)
        adapted = [one for one in self.adapted(tuple(few)) if name_of(one[2]) in self.adaptations] if few else []
        needed = {*self.libraries, *(origin for _, origin, _ in adapted)}
        needed |= {_START[name] for name in needed if name in _START}
        builds = [build for name, build in self._builds(subject.tasks).items() if name in needed]
        builds += [self._adaptation(*one, few, subject.tasks) for one in adapted]
        cells = [cell for name in self.libraries for cell in self._of_library(name, subject)]
        cells += [self._of_adapted(name, builder, few) for name, _, builder in adapted]
        return Plan(builds, [*self._cells("base", subject), *cells])

    def adapted(self, new: tuple[str, ...]) -> Iterator[tuple[str, str, Builder]]:
        """List the adaptations to new tasks: name, the library that it starts from (or none), options."""
        steps, joint = self.new_steps, len(new) * self.new_steps
        start: dict[str, Any] = {"patience": None}
        yield "private", "", self.made(Private, steps)
        yield "from_expert (shared)", "shared", self.made(FromExpert, steps, **start)
        yield "lib_mu (private)", "private", self.made(LibMu, steps, **start)
        yield "lib_mu (mbc)", "mbc", self.made(LibMu, steps, **start)
        neighbours = self.made(PiTuning, steps, **start, n_examples=self.n_few, adapt_to=new)
        yield "pi_tuning (private)", "private", neighbours
        yield "lib_poly (private)", "private", self.made(LibPoly, joint, **start)
        yield "lib_polyz (private)", "private", self.made(LibPolyZ, joint, **start)
        tries = 3 * self.new_steps * self.batch_size // 5
        yield "lorahub (private)", "private", LoraHub(steps=tries, n_examples=5, seed=self.seed)

    def _builds(self, tasks: Tasks) -> dict[str, Build]:
        merges = {name: Build(f"libs/{name}", builder, tasks, "libs/private") for name, builder in _merges(len(tasks))}
        return {**self.stock(tasks, (name for name in _ROUTERS if name not in merges)), **merges}

    def _adaptation(self, name: str, origin: str, builder: Builder, few: Tasks, tasks: Tasks) -> Build:
        path, source = f"adapted/{file_name(name)}", f"libs/{origin}" if origin else None
        if isinstance(builder, PiTuning):  # it embeds the library's experts by their own tasks
            return Build(path, builder, Tasks([*few.values(), *tasks.values()]), source, (self._alone(), few))
        if isinstance(builder, LoraHub):
            return Build(path, builder, few, source, (Private(steps=builder.steps, batch_size=builder.n_examples), few))
        joint = isinstance(builder, LibPoly | LibPolyZ) and self.made(Shared, builder.steps)
        return Build(path, builder, few, source, (joint or self._alone(), few))

    def _alone(self) -> Private:
        return self.made(Private, self.new_steps)

    # ---- scores -----------------------------------------------------------------------------------

    def _of_library(self, name: str, subject: Subject) -> Iterator[Cell]:
        for router in _ROUTERS[name]:
            mix: Mix | None = "outputs" if router == "phatgoose" else None  # as its authors do
            knows_task = "task" in find_router(router).needs
            for cell in self._cells(f"{name}, {router}", subject, knows_task):
                yield replace(cell, library=f"libs/{name}", router=router, mix=mix)

    def _of_adapted(self, name: str, builder: Builder, few: Tasks) -> Cell:
        router = "poly" if isinstance(builder, LibPoly | LibPolyZ) else "oracle"
        cell = self._cell(name, _ADAPTED, few, self.n_score_new)
        return replace(cell, library=f"adapted/{file_name(name)}", router=router)

    def _cells(self, name: str, subject: Subject, knows_task: bool = False) -> Iterator[Cell]:
        yield self._cell(name, TRAINED, subject.tasks, self.n_score)
        if subject.heldout and not knows_task:
            yield self._cell(name, UNSEEN, subject.heldout, self.n_score_new)

    def _cell(self, name: str, group: str, tasks: Tasks, limit: int) -> Cell:
        path = f"runs/{file_name(name)}.{file_name(group)}.jsonl"
        return Cell(path, name, group, Perplexity(), tasks, limit)

    # ---- verdict ----------------------------------------------------------------------------------

    def judge(self, results: Results) -> list[Verdict]:
        """Judge one expert per task and experts of clusters beside one for all, and a library as a start."""
        claims = (
            (TRAINED, "private, oracle", "shared, uniform", "The right one of private experts beats one shared expert"),
            (
                UNSEEN,
                "mbc, arrow",
                "shared, uniform",
                "On unseen tasks cluster experts by Arrow beat one shared expert",
            ),
            (_ADAPTED, "lib_poly (private)", "private", "To adapt a library beats training from scratch"),
        )
        found = [(results.get(group, {}), one, other, claim) for group, one, other, claim in claims]
        return [judge(claim, rows[one], rows[other]) for rows, one, other, claim in found if {one, other} <= {*rows}]


def _merges(n_experts: int) -> Iterator[tuple[str, Builder]]:
    """List the merges of the private library; a weight of 0.2 each was best for twelve experts (docs/log.md)."""
    yield "merge_uniform", UniformMerge()
    yield "merge_ties", Ties(rank=16)
    yield "merge_weighted", Weighted(weights=(0.2,) * n_experts)
