"""The study of evidence: which part of the compass router wins what, where it holds, and against whom.

Every expert, library and run is a file under one directory and is made once: a study that was stopped goes on, and one
with larger sizes, more seeds or other arms reuses what is there. Constants are chosen on the first half of the tasks
("choose"); what is reported comes from the second half ("report"), and from tasks of another collection ("other").
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from evidence_tasks import StudyTasks
from evidence_texts import route_on_texts
from routing_accuracy import RoutingAccuracy

from lorary.adapters.contract import Mix
from lorary.building.build import build
from lorary.building.builders.per_cluster import PerCluster
from lorary.building.builders.phatgoose import Phatgoose
from lorary.building.builders.private import Private
from lorary.building.clustering.cluster import cluster
from lorary.building.clustering.clusterers.mbc import MBC
from lorary.building.contract import JobStep
from lorary.building.training.job import expert_name
from lorary.errors import OptionError, known_names
from lorary.evaluation.contract import Evaluator
from lorary.evaluation.evaluate import evaluate
from lorary.evaluation.evaluators.perplexity import Perplexity
from lorary.evaluation.evaluators.rouge_l import RougeL
from lorary.evaluation.scores import Scores
from lorary.folder import ROUTERS as KNOWN_ROUTERS
from lorary.library.library import Library
from lorary.model.base.base_model import BaseModel
from lorary.model.routed.route import route
from lorary.model.routed.routed_model import RoutedModel
from lorary.options import require_count
from lorary.reporting.growth import draw_growth
from lorary.reporting.token_trace import TokenTrace
from lorary.studies.seeds import require_seeds
from lorary.tasks.task import Tasks

COMPASS = "compass"
BASELINES = ("uniform", "arrow", "spectr", "task_predictor:n_examples=50", "centroid:n_examples=50", "oracle")
PLAIN = "compass:normalise=False,n_common=0,calibrate=False,now=1,up=0,strength=0"

ROUTERS: Mapping[str, Sequence[str]] = {
    "routers": (*BASELINES, COMPASS),
    "parts": (
        PLAIN,
        "compass:n_common=0,calibrate=False,now=1,up=0,strength=0,temperature=0.5",
        "compass:calibrate=False,now=1,up=0,strength=0,temperature=0.5",
        "compass:now=1,up=0",
        "compass:up=0,along=2",
        "compass:calibrate=False",
        "compass:n_common=0",
        "compass:opening=none",
        "compass:skip_first=False",
        "compass:strength=0",
        "compass:recent=0",
        "compass:recent=1",
        "compass:recent=0,now=1",
        "compass:now=1",
        "compass:top_k=none",
        COMPASS,
    ),
    "weights": (
        *(f"compass:up={up}" for up in (1.0, 2.0, 3.0, 4.0, 8.0)),
        *(f"compass:strength={power}" for power in (0.0, 0.5, 1.0)),
        *(f"compass:half_life={tokens}" for tokens in (1.0, 2.0, 8.0)),
    ),
    "kept": tuple(f"{name}:top_k={k}" for name in ("compass", "arrow") for k in (1, 2, 4, 8)),
    "texts": tuple(f"compass:n_texts={n},opening={o}" for n in (3, 12, 48) for o in ("user", "none")),
    "other_texts": (f"{COMPASS}@prompts", f"{COMPASS}@english"),
    "mixes": ("uniform", "arrow", COMPASS, "oracle"),
    "gates": ("phatgoose",),
    "answers": ("uniform", "arrow", COMPASS, "oracle"),
    "routing": ("arrow", "spectr", "task_predictor:n_examples=50", "centroid:n_examples=50", COMPASS),
}
"""The arms of the study, and the routers of each; behind an @ stands whose texts calibrate in the place of the base's.

