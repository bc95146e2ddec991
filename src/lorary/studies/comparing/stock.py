"""The libraries that several studies compare, all trained on as many examples; a study inherits how long and how."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

from lorary.building.builders.mhr import MHR
from lorary.building.builders.per_cluster import PerCluster
from lorary.building.builders.phatgoose import Phatgoose
from lorary.building.builders.poly import Poly
from lorary.building.builders.private import Private
from lorary.building.builders.shared import Shared
from lorary.building.clustering.cluster import cluster
from lorary.building.clustering.clusterers.mbc import MBC
from lorary.building.clustering.clusterers.random_tasks import RandomTasks
from lorary.building.clustering.clusters import Clusters
from lorary.building.contract import Builder
from lorary.building.finetune import FullFineTuning
from lorary.building.limits import check_positive, check_share
from lorary.building.paper_settings import as_paper
from lorary.building.training.options import TrainingOptions
from lorary.studies.contract import Bench, Build, Study
from lorary.tasks.task import Tasks

T = TypeVar("T", bound=TrainingOptions)
BRIEF: Mapping[str, Any] = {"dropout": 0.0, "n_evaluations": 2, "max_valid": 8}
"""How all studies train unless as the paper does: what short runs on few examples need."""
STARTS: Mapping[str, str] = {"gated": "private", "mbc": "first"}
"""The libraries that others are made from."""


@dataclass(frozen=True, kw_only=True)
class StockStudy(Study):
    """A study of libraries that are built alike: private, mbc, shared, poly, mhr, random clusters, and a tuned base.

    Each sees steps * batch_size examples a task, or `epochs` times its examples where steps is None; mbc's two stages
    share them out.
    """

    steps: int | None = 10
    """Optimiser steps for each task; None: `epochs` over its examples."""
    epochs: float = 5.0
    """Passes over the examples where `steps` is None."""
    batch_size: int = 4
    """Examples in each step."""
    lr: float = 2e-3
    """Peak learning rate."""
    full_lr: float = 3e-5
    """Peak learning rate where all weights of the base are trained."""
    rank: int = 4
    """Rank of all experts."""
    n_clusters: int = 4
    """Clusters of mbc, at most."""
    n_skills: int | None = None
    """Experts of poly and mhr; None: one per task."""
    first_share: float = 0.4
    """Share of mbc's steps that goes to the private experts that are clustered."""
    paper_training: bool = False
    """Train as the paper's code does, batch size and learning rate aside."""
    seed: int = 42
    """Seed of all training."""

    def __post_init__(self) -> None:
        """Refuse options that have no meaning."""
        super().__post_init__()
        check_positive(self, "steps", "epochs", "batch_size", "lr", "full_lr", "rank", "n_clusters", "n_skills")
        check_share(self, "first_share")

    # ---- options of each builder ------------------------------------------------------------------

    @property
    def training(self) -> dict[str, Any]:
        """Options of everything that trains."""
        own = {"batch_size": self.batch_size, "lr": self.lr, "rank": self.rank, "seed": self.seed}
        return own if self.paper_training else {**own, **BRIEF}

    def made(self, method: type[T], steps: int | None, share: float = 1.0, **more: object) -> T:
        """Make a builder's options, for so many steps, or for that share of the epochs."""
        known = {field.name for field in fields(method)}
        options: dict[str, Any] = {"steps": steps} if steps is not None else {"epochs": share * self.epochs}
        options |= {key: value for key, value in self.training.items() if key in known} | more
        return as_paper(method, **options) if self.paper_training else method(**options)

    def private(self) -> Private:
        """Options of the private library."""
        return self.made(Private, self.steps)

    def gates(self) -> Phatgoose:
        """Options of the private experts' gates, whose learning rate is their own."""
        return self.made(Phatgoose, self.steps, lr=Phatgoose().lr)

    def first(self) -> Private:
        """Options of the shorter private experts that are clustered."""
        return self.made(Private, self._first_steps, self.first_share)

    def per_cluster(self, groups: Clusters, n_tasks: int) -> PerCluster:
        """Options of the cluster experts, which share out what the first ones left."""
        return self.made(PerCluster, self._cluster_steps(n_tasks, len(groups)), 1 - self.first_share, clusters=groups)

    def random(self, tasks: Tasks) -> PerCluster:
        """Options of experts of random clusters of tasks, which have all steps to themselves."""
        groups = RandomTasks(k=min(self.n_clusters, len(tasks)), seed=self.seed).cluster({}, {t: (t,) for t in tasks})
        steps = None if self.steps is None else max(1, round(len(tasks) * self.steps / len(groups)))
        return self.made(PerCluster, steps, clusters=groups)

    def _cluster_steps(self, n_tasks: int, n_clusters: int) -> int | None:
        if self.steps is None or self._first_steps is None:
            return None
        return max(1, round(n_tasks * (self.steps - self._first_steps) / n_clusters))

    @property
    def _first_steps(self) -> int | None:
        return None if self.steps is None else max(1, round(self.first_share * self.steps))

    def joint(self, n_tasks: int) -> dict[str, Builder]:
        """List the libraries that are trained on all tasks together."""
        steps, n_skills = self.together(n_tasks), self.n_skills or n_tasks
        return {
            "shared": self.made(Shared, steps),
            "poly": self.made(Poly, steps, n_skills=n_skills),
            "mhr": self.made(MHR, steps, n_skills=n_skills),
        }

    def full(self, n_tasks: int) -> FullFineTuning:
        """Options of the copy of the base all of whose weights are trained."""
        return self.made(FullFineTuning, self.together(n_tasks), lr=self.full_lr)

    def together(self, n_tasks: int) -> int | None:
        """Count the steps of one training on all tasks."""
        return None if self.steps is None else n_tasks * self.steps

    # ---- builds -----------------------------------------------------------------------------------

    def stock(self, tasks: Tasks, names: Iterable[str]) -> dict[str, Build]:
        """List the libraries of these names and those that they are made from, in the order of building."""
        wanted = {*names}
        wanted |= {STARTS[name] for name in wanted if name in STARTS}
        n, private = len(tasks), self.private()
        k = min(self.n_clusters, n)
        steps = self._cluster_steps(n, k)
        alike = self.made(Shared, None if steps is None else k * steps, 1 - self.first_share)

        def on_clusters(bench: Bench) -> Builder:
            return self.per_cluster(cluster(MBC(k=k), bench.libraries["libs/first"]), n)

        builds = {
            "private": Build("libs/private", private, tasks),
            "gated": Build("libs/gated", self.gates(), tasks, "libs/private", (private, tasks)),
            "first": Build("libs/first", self.first(), tasks),
            "mbc": Build("libs/mbc", on_clusters, tasks, like=(alike, tasks)),
            "random": Build("libs/random", self.random(tasks), tasks),
            **{name: Build(f"libs/{name}", builder, tasks) for name, builder in self.joint(n).items()},
            "full": Build("libs/full", self.full(n), tasks),
        }
        return {name: replace(build, is_shared=True) for name, build in builds.items() if name in wanted}
