"""The whole road: tasks and a base in, libraries, scores and a report out.

Private library -> MBC -> one expert per cluster; a shared expert beside it; every router on every library, on unseen
examples of the trained tasks and on tasks never trained on. Every step leaves a file and is skipped when that file is
there already, so a run that was interrupted or killed goes on where it was.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from lorary.adapters.base import Mix
from lorary.building.base import JobStep
from lorary.building.builders.per_cluster import PerCluster
from lorary.building.builders.private import Private
from lorary.building.builders.shared import Shared
from lorary.building.cluster import cluster
from lorary.building.clusterers.mbc import MBC
from lorary.building.clusters import Clusters, read_clusters
from lorary.building.jobs import build
from lorary.building.training import TrainedBuilder
from lorary.errors import BuildError
from lorary.evaluation.base import Evaluator, LanguageModel
from lorary.evaluation.evaluators.perplexity import Perplexity
from lorary.evaluation.evaluators.rouge_l import RougeL
from lorary.evaluation.run import evaluate
from lorary.evaluation.scores import Scores
from lorary.library.library import Library
from lorary.model.base_model import BaseModel
from lorary.model.route import route
from lorary.options import as_dict, to_spec
from lorary.reporting.table import Table, make_table
from lorary.routing.routers.oracle import Oracle
from lorary.tasks.task import Tasks

TRAINED = "trained tasks"
UNSEEN = "unseen tasks"

ROUTERS = {
    "uniform": "uniform",
    "tp": "task_predictor:n_examples={n}",
    "cm": "centroid:n_examples={n}",
    "arrow": "arrow",
    "compass": "compass",
    "oracle": "oracle",
}
"""The paper's names for its routers, and the compass, beside our specs of them."""


class Watcher(Protocol):
    """Who is told how far the road is: a progress bar, or nobody."""

    def begin(self, total: float) -> None:
        """Hear how much work there is, in tokens passed forward once."""

    def doing(self, what: str) -> None:
        """Hear what is being done now."""

    def advance(self, amount: float) -> None:
        """Hear that some of the work is done, or was done before."""

    def show(self, table: Table) -> None:
        """Be given results as soon as there are some."""


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


def walk(road: Road, base: BaseModel, tasks: Tasks, heldout: Tasks, into: Path, watcher: Watcher) -> Walked:
    """Go the whole road, or the rest of it. Raises E-ROAD for fewer than two tasks to build from."""
    if len(tasks) < 2 or not heldout:
        raise BuildError(
            "E-ROAD",
            f"{len(tasks)} tasks to build from and {len(heldout)} held out, expected at least 2 and 1.",
            "Give more tasks, or name other held-outs.",
        )
    return _Walk(road, base, tasks, heldout, into, watcher).go()