prompts: unlabelled prompts of tasks that are neither in the library nor tested on. english: plain English paragraphs.
mixes and gates mix outputs; gates are trained first, on the experts' own tasks.
"""

EVALUATORS: Mapping[str, Evaluator] = {
    "perplexity": Perplexity(),
    "rouge_l": RougeL(max_new_tokens=32),
    "routing_accuracy": RoutingAccuracy(),
}
METRICS = {"answers": "rouge_l", "routing": "routing_accuracy"}
EVERYWHERE = ("routers", "routing")
"""Arms that are run on all libraries; the others on the first alone."""


@dataclass(frozen=True)
class Study:
    """What is asked.

    sizes: experts per library; seeds: of the private experts, shared initial A within a seed. others: further libraries
    of the first size: "unshared" (every expert its own initial A), "rank8", "mbc" (one expert per four tasks).
    arms: keys of ROUTERS; all but EVERYWHERE are run on the first library only. n_score, n_answer: test examples of a
    task for the loss and for Rouge-L; of tasks alike, which are many, half as many.
    """

    sizes: tuple[int, ...] = (16,)
    seeds: tuple[int, ...] = (42,)
    others: tuple[str, ...] = ()
    arms: tuple[str, ...] = ("routers",)
    n_score: int = 16
    n_answer: int = 8

    def __post_init__(self) -> None:
        """Refuse names that are none, seeds and sizes that no step would take."""
        require_seeds("study evidence", self.seeds)
        if not self.sizes:
            raise OptionError("E-OPTION", "study evidence: there are no sizes.", "Give at least one, as 16.")
        for size in self.sizes:
            require_count("study evidence: size", size)
        for given, known in ((self.arms, tuple(ROUTERS)), (self.others, OTHERS)):
            for name in given:
                if name not in known:
                    raise OptionError("E-OPTION", f"study evidence: unknown {name!r}.", known_names(name, known))

    def libraries(self) -> Iterator[tuple[str, int]]:
        """List pool and size of every library, the one that all arms run on first."""
        for size in self.sizes:
            for seed in self.seeds:
                yield f"seed{seed}", size
        for pool in self.others:
            yield pool, self.sizes[0]

    def cells(self) -> Iterator["Cell"]:
        """List all runs of all arms."""
        for number, (pool, size) in enumerate(self.libraries()):
            for arm in self.arms if number == 0 else [arm for arm in self.arms if arm in EVERYWHERE]:
                for router in ROUTERS[arm] if (pool, arm) != ("mbc", "routing") else ():  # no expert is a task's own
                    mix: Mix = "outputs" if arm in ("mixes", "gates") else "factors"
                    yield Cell(arm, pool, size, router, mix, METRICS.get(arm, "perplexity"))


OTHERS = ("unshared", "rank8", "mbc")

ALONE = "compass:top_k=none"
SHOWN_TRAINED = 11
SHOWN_UNSEEN = ("task613_politifact_text_generation", "task1508_wordnet_antonyms")
"""Whose evidence is drawn: the eleventh task from the last, one like none of them, and one like a trained one."""


@dataclass(frozen=True)
class Cell:
    """One router on one library: what is run."""

    arm: str
    pool: str
    size: int
    router: str
    mix: Mix
    metric: str

    @property
    def file(self) -> str:
        """The name of its files, the group of tasks left out."""
        router = self.router.replace(":", "-").replace(",", "-").replace("=", "").replace("@", "-on-")
        return f"{self.pool}-{self.size}.{router}.{self.mix}.{self.metric}"


@dataclass(frozen=True)
class Result:
    """A cell and what it scored, by group: "trained", and where nobody must be told the task, the never trained."""

    cell: Cell
    scores: Mapping[str, Scores]


def run_study(
    study: Study, base: BaseModel, tasks: StudyTasks, into: Path, tell: Callable[[str], None]
) -> list[Result]:
    """Run, or go on with, all cells of a study; draw evidence.png of the first library."""
    run = _Run(study, base, tasks, into, tell)
    results = list(run.results())
    run.draw()
    return results


@dataclass
class _Run:
    study: Study
    base: BaseModel
    tasks: StudyTasks
    into: Path
    tell: Callable[[str], None]

    def results(self) -> Iterator[Result]:
        for cell in self.study.cells():
            self.tell(f"{cell.arm}: {cell.pool}, {cell.size} tasks, {cell.router}, {cell.mix}")
            library = self._library(cell.pool, cell.size)
            yield Result(cell, self._score(cell, self._gated(cell, library) if cell.arm == "gates" else library))

    def draw(self) -> None:
        """Draw how evidence grows where it alone decides, on the first library."""
        trained = self.tasks.order[: self.study.sizes[0]][-SHOWN_TRAINED:][0]
        shown = {f"{trained} (trained)": self.tasks.tasks[trained].test[0]}
        shown |= {f"{name} (unseen)": self.tasks.unseen[name].test[0] for name in SHOWN_UNSEEN}
        with route(self.base, self._library(*next(self.study.libraries())), ALONE) as model:
            traces = [model.explain(example, max_new_tokens=1) for example in shown.values()]
        pictures = [
            TokenTrace(t.tokens, t.names, t.shares.numpy(), title, t.sites, t.weights.numpy())
            for t, title in zip(traces, shown, strict=True)
        ]
        (self.into / "evidence.png").write_bytes(draw_growth(pictures, name="evidence").png)

    # ---- building ---------------------------------------------------------------------------------

    def _library(self, pool: str, size: int) -> Library:
        """Give the library of the first `size` tasks, copied from the pool, which is built as needed."""
        names = self.tasks.order[:size]
        if len(names) < size:
            raise OptionError("E-OPTION", f"study evidence: a library of {size}, but {len(names)} tasks to train on.")
        if pool == "mbc":
            return self._clustered(names)
        source = self._pool(pool, names)
        library = Library.create(self.into / "libs" / f"{pool}-{size}", base=self.base.fingerprint, exist_ok=True)
        with library.noted_once():
            for name in map(expert_name, names):
                if name not in library:
                    library.add(source[name].directory, name)
        return library

    def _pool(self, pool: str, names: Sequence[str]) -> Library:
        into = self.into / "experts" / pool
        if pool == "unshared":  # an expert's initial A follows from the seed: each its own
            for number, name in enumerate(names):
                library = self._build(replace(_private(), seed=1000 + number), [name], into)
            return library
        builder = replace(_private(), rank=8) if pool == "rank8" else replace(_private(), seed=int(pool[4:]))
        for start in range(0, len(names), 16):
            library = self._build(builder, names[start : start + 16], into)
        return library

    def _clustered(self, names: Sequence[str]) -> Library:
        groups = cluster(MBC(k=max(2, len(names) // 4)), self._library(f"seed{self.study.seeds[0]}", len(names)))
        options = {name: getattr(_private(), name) for name in ("batch_size", "lr", "dropout", "n_evaluations")}
        builder = PerCluster(groups, steps=_private().steps, max_valid=16, **options)
        into = self.into / "experts" / f"mbc-{len(names)}"
        return build(builder, self.tasks.tasks.only(names), self.base, into=into, report=self._on_step)

    def _gated(self, cell: Cell, library: Library) -> Library:
        """Give the library once more, each expert with a gate that had as many steps as the expert itself."""
        options = {name: getattr(_private(), name) for name in ("steps", "batch_size", "n_evaluations", "max_valid")}
        into, tasks = (
            self.into / "experts" / f"gated-{cell.pool}-{cell.size}",
            self.tasks.tasks.only(self.tasks.order[: cell.size]),
        )
        return build(Phatgoose(**options), tasks, self.base, into=into, source=library, report=self._on_step)

    def _build(self, builder: Private, names: Sequence[str], into: Path) -> Library:
        return build(builder, self.tasks.tasks.only(names), self.base, into=into, report=self._on_step)

    def _on_step(self, step: JobStep) -> None:
        if step.step == step.n_steps:
            self.tell(f"trained {step.job}")

    # ---- scoring ----------------------------------------------------------------------------------

    def _score(self, cell: Cell, library: Library) -> dict[str, Scores]:
        trained = self.tasks.tasks.only(self.tasks.order[: cell.size])
        groups = {"trained": trained}
        if cell.router != "oracle" and cell.metric != "routing_accuracy":
            never = {"unseen": self.tasks.unseen, "alike": self.tasks.alike, "other": self.tasks.other}
            groups |= {group: tasks for group, tasks in never.items() if tasks}
        n = {group: self._n(cell, group) for group in groups}
        paths = {group: self.into / "runs" / f"{cell.file}.{group}.{n[group]}.jsonl" for group in groups}
        with self._routed(cell, library, trained) as model:
            return {
                group: evaluate(
                    EVALUATORS[cell.metric], model, some, into=paths[group], name=cell.router, limit=n[group]
                )
                for group, some in groups.items()
            }

    def _routed(self, cell: Cell, library: Library, trained: Tasks) -> RoutedModel:
        router, _, texts = cell.router.partition("@")
        if not texts:
            return route(self.base, library, router, mix=cell.mix, tasks=trained)
        written = self.tasks.english if texts == "english" else self._prompts(cell.size)
        return route_on_texts(self.base, library, KNOWN_ROUTERS.parse(router), written, cell.mix)

    def _prompts(self, size: int) -> list[str]:
        """List prompts of tasks that no expert of the library was trained on, the tasks in turn."""
        rest = [self.tasks.tasks[name].train for name in self.tasks.order[size:]]
        return [examples[i].prompt for i in range(10) for examples in rest if i < len(examples)]

    def _n(self, cell: Cell, group: str) -> int:
        n = self.study.n_answer if cell.metric == "rouge_l" else self.study.n_score
        return max(1, n // 2) if group == "alike" else n


def _private() -> Private:
    return Private(steps=48, batch_size=8, lr=1e-3, dropout=0.0, n_evaluations=2, max_valid=16)
