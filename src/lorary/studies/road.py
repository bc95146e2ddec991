"""The whole road: tasks and a base in, libraries, scores and a report out.

Private library -> MBC -> one expert per cluster; a shared expert beside it; every router on every library, on unseen
examples of the trained tasks and on tasks never trained on. Every step leaves a file and is skipped when that file is
there already, so a run that was interrupted or killed resumes.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorary.adapters.contract import Mix
from lorary.building.build import build
from lorary.building.builders.per_cluster import PerCluster
from lorary.building.builders.private import Private
from lorary.building.builders.shared import Shared
from lorary.building.clustering.cluster import cluster
from lorary.building.clustering.clusterers.mbc import MBC
from lorary.building.clustering.clusters import Clusters, read_clusters
from lorary.building.training.options import TrainingOptions
from lorary.errors import BuildError
from lorary.evaluation.contract import Evaluator, LanguageModel
from lorary.evaluation.evaluate import evaluate
from lorary.evaluation.evaluators.perplexity import Perplexity
from lorary.evaluation.evaluators.rouge_l import RougeL
from lorary.evaluation.scores import Scores
from lorary.library.library import Library
from lorary.model.base.base_model import BaseModel
from lorary.model.base.passes import PER_GENERATED, PER_TRAINED, count_passes
from lorary.model.routed.route import route
from lorary.model.text.tokens import encode
from lorary.options import as_dict, to_spec
from lorary.progress import Progress, Tell, unheard
from lorary.reporting.table import Table, make_table
from lorary.routing.routers.compass import Compass
from lorary.routing.routers.oracle import Oracle
from lorary.studies.contract import TRAINED, UNSEEN
from lorary.studies.stages import Stages
from lorary.tasks.task import Tasks

Show = Callable[[Table], None]
"""Is given results as soon as there are some."""

ROUTERS = {
    "uniform": "uniform",
    "tp": "task_predictor:n_examples={n}",
    "cm": "centroid:n_examples={n}",
    "arrow": "arrow",
    "compass": "compass",
    "oracle": "oracle",
}
"""The paper's names for its routers, and the compass, beside our specs of them."""


@dataclass(frozen=True)
class Road:
    """How long the road is. steps: per private expert, batches of `batch_size` examples.

    The cluster experts together see `joint_share` of the examples that the private experts saw, and so does the shared
    expert, in larger batches (2405.11157 Algorithm 1 splits a budget 40 to 60; here the private library is not cut
    short, so that it can be compared as well).
    n_score and n_answer: test examples per task for the loss and for Rouge-L. n_fit: training prompts per task for the
    routers that need data.
    """

    steps: int = 16
    batch_size: int = 8
    lr: float = 1e-3
    n_clusters: int = 4
    joint_share: float = 0.6
    n_score: int = 8
    n_answer: int = 5
    n_fit: int = 24
    max_new_tokens: int = 16
    mix: Mix = "factors"

    def private(self) -> Private:
        """Options of the private library."""
        return Private(steps=self.steps, batch_size=self.batch_size, **self._common())

    def joint_steps(self, n_tasks: int, n_experts: int) -> int:
        """Steps of one joint expert, so that all together see their share of examples."""
        return max(1, round(self.joint_share * self.steps * n_tasks / n_experts))

    def per_cluster(self, clusters: Clusters, n_tasks: int) -> PerCluster:
        """Options of the library of cluster experts."""
        steps = self.joint_steps(n_tasks, len(clusters))
        return PerCluster(clusters, steps=steps, batch_size=self.batch_size, **self._common())

    def shared(self, n_tasks: int) -> Shared:
        """Options of the shared expert: as many steps as a cluster expert, larger batches."""
        n = min(self.n_clusters, n_tasks)
        return Shared(steps=self.joint_steps(n_tasks, n), batch_size=self.batch_size * n, **self._common())

    def _common(self) -> dict[str, Any]:
        return {"lr": self.lr, "dropout": 0.0, "n_evaluations": 4, "max_valid": 16}