@dataclass
class _Walk:
    road: Road
    base: BaseModel
    tasks: Tasks
    heldout: Tasks
    into: Path
    watcher: Watcher

    def __post_init__(self) -> None:
        self.width = _typical_width(self.base, self.tasks)
        self.runs: dict[str, list[Scores]] = {TRAINED: [], UNSEEN: []}

    def go(self) -> Walked:
        self.watcher.begin(sum(amount for _, amount in self._plan()))
        self._score_all("base", self.base)
        private = self._build("private", self.road.private())
        libraries = {"private": private}
        self._score_library("private", private)
        self.watcher.show(lay_out(self.runs, "First results: base and private library"))
        clusters = self._cluster(private)
        libraries["mbc"] = self._build("mbc", self.road.per_cluster(clusters, len(self.tasks)))
        libraries["shared"] = self._build("shared", self.road.shared(len(self.tasks)))
        self._score_library("mbc", libraries["mbc"])
        with route(self.base, libraries["shared"], "uniform", mix=self.road.mix) as model:
            self._score_all("shared", model)
        return Walked(libraries, clusters, {group: _in_order(runs) for group, runs in self.runs.items()})

    # ---- building ---------------------------------------------------------------------------------

    def _build(self, name: str, builder: TrainedBuilder) -> Library:
        jobs = {job.name: job.n_steps for job in builder.plan(self.tasks)}
        per_step = 3 * builder.batch_size * self.width
        self.watcher.doing(f"training {name}: {len(jobs)} expert{'s' if len(jobs) > 1 else ''}")

        def report(step: JobStep) -> None:
            self.watcher.advance(per_step)

        def skip_done(_: Any, done: Sequence[str]) -> None:
            self.watcher.advance(per_step * sum(jobs[expert] for expert in done))

        return build(builder, self.tasks, self.base, into=self.into / "libs" / name, report=report, on_plan=skip_done)

    def _cluster(self, private: Library) -> Clusters:
        method = MBC(k=min(self.road.n_clusters, len(private)))
        path = self.into / "groups.json"
        self.watcher.doing("clustering the private experts")
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
            self.watcher.doing(f"scoring {name}-{short}")
            spec = spec.format(n=self.road.n_fit)
            with route(self.base, library, spec, mix=self.road.mix, tasks=self.tasks) as model:
                self._score_all(f"{name}-{short}", model, knows_task=isinstance(model.router, Oracle))

    def _score_all(self, name: str, model: LanguageModel, *, knows_task: bool = False) -> None:
        self.watcher.doing(f"scoring {name}")
        for group, evaluator, tasks, amount in self._measures():
            if group == UNSEEN and knows_task:
                continue  # no expert was trained on these tasks
            self.runs[group].append(self._score(name, group, evaluator, tasks, model, amount))

    def _score(
        self, name: str, group: str, evaluator: Evaluator, tasks: Tasks, model: LanguageModel, amount: float
    ) -> Scores:
        part = "trained" if group == TRAINED else "unseen"
        path = self.into / "runs" / f"{name}.{part}.{method_of(to_spec(evaluator))}.jsonl"
        seen = 0.0

        def progress(done: int, total: int) -> None:
            nonlocal seen
            self.watcher.advance(amount * done / total - seen)
            seen = amount * done / total

        scores = evaluate(evaluator, model, tasks, into=path, name=name, progress=progress)
        self.watcher.advance(amount - seen)
        return scores

    def _measures(self) -> Iterator[tuple[str, Evaluator, Tasks, float]]:
        """List group, evaluator, tasks and the amount of work of each."""
        r = self.road
        for group, tasks in ((TRAINED, self.tasks), (UNSEEN, self.heldout)):
            yield group, Perplexity(), _first(tasks, r.n_score), len(tasks) * r.n_score * self.width
            # A generated token costs about as much as three that are read.
            work = len(tasks) * r.n_answer * (self.width + 3 * r.max_new_tokens)
            yield group, RougeL(max_new_tokens=r.max_new_tokens), _first(tasks, r.n_answer), work

    def _plan(self) -> list[tuple[str, float]]:
        """Foresee all work: names and amounts, in tokens passed forward once."""
        r, n = self.road, len(self.tasks)
        scoring = sum(amount for *_, amount in self._measures())
        known = sum(amount for group, _, _, amount in self._measures() if group == TRAINED)
        per_example = 3 * self.width
        joint = r.joint_steps(n, min(r.n_clusters, n)) * r.batch_size * min(r.n_clusters, n) * per_example
        return [
            ("private", n * r.steps * r.batch_size * per_example),
            ("mbc", joint),
            ("shared", joint),
            ("base, shared", 2 * scoring),
            ("routers", 2 * ((len(ROUTERS) - 1) * scoring + known)),
        ]


def _first(tasks: Tasks, n: int) -> Tasks:
    return Tasks(task.first(test=n) for task in tasks.values())


def _typical_width(base: BaseModel, tasks: Tasks) -> float:
    texts = [e.prompt + e.completion for task in tasks.values() for e in task.train[:20]]
    return sum(len(base.tokenizer(text)["input_ids"]) for text in texts) / max(1, len(texts))


def _in_order(runs: Sequence[Scores]) -> list[Scores]:
    """Put the rows as a reader compares them: base, shared, private, mbc."""
    order = ["base", "shared", *(f"{library}-{router}" for library in ("private", "mbc") for router in ROUTERS)]
    return sorted(runs, key=lambda scores: order.index(scores.name))
