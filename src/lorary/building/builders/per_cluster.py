"""One expert per cluster of tasks."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from lorary.adapters.lora import Init
from lorary.building.clustering.clusters import Clusters
from lorary.building.contract import Builder, Job, Made, Report
from lorary.building.limits import check_adapter, check_positive
from lorary.building.training.job import training_job
from lorary.building.training.options import TrainingOptions
from lorary.building.training.packs import fresh_size, pack_jobs, train_fresh
from lorary.errors import BuildError, OptionError
from lorary.hashing import SKIP_DEFAULT
from lorary.library.library import Library
from lorary.model.base.base_model import BaseModel
from lorary.tasks.task import Tasks


@dataclass(frozen=True, kw_only=True)
class PerCluster(TrainingOptions, Builder):
    """Train one LoRA per cluster, from scratch, on the joined data of the cluster's tasks.

    `clusters` comes from `cluster`, on the command line as the path of its groups.json. `steps` counts per cluster;
    None = `epochs` over the joined data, so that larger clusters get more, as they do with `steps_per_task`.
    Source: Ostapenko et al. 2024 (2405.11157) Algorithm 1, second stage.
    Differs: as `TrainingOptions` has it, and `init`. The paper gives 40 % of the training to the private experts that
    are clustered, 2 epochs, and 60 %, 3 epochs, to these: private:epochs=2 and per_cluster:epochs=3.
    """

    pack_tokens: int = 512
    """Experts share a pass until a step of usual width has so many tokens; 512 are as fast as more."""
    dropout: float = 0.05
    """Dropout on the adapter's input."""
    rank: int = 4
    """Rank of the adapter."""
    alpha: float = 16.0
    """The adapter's scale is alpha / rank."""
    rslora: bool = False
    """Scale by alpha / sqrt(rank) instead."""
    init: Init = field(default="peft", metadata=SKIP_DEFAULT)
    """How A starts: uniform in ±1/sqrt(d_in) as in PEFT, or, paper, in ±1/sqrt(3 d_in)."""
    targets: tuple[str, ...] = ("attention",)
    """Layers: last parts of module paths, "attention" (q, k, v, o), or "all-linear" (all but the head)."""
    tie: tuple[str, ...] = field(default=(), metadata=SKIP_DEFAULT)
    """Layers of one module, by the last parts of their paths, that share one A, as q_proj, k_proj and v_proj may."""
    clusters: Clusters = field(kw_only=False)
    """Groups of tasks that `cluster` made; on the command line the path of its groups.json."""
    steps_per_task: int | None = field(default=None, metadata=SKIP_DEFAULT)
    """Steps of a cluster's expert for each of its tasks, in the place of `steps` and `epochs`."""

    def __post_init__(self) -> None:
        """Refuse options that have no meaning."""
        super().__post_init__()
        check_positive(self, "pack_tokens", "steps_per_task")
        check_adapter(self)
        if self.steps is not None and self.steps_per_task is not None:
            raise OptionError("E-OPTION", "per_cluster: steps and steps_per_task are given.", "Give one of them.")

    def plan(self, tasks: Tasks, source: Library | None = None) -> list[Job]:
        """Plan one job per cluster, named after it.

        Raises E-CLUSTERS for no clusters, and for a task that isn't given, or is in one cluster twice.
        """
        if not self.clusters:
            raise BuildError("E-CLUSTERS", "there are no clusters to build experts of.", "Cluster a library.")
        for name, members in self.clusters.items():
            twice = [task for task in members if members.count(task) > 1]
            if twice:
                raise BuildError("E-CLUSTERS", f"cluster {name!r} has task {twice[0]!r} twice.", "Name it once.")
            missing = [task for task in members if task not in tasks]
            if missing:
                raise BuildError("E-CLUSTERS", f"cluster {name!r}: no data for task {missing[0]!r}.", "Give its tasks.")
        return [
            training_job(self._of(members), name, [self.clusters.part(name, tasks[t]) for t in members])
            for name, members in self.clusters.items()
        ]

    def _of(self, members: Sequence[str]) -> "PerCluster":
        """Give the options of one cluster's expert: its steps are those of its tasks, or of its share of them."""
        if self.steps_per_task is None:
            return self
        n_tasks = len(members) if self.clusters.dealt is None else len(members) / len(self.clusters)
        return replace(self, steps=max(1, round(n_tasks * self.steps_per_task)), steps_per_task=None)

    def n_numbers(self, job: Job, base: BaseModel) -> int | None:
        """Count them: all sites have the rank."""
        return fresh_size(self, base)

    def packs(self, jobs: Sequence[Job], base: BaseModel) -> list[list[Job]]:
        """Let experts share a pass until a step of usual width has pack_tokens."""
        return pack_jobs(jobs, base, self.pack_tokens)

    def run(self, pack: Sequence[Job], base: BaseModel, work: Path, report: Report | None) -> Made:
        """Train the pack."""
        return train_fresh(self, pack, base, work, report)