@dataclass(frozen=True)
class Walked:
    """What came out: libraries, clusters and scores by group of tasks."""

    libraries: Mapping[str, Library]
    clusters: Clusters
    runs: Mapping[str, Sequence[Scores]]

    @property
    def table(self) -> Table:
        """All scores."""
        return lay_out(self.runs)


def lay_out(runs: Mapping[str, Sequence[Scores]], title: str = "") -> Table:
    """Make the table of a road: loss and Rouge-L, on trained and on unseen tasks."""
    metrics = {scores.metric for group in runs.values() for scores in group}
    return make_table(runs, title=title, labels={m: _LABELS[method_of(m)] for m in metrics})


_LABELS = {"perplexity": "loss", "rouge_l": "Rouge-L"}


def method_of(spec: str) -> str:
    """Name the method of a spec, without its options."""
    return spec.partition(":")[0]


def walk(
    road: Road, base: BaseModel, tasks: Tasks, heldout: Tasks, into: Path,
    *, progress: Progress = unheard, tell: Tell = unheard, show: Show = unheard,
) -> Walked:  # fmt: skip
    """Go the whole road, or the rest of it. Raises E-ROAD for fewer than two tasks to build from.

    `progress` counts tokens passed through the base; a token that is trained on or generated counts for several.
    """
    if len(tasks) < 2 or not heldout:
        raise BuildError(
            "E-ROAD",
            f"{len(tasks)} tasks to build from and {len(heldout)} held out, expected at least 2 and 1.",
            "Give more tasks, or name other held-outs.",
        )
    return _Walk(road, base, tasks, heldout, into, show).go(progress, tell)


