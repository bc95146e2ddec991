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
from lorary.building.builders.mhr import MHR
from lorary.building.builders.per_cluster import PerCluster
from lorary.building.builders.phatgoose import Phatgoose
from lorary.building.builders.pi_tuning import PiTuning
from lorary.building.builders.poly import Poly
from lorary.building.builders.private import Private
from lorary.building.builders.shared import Shared
from lorary.building.builders.ties import Ties
from lorary.building.builders.uniform import UniformMerge
from lorary.building.builders.weighted import Weighted
from lorary.building.clustering.cluster import cluster
from lorary.building.clustering.clusterers.mbc import MBC
from lorary.building.clustering.clusters import Clusters
from lorary.building.contract import Builder
from lorary.building.limits import check_positive, check_share
from lorary.errors import BuildError, OptionError, known_names
from lorary.evaluation.evaluators.perplexity import Perplexity
from lorary.options import name_of
from lorary.routing.contract import find_router
from lorary.studies.contract import (
    TRAINED,
    UNSEEN,
    Bench,
    Build,
    Cell,
    Plan,
    Results,
    Study,
    Subject,
    Verdict,
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
    "gated": "private",
    "mbc": "first",
    **dict.fromkeys(("merge_uniform", "merge_ties", "merge_weighted"), "private"),
}
"""The libraries that start from another."""
_ADAPTATIONS = ("private", "from_expert", "lib_mu", "pi_tuning", "lib_poly", "lib_polyz", "lorahub")


