"""The study of builders: what each way of building and of adapting gives for the same training, on the built-in tasks.

Three questions, one group of scores each. Trained: on new examples of the tasks the libraries were built from. Unseen:
on tasks never trained on, as the library is. Adapted: on the same tasks, after a few examples of each were used.
Every library and run is a file under one directory and is made once: a study that was stopped goes on.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lorary.adapters.contract import Mix
from lorary.building.build import build
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
from lorary.building.contract import Builder, JobStep
from lorary.evaluation.contract import LanguageModel
from lorary.evaluation.evaluators.perplexity import Perplexity
from lorary.evaluation.run import evaluate
from lorary.evaluation.scores import Scores
from lorary.library.library import Library
from lorary.model.base.base_model import BaseModel
from lorary.model.routed.route import route
from lorary.reporting.table import Table
from lorary.studies.road import TRAINED, UNSEEN, lay_out
from lorary.studies.seeds import require_seeds
from lorary.tasks.builtin import builtin_heldout, builtin_tasks
from lorary.tasks.task import Tasks

ADAPTED = "adapted"

RELATIVES = (
    "classify_sentiment", "classify_topic", "convert_digits", "convert_iso_date", "extract_order_number",
    "extract_person", "rewrite_negative", "rewrite_past",
)  # fmt: skip
"""The built-in tasks to build from: two relatives of each of the four that are held out."""

ROUTERS: Mapping[str, Sequence[str]] = {
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
"""Which routers speak with each library; those that know the task have no answer to unseen ones."""

KNOW_THE_TASK = ("oracle", "poly", "mhr")

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Budget:
    """How much training each method gets, counted in optimiser steps of `batch_size` examples.

    Libraries: n_tasks * steps in all, whether the experts share them out (private), train one after the other, or are
    trained jointly (shared, poly, mhr); of per_cluster's, `first_share` go to the private experts that are clustered
    (2405.11157 Algorithm 1). So all see the same number of examples, and of tokens up to the draw. The gates of
    `gated`, the private experts once more, come on top: `steps` for each.
    Adaptation: `new_steps` per new task on its first n_few examples; methods that train all new tasks jointly get the
    sum. LoraHub tries as many mixtures of five examples as cost the same, a backward pass counted as two forward ones.
    Validation picks the better of the half-way and the last weights. n_score, n_score_new: test examples per task.
    """

    steps: int = 10
    batch_size: int = 4
    lr: float = 2e-3
    n_clusters: int = 4
    first_share: float = 0.4
    n_few: int = 16
    new_steps: int = 10
    n_score: int = 6
    n_score_new: int = 12
    seed: int = 42

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
        left = n_tasks * (self.steps - self._first_steps)
        return PerCluster(groups, steps=max(1, round(left / len(groups))), **self.training)

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


def merges(n_experts: int) -> Iterator[tuple[str, Builder]]:
    """List the merges of the private library; a weight of 0.2 each was best for twelve experts (docs/log.md)."""
    yield "merge_uniform", UniformMerge()
    yield "merge_ties", Ties(rank=16)
    yield "merge_weighted", Weighted(weights=(0.2,) * n_experts)


def budgets(seeds: Sequence[int]) -> list[Budget]:
    """Make the budget of each seed of the training, before anything is loaded. Raises E-OPTION, also without seeds."""
    require_seeds("study builders", seeds)
    return [Budget(seed=seed) for seed in dict.fromkeys(seeds)]


def run_seeds(base: BaseModel, into: Path, tell: Tell, asked: Sequence[Budget]) -> list[Table]:
    """Run the study once for each budget, which differ in their seeds; gives their tables."""
    runs = {budget.seed: run_builders(base, into / f"seed{budget.seed}", tell, budget) for budget in asked}
    return [lay_out(groups, f"seed {seed}") for seed, groups in runs.items()]


def run_builders(
    base: BaseModel,
    into: Path,
    tell: Tell,
    budget: Budget | None = None,
    tasks: Tasks | None = None,
    heldout: Tasks | None = None,
) -> dict[str, list[Scores]]:
    """Build, adapt and score all, or the rest of it; gives the scores of each group.

    tasks, heldout: what to build from and what to adapt to; by default RELATIVES and the built-in tasks held out.
    """
    tasks, heldout = tasks or builtin_tasks().only(RELATIVES), heldout or builtin_heldout()
    return _Run(budget or Budget(), base, tasks, heldout, into, tell).go()


@dataclass
class _Run:
    budget: Budget
    base: BaseModel
    tasks: Tasks
    heldout: Tasks
    into: Path
    tell: Tell

    def go(self) -> dict[str, list[Scores]]:
        runs: dict[str, list[Scores]] = {TRAINED: [], UNSEEN: [], ADAPTED: []}
        libraries = dict(self._libraries())
        for group in (TRAINED, UNSEEN):
            runs[group].append(self._score("base", group, self.base))
        for name, library in libraries.items():
            for router in ROUTERS[name]:
                mix: Mix = "outputs" if router == "phatgoose" else _mix(library)  # as its authors do
                with route(self.base, library, router, mix=mix) as model:
                    for group in (TRAINED,) if router in KNOW_THE_TASK else (TRAINED, UNSEEN):
                        runs[group].append(self._score(f"{name}, {router}", group, model))
        runs[ADAPTED] = list(self._adapted(libraries))
        return runs

    # ---- building ---------------------------------------------------------------------------------

    def _libraries(self) -> Iterator[tuple[str, Library]]:
        private = self._build("private", self.budget.private())
        yield "private", private
        yield "gated", self._build("gated", self.budget.gates(), source=private)
        first = self._build("first", self.budget.first())
        groups = cluster(MBC(k=min(self.budget.n_clusters, len(first))), first)
        yield "mbc", self._build("mbc", self.budget.per_cluster(groups, len(self.tasks)))
        for name, builder in self.budget.joint(len(self.tasks)):
            yield name, self._build(name, builder)
        for name, builder in merges(len(private)):
            yield name, self._build(name, builder, source=private)

    def _build(self, name: str, builder: Builder, source: Library | None = None) -> Library:
        self.tell(f"building {name}")
        into = self.into / "libs" / name
        return build(builder, self.tasks, self.base, source=source, into=into, report=self._on_step)

    def _on_step(self, step: JobStep) -> None:
        if step.step == step.n_steps:
            self.tell(f"made {step.job}")

    # ---- adapting and scoring ---------------------------------------------------------------------

    def _adapted(self, libraries: Mapping[str, Library]) -> Iterator[Scores]:
        few = Tasks(task.first(train=self.budget.n_few, valid=8) for task in self.heldout.values())
        for name, origin, builder in self.budget.adapted(tuple(few)):
            self.tell(f"adapting: {name}")
            into, source = self.into / "adapted" / _file(name), libraries.get(origin)
            # pi-tuning embeds the library's experts by their own tasks.
            tasks = Tasks([*few.values(), *self.tasks.values()]) if isinstance(builder, PiTuning) else few
            library = build(builder, tasks, self.base, source=source, into=into, report=self._on_step)
            router = "poly" if isinstance(builder, LibPoly | LibPolyZ) else "oracle"
            with route(self.base, library, router, mix=_mix(library)) as model:
                yield self._score(name, ADAPTED, model)

    def _score(self, name: str, group: str, model: LanguageModel) -> Scores:
        self.tell(f"scoring {name} on {group}")
        tasks, n = (self.tasks, self.budget.n_score) if group == TRAINED else (self.heldout, self.budget.n_score_new)
        path = self.into / "runs" / f"{_file(name)}.{_file(group)}.jsonl"
        return evaluate(Perplexity(), model, tasks, into=path, name=name, limit=n)


def _file(name: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "_-" else "-" for letter in name)


def _mix(library: Library) -> Mix:
    """Mix factors, as the paper does, where all experts have one rank."""
    return "factors" if len({expert.rank for expert in library.values()}) == 1 else "outputs"