@dataclass
class _Walk:
    road: Road
    base: BaseModel
    tasks: Tasks
    heldout: Tasks
    into: Path
    show: Show

    def __post_init__(self) -> None:
        self.width = _typical_width(self.base, self.tasks)
        self.runs: dict[str, list[Scores]] = {TRAINED: [], UNSEEN: []}

    def go(self, progress: Progress, tell: Tell) -> Walked:
        self.stages = Stages(self._foreseen(), progress, tell)
        with count_passes(self.base, self.stages.pass_on):
            return self._go()

    def _go(self) -> Walked:
        self._score_all("base", self.base)
        private = self._build("private", self.road.private())
        libraries = {"private": private}
        self._score_library("private", private)
        self.show(lay_out(self.runs, "First results: base and private library"))
        clusters = self._cluster(private)
        libraries["mbc"] = self._build("mbc", self.road.per_cluster(clusters, len(self.tasks)))
        libraries["shared"] = self._build("shared", self.road.shared(len(self.tasks)))
        self._score_library("mbc", libraries["mbc"])
        with route(self.base, libraries["shared"], "uniform", mix=self.road.mix) as model:
            self._score_all("shared", model)
        return Walked(libraries, clusters, {group: _in_order(runs) for group, runs in self.runs.items()})

    # ---- building ---------------------------------------------------------------------------------

    def _build(self, name: str, builder: Private | PerCluster | Shared) -> Library:
        jobs = {job.name: job.n_steps for job in builder.plan(self.tasks)}
        work = {expert: self._training(builder, n_steps) for expert, n_steps in jobs.items()}

        def skip_done(_: object, done: Sequence[str]) -> None:
            self.stages.skip(sum(work[expert] for expert in done))

        what = f"training {name}: {len(jobs)} expert{'s' if len(jobs) > 1 else ''}"
        with self.stages.stage(what, sum(work.values())):
            return build(builder, self.tasks, self.base, into=self.into / "libs" / name, on_plan=skip_done)

    def _cluster(self, private: Library) -> Clusters:
        method = MBC(k=min(self.road.n_clusters, len(private)))
        path = self.into / "groups.json"
        self.stages.tell("clustering the private experts")
        if path.exists():
            known = read_clusters(path)
            if known.source == private.hash and known.method == as_dict(method):
                return known
        clusters = cluster(method, private)
        clusters.write(path)
        return clusters

    # ---- scoring ----------------------------------------------------------------------------------

    def _score_library(self, name: str, library: Library) -> None:
        for short, spec in ROUTERS.items():
            spec = spec.format(n=self.road.n_fit)
            with self.stages.stage(f"fitting {name}-{short}", self._fitting(short, len(library))):
                model = route(self.base, library, spec, mix=self.road.mix, tasks=self.tasks)
            with model:
                self._score_all(f"{name}-{short}", model, knows_task=isinstance(model.router, Oracle))

    def _score_all(self, name: str, model: LanguageModel, *, knows_task: bool = False) -> None:
        for group, evaluator, tasks, amount in self._measures(name):
            if group == UNSEEN and knows_task:
                continue  # no expert was trained on these tasks
            metric = method_of(to_spec(evaluator))
            path = self.into / "runs" / f"{name}.{'trained' if group == TRAINED else 'unseen'}.{metric}.jsonl"
            with self.stages.stage(f"scoring {name}: {_LABELS[metric]} on {group}", amount):
                self.runs[group].append(evaluate(evaluator, model, tasks, into=path, name=name))

    def _measures(self, name: str) -> Iterator[tuple[str, Evaluator, Tasks, float]]:
        """List group, evaluator, tasks and the amount of work of each."""
        r = self.road
        reading = self.width * (2 if name.endswith("-tp") else 1)  # the predictor has the base read first
        for group, tasks in ((TRAINED, self.tasks), (UNSEEN, self.heldout)):
            yield group, Perplexity(), _first(tasks, r.n_score), len(tasks) * r.n_score * reading
            work = len(tasks) * r.n_answer * (reading + PER_GENERATED * r.max_new_tokens)
            yield group, RougeL(max_new_tokens=r.max_new_tokens), _first(tasks, r.n_answer), work

    # ---- work ahead, in tokens passed forward once ------------------------------------------------

    def _foreseen(self) -> float:
        """Foresee all work."""
        r, n = self.road, len(self.tasks)
        k = min(r.n_clusters, n)
        shared = r.shared(n)
        work = n * self._training(r.private(), r.steps)
        work += k * self._training(shared, r.joint_steps(n, k), rows=r.batch_size)
        work += self._training(shared, r.joint_steps(n, k))
        for library, size in (("private", n), ("mbc", k)):
            for short in ROUTERS:
                work += self._fitting(short, size) + self._scoring(f"{library}-{short}")
        return work + self._scoring("base") + self._scoring("shared")

    def _scoring(self, name: str) -> float:
        return sum(work for group, *_, work in self._measures(name) if group == TRAINED or not name.endswith("-oracle"))

    def _training(self, builder: TrainingOptions, n_steps: int, rows: int | None = None) -> float:
        """Foresee what one expert costs: its steps, and its validations with the one before all."""
        n_valid = min(builder.max_valid, max(len(task.valid) for task in self.tasks.values()))
        validations = (1 + min(n_steps, builder.n_evaluations)) * n_valid
        return self.width * (PER_TRAINED * n_steps * (rows or builder.batch_size) + validations)

    def _fitting(self, router: str, n_experts: int) -> float:
        compass = Compass()
        return {
            "tp": len(self.tasks) * self.road.n_fit * self.width,
            "cm": n_experts * self.road.n_fit * self.width,
            "compass": compass.n_texts * compass.n_tokens * (PER_GENERATED + 1.0),
        }.get(router, 0.0)


def _first(tasks: Tasks, n: int) -> Tasks:
    return Tasks(task.first(test=n) for task in tasks.values())


def _typical_width(base: BaseModel, tasks: Tasks) -> float:
    examples = [e for task in tasks.values() for e in task.train[:20]]
    rows = encode(base.tokenizer, examples, max_tokens=base.max_tokens)
    return sum(map(len, rows)) / max(1, len(rows))


def _in_order(runs: Sequence[Scores]) -> list[Scores]:
    """Put the rows as a reader compares them: base, shared, private, mbc."""
    order = ["base", "shared", *(f"{library}-{router}" for library in ("private", "mbc") for router in ROUTERS)]
    return sorted(runs, key=lambda scores: order.index(scores.name))