@dataclass(frozen=True)
class BuilderStudy(Study):
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

    steps: int = 10
    """Optimiser steps for each task."""
    batch_size: int = 4
    """Examples in each step."""
    lr: float = 2e-3
    """Peak learning rate."""
    n_clusters: int = 4
    """Clusters of mbc, at most."""
    first_share: float = 0.4
    """Share of mbc's steps that goes to the private experts that are clustered."""
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
    seed: int = 42
    """Seed of all training."""

    def __post_init__(self) -> None:
        """Refuse options that have no meaning."""
        super().__post_init__()
        check_positive(self, "steps", "batch_size", "lr", "n_clusters", "n_few", "new_steps", "n_score", "n_score_new")
        check_share(self, "first_share")

    # ---- plan -------------------------------------------------------------------------------------

    def plan(self, subject: Subject) -> Plan:
        """List libraries and scores. Raises E-TASK for fewer than two tasks, E-OPTION for unknown libraries."""
        for option, known in (("libraries", tuple(_ROUTERS)), ("adaptations", _ADAPTATIONS)):
            for name in getattr(self, option):
                if name not in known:
                    raise OptionError("E-OPTION", f"study builders: {option}={name!r}.", known_names(name, known))
        if len(subject.tasks) < 2:
            found = f"{len(subject.tasks)} tasks to build from"
            raise BuildError("E-TASK", f"study builders: {found}, expected at least 2.", "Give more tasks.")
        few = Tasks(task.first(train=self.n_few, valid=8) for task in subject.heldout.values() if task.train)
        adapted = [one for one in self.adapted(tuple(few)) if name_of(one[2]) in self.adaptations] if few else []
        needed = {*self.libraries, *(origin for _, origin, _ in adapted)}
        needed |= {_START[name] for name in needed if name in _START}
        builds = [build for name, build in self._builds(subject.tasks).items() if name in needed]
        builds += [self._adaptation(*one, few, subject.tasks) for one in adapted]
        cells = [cell for name in self.libraries for cell in self._of_library(name, subject)]
        cells += [self._of_adapted(name, builder, few) for name, _, builder in adapted]
        return Plan(builds, [*self._cells("base", subject), *cells])

    @property
    def training(self) -> dict[str, Any]:
        """Options of everything that trains."""
        how_often = {"n_evaluations": 2, "max_valid": 8}
        return {"batch_size": self.batch_size, "lr": self.lr, "dropout": 0.0, "seed": self.seed, **how_often}

    def private(self) -> Private:
        """Options of the private library."""
        return Private(steps=self.steps, **self.training)

    def gates(self) -> Phatgoose:
        """Options of the private experts' gates, whose learning rate is their own."""
        options = {key: value for key, value in self.training.items() if key not in ("lr", "dropout")}
        return Phatgoose(steps=self.steps, **options)

    def first(self) -> Private:
        """Options of the shorter private experts that are clustered."""
        return replace(self.private(), steps=self._first_steps)

    def per_cluster(self, groups: Clusters, n_tasks: int) -> PerCluster:
        """Options of the cluster experts, which share out what the first ones left."""
        return PerCluster(groups, steps=self._cluster_steps(n_tasks, len(groups)), **self.training)

    def _cluster_steps(self, n_tasks: int, n_clusters: int) -> int:
        return max(1, round(n_tasks * (self.steps - self._first_steps) / n_clusters))

    @property
    def _first_steps(self) -> int:
        return max(1, round(self.first_share * self.steps))

    def joint(self, n_tasks: int) -> Iterator[tuple[str, Builder]]:
        """List the libraries that are trained on all tasks together."""
        more = {"steps": n_tasks * self.steps, **self.training}
        yield "shared", Shared(**more)
        yield "poly", Poly(n_skills=n_tasks, **more)
        yield "mhr", MHR(n_skills=n_tasks, **more)

    def adapted(self, new: tuple[str, ...]) -> Iterator[tuple[str, str, Builder]]:
        """List the adaptations to new tasks: name, the library that it starts from (or none), options."""
        each = {"steps": self.new_steps, **self.training}
        start = {**each, "patience": None}
        joint = {**start, "steps": len(new) * self.new_steps}
        yield "private", "", Private(**each)
        yield "from_expert (shared)", "shared", FromExpert(**start)
        yield "lib_mu (private)", "private", LibMu(**start)
        yield "lib_mu (mbc)", "mbc", LibMu(**start)
        yield "pi_tuning (private)", "private", PiTuning(**start, n_examples=self.n_few, adapt_to=new)
        yield "lib_poly (private)", "private", LibPoly(**joint)
        yield "lib_polyz (private)", "private", LibPolyZ(**joint)
        tries = 3 * self.new_steps * self.batch_size // 5
        yield "lorahub (private)", "private", LoraHub(steps=tries, n_examples=5, seed=self.seed)

    def _builds(self, tasks: Tasks) -> dict[str, Build]:
        n, gates = len(tasks), self.private()
        k = min(self.n_clusters, n)
        together = Shared(steps=k * self._cluster_steps(n, k), **self.training)

        def on_clusters(bench: Bench) -> Builder:
            return self.per_cluster(cluster(MBC(k=k), bench.libraries["libs/first"]), n)

        builders: dict[str, tuple[Any, tuple[Builder, Tasks] | None]] = {
            "private": (self.private(), None),
            "gated": (self.gates(), (gates, tasks)),
            "first": (self.first(), None),
            "mbc": (on_clusters, (together, tasks)),
            **{name: (builder, None) for name, builder in self.joint(n)},
            **{name: (builder, None) for name, builder in _merges(n)},
        }
        starts = {name: f"libs/{start}" for name, start in _START.items() if name != "mbc"}
        return {
            name: Build(f"libs/{name}", builder, tasks, starts.get(name), like)
            for name, (builder, like) in builders.items()
        }

    def _adaptation(self, name: str, origin: str, builder: Builder, few: Tasks, tasks: Tasks) -> Build:
        path, source = f"adapted/{_file(name)}", f"libs/{origin}" if origin else None
        if isinstance(builder, PiTuning):  # it embeds the library's experts by their own tasks
            return Build(path, builder, Tasks([*few.values(), *tasks.values()]), source, (self._alone(), few))
        if isinstance(builder, LoraHub):
            return Build(path, builder, few, source, (Private(steps=builder.steps, batch_size=builder.n_examples), few))
        joint = isinstance(builder, LibPoly | LibPolyZ) and Shared(steps=builder.steps, **self.training)
        return Build(path, builder, few, source, (joint or self._alone(), few))

    def _alone(self) -> Private:
        return Private(steps=self.new_steps, **self.training)

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
        return replace(cell, library=f"adapted/{_file(name)}", router=router)

    def _cells(self, name: str, subject: Subject, knows_task: bool = False) -> Iterator[Cell]:
        yield self._cell(name, TRAINED, subject.tasks, self.n_score)
        if subject.heldout and not knows_task:
            yield self._cell(name, UNSEEN, subject.heldout, self.n_score_new)

    def _cell(self, name: str, group: str, tasks: Tasks, limit: int) -> Cell:
        path = f"runs/{_file(name)}.{_file(group)}.jsonl"
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


def _file(name: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "_-" else "-" for letter in name)
