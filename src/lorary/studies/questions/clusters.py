"""How many clusters are best, and whether it matters how tasks are clustered."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any

import numpy as np

from lorary.building.builders.per_cluster import PerCluster
from lorary.building.builders.private import Private
from lorary.building.clustering.cluster import cluster
from lorary.building.clustering.clusterers.mbc import MBC
from lorary.building.clustering.clusterers.random_examples import RandomExamples
from lorary.building.clustering.clusterers.random_tasks import RandomTasks
from lorary.building.clustering.clusters import Clusters
from lorary.building.clustering.contract import Clusterer
from lorary.building.contract import Builder
from lorary.building.limits import check_positive, check_share
from lorary.errors import OptionError, TaskError
from lorary.evaluation.evaluators.perplexity import Perplexity
from lorary.evaluation.scores import Scores
from lorary.folder import CLUSTERERS
from lorary.formats.peft import open_experts
from lorary.reporting.canvas import Picture
from lorary.reporting.measure_figures import Line, Points, draw_lines, draw_points
from lorary.reporting.table import Cell as TableCell
from lorary.reporting.table import Column, Row, Table, make_table
from lorary.studies.comparing.clusterings import OF_COSINES, of_ranks, of_scores
from lorary.studies.comparing.paper_claims import judge_all
from lorary.studies.comparing.stock import BRIEF
from lorary.studies.contract import (
    TRAINED,
    UNSEEN,
    Bench,
    Build,
    Cell,
    Measure,
    Plan,
    Results,
    Study,
    Subject,
    Verdict,
    file_name,
)
from lorary.studies.measuring.orders import difference, rank_correlation
from lorary.studies.measuring.pairs import Likeness, likeness
from lorary.tasks.task import Tasks

_FIRST = "libs/first"
_COSINES = {"factors": "raw factors", "products": "product space"}


@dataclass(frozen=True)
class _Groups:
    """Clusters that were found: cluster -> tasks."""

    groups: dict[str, tuple[str, ...]]


@dataclass(frozen=True)
class ClusterStudy(Study):
    """Compare numbers of clusters, and ways to cluster, by how well the averaged experts answer.

    k from one expert for all tasks to one for each: the experts of MBC's clusters, all averaged, on new examples of the
    trained tasks and on tasks held out. Ways: k experts of clusters by each of them, and how alike those are: the mean
    cosine between two of them, of the factors as they are written and of the products B A.
    All libraries see as many examples: `epochs` over all data, of which `first_share` goes to the private experts that
    are clustered. One expert for all tasks, and one for each, need no clusters and get all of it. All ways at one k get
    as much as MBC, also those that need no private experts.
    Source: Ostapenko et al. 2024 (2405.11157) Figure 4 (k = 1, 5, 10, 25, 256: log-likelihood -0.88, -0.72, -0.65,
    -0.655, -0.965) and Table 2 (cosines: random examples 0.82, random tasks 0.58, embeddings 0.37, MBC 0.27).
    """

    ks: tuple[int, ...] = ()
    """Numbers of clusters; none: 1, 2, 4, 8 and so on, and the number of tasks."""
    k: int = 4
    """Number of clusters of every way, and the one that is compared with the two ends."""
    ways: tuple[str, ...] = ("random_examples", "random_tasks", "embeddings", "mbc", "mbc:space=products")
    """Ways to cluster, with their options."""
    epochs: float = 5.0
    """Passes over the training data, for each library."""
    first_share: float = 0.4
    """Share of them that goes to the private experts that are clustered."""
    n_train: int | None = None
    """Training examples of each task, at most; none: all."""
    batch_size: int = 4
    """Examples in each step."""
    lr: float = 2e-3
    """Peak learning rate."""
    limit: int = 16
    """Test examples of each task to score."""
    seed: int = 42
    """Seed of all training, and of the clusters."""

    def __post_init__(self) -> None:
        """Refuse options that have no meaning."""
        super().__post_init__()
        check_positive(self, "k", "epochs", "n_train", "batch_size", "lr", "limit")
        check_share(self, "first_share")
        if not 0 < self.first_share < 1:
            raise OptionError("E-OPTION", f"study clusters: first_share={self.first_share}, expected 0 to 1, not both.")

    # ---- plan -------------------------------------------------------------------------------------

    def plan(self, subject: Subject) -> Plan:
        """List libraries, scores and measures. Raises E-TASK for fewer tasks than clusters, E-NAME for unknown ways."""
        tasks = Tasks(task.first(train=self.n_train) for task in subject.tasks.values())
        if len(tasks) < 2 or max((self.k, *self.ks)) > len(tasks):
            found = f"{max((self.k, *self.ks))} clusters of {len(tasks)} tasks"
            raise TaskError("E-TASK", f"study clusters: {found}, expected fewer.", "Give more tasks, or a smaller k.")
        builds, measures = [self._first(tasks)], []
        for name, clusterer in self._clusterers(len(tasks)).items():
            builds.append(self._build(name, clusterer, tasks))
            if clusterer is not None and builds[-1].after:
                measures.append(_grouping(name, clusterer, tasks))
            if name != "k=1":
                path = f"libs/{file_name(name)}"
                measures.append(Measure(_likeness_of(name), partial(_likeness, path), Likeness, [path]))
        names = [None, *self._clusterers(len(tasks))]
        return Plan(builds, [cell for name in names for cell in self._cells(name, subject)], measures)

    def _clusterers(self, n_tasks: int) -> dict[str, Clusterer | None]:
        """Name all libraries, with the clusterer of each; None: each task by itself."""
        ks = self.ks or (*(2**i for i in range(n_tasks.bit_length()) if 2**i < n_tasks), n_tasks)
        found: dict[str, Clusterer | None] = {}
        for k in sorted({*ks, self.k}):
            found[f"k={k}"] = None if k == n_tasks else MBC(k=k, seed=self.seed)
        for way in self.ways:
            if way != "mbc":
                found[way] = _with_k(CLUSTERERS.parse(way), self.k, self.seed)
        return found

    def _training(self, share: float) -> dict[str, Any]:
        options = {"epochs": share * self.epochs, "batch_size": self.batch_size, "lr": self.lr, "seed": self.seed}
        return {**options, **BRIEF}

    def _first(self, tasks: Tasks) -> Build:
        return Build(_FIRST, Private(**self._training(self.first_share)), tasks)

    def _build(self, name: str, clusterer: Clusterer | None, tasks: Tasks) -> Build:
        path = f"libs/{file_name(name)}"
        rest = self._training(1 - self.first_share)
        if clusterer is None or name == "k=1":
            each = {f"c{i}": (task,) for i, task in enumerate(tasks)}
            known = Clusters(each if clusterer is None else {"c0": tuple(tasks)})
            return Build(path, PerCluster(known, **self._training(1.0)), tasks)
        if isinstance(clusterer, RandomTasks | RandomExamples):  # known before anything is built
            groups = clusterer.cluster({}, {task: (task,) for task in tasks})
            return Build(path, PerCluster(groups, **rest), tasks)
        some = Clusters({f"c{i}": tuple(tasks)[i :: self.k] for i in range(min(self.k, len(tasks)))})
        of_groups = partial(_of_groups, _groups_of(name), rest)
        return Build(path, of_groups, tasks, like=(PerCluster(some, **rest), tasks), after=[_groups_of(name)])

    def _cells(self, name: str | None, subject: Subject) -> Iterator[Cell]:
        groups: tuple[tuple[str, Tasks], ...] = ((TRAINED, subject.tasks), (UNSEEN, subject.heldout))
        for group, tasks in groups:
            if tasks:
                path = f"runs/{file_name(name or 'base')}.{group.partition(' ')[0]}.jsonl"
                library = name and f"libs/{file_name(name)}"
                yield Cell(path, name or "base", group, Perplexity(), tasks, self.limit, library)

    # ---- what came out ----------------------------------------------------------------------------

    def judge(self, results: Results) -> list[Verdict]:
        """Judge a middle number of clusters beside both ends, the ways beside each other, and the cosines' order."""
        verdicts = []
        for group in dict.fromkeys((TRAINED, *results)):
            rows = results.get(group, {})
            verdicts += judge_all(
                of_scores(group, self.k, [int(name[2:]) for name in rows if name[:2] == "k="]), results
            )
        return [*verdicts, *self._of_cosines(results), *self._of_ranks(results)]

    def _of_cosines(self, results: Results) -> Iterator[Verdict]:
        """Judge the order of the cosines, by an interval over pairs of experts."""
        for (one, other), said in OF_COSINES.items():
            two = [self._cosines(results, way, "factors") for way in (one, other)]
            if not all(two):
                yield said.verdict(None, "It was not measured.")
                continue
            found, low, high = difference(*two)
            means = " and ".join(f"{np.mean(values):.3f}" for values in two)
            shown = f"{low:+.3f}, {high:+.3f}" if math.isfinite(low) else "too few for an interval"
            numbers = f"mean cosines {means}: {found:+.3f} [{shown}] over {len(two[0])} and {len(two[1])} pairs."
            yield said.by_interval((found, low, high), numbers)

    def _of_ranks(self, results: Results) -> Iterator[Verdict]:
        """Judge whether ways whose experts are less alike are better, by their ranks."""
        for group in dict.fromkeys((TRAINED, *results)):
            rows, said = results.get(group, {}), of_ranks(group)
            runs = {way: rows[self._row(way)] for way in self.ways if self._row(way) in rows}
            cosines = {way: self._cosines(results, way, "factors") for way in runs}
            known = [way for way in runs if cosines[way]]
            rho, low, high = rank_correlation([float(np.mean(cosines[w])) for w in known], [runs[w] for w in known])
            numbers = f"Spearman's rho of cosine and loss {rho:.2f} [{low:.2f}, {high:.2f}] over {len(known)} ways."
            if math.isfinite(rho):
                yield said.by_interval((rho, low, high), numbers)
            else:
                yield said.verdict(None, f"{len(known)} ways say nothing of an order.")

    def tables(self, results: Results, title: str) -> list[Table]:
        """Lay out scores and cosines of each number of clusters, and of each way."""
        numbers = {name: name for rows in results.values() for name in rows if name == "base" or name.startswith("k=")}
        ways = {self._row(way): way for way in self.ways}
        parts = ((numbers, "numbers of clusters, by MBC"), (ways, f"ways to make {self.k} clusters"))
        return [self._table(results, names, f"{title}: {what}" if title else what) for names, what in parts]

    def _table(self, results: Results, names: Mapping[str, str], title: str) -> Table:
        groups = {group: [rows[name] for name in names if name in rows] for group, rows in results.items()}
        table = make_table(groups, title=title, labels={"perplexity": "loss"})
        n = max((len(self._cosines(results, row.name, "factors")) for row in table.rows), default=0)
        columns = [
            Column("mean cosine of two experts", space, label, "-1 to 1", None, 0, n, f"at most {n} pairs")
            for space, label in _COSINES.items()
        ]
        rows = []
        for row in table.rows:
            found = [self._cosines(results, row.name, space) for space in _COSINES]
            cells = [TableCell(float(np.mean(values))) if values else None for values in found]
            rows.append(Row(names[row.name], (*row.cells, *cells)))
        return replace(table, columns=(*table.columns, *columns), rows=tuple(rows))

    def figures(self, results: Results) -> list[Picture]:
        """Draw log-likelihood over the number of clusters, and over the cosine of each way's experts."""
        panels = [_curve(group, rows) for group, rows in results.items()]
        caption = (
            "Across: clusters of tasks, from one expert for all to one for each, logarithmic. Up: mean log-likelihood "
            "of the right answers, all experts averaged. Whiskers: 95 % interval, bootstrap over examples. Ring: best."
        )
        label, title = "log-likelihood, nats per token", "How many clusters"
        over_k = draw_lines(panels, x_label="clusters", y_label=label, caption=caption, name="clusters", title=title)
        beside = [ways for group, rows in results.items() if (ways := self._ways(group, rows, results)).x]
        caption = (
            f"Each point: a way to make {self.k} clusters. Across: mean cosine of two of their experts, of the factors "
            "as they are written. Up: mean log-likelihood of the right answers, all experts averaged."
        )
        title = "Ways to cluster"
        if not beside:
            return [over_k]
        return [over_k, draw_points(beside, x_label="cosine", y_label=label, caption=caption, name="ways", title=title)]

    def _ways(self, group: str, rows: Mapping[str, Scores], results: Results) -> Points:
        known = [way for way in self.ways if self._row(way) in rows and self._cosines(results, way, "factors")]
        cosines = [float(np.mean(self._cosines(results, way, "factors"))) for way in known]
        return Points(group, cosines, [-rows[self._row(way)].mean for way in known], names=known)

    def _row(self, way: str) -> str:
        return f"k={self.k}" if way == "mbc" else way

    def _cosines(self, results: Results, name: str, space: str) -> list[float]:
        """Give the cosines of all pairs of cluster experts, over all seeds."""
        found: list[Likeness] = results.found(_likeness_of(self._row(name)))
        return [value for one in found for value in one.pairs(space)]


def _grouping(name: str, clusterer: Clusterer, tasks: Tasks) -> Measure:
    needs = "examples" in clusterer.needs
    n = getattr(clusterer, "n_examples", 0) if needs else 0
    seen = Tasks(task.first(train=n, valid=0, test=0) for task in tasks.values())
    examples = [example for task in seen.values() for example in task.train]
    how = {"clusterer": repr(clusterer)}
    compute = partial(_group, clusterer, seen if needs else None)
    return Measure(_groups_of(name), compute, _Groups, [_FIRST], seen, options=how, examples=examples)


def _curve(group: str, rows: Mapping[str, Scores]) -> Line:
    runs = {int(name[2:]): scores for name, scores in rows.items() if name.startswith("k=")}
    means = [-scores.mean for scores in runs.values()]
    ends = [scores.interval() for scores in runs.values()]
    best = int(np.argmax(means))
    said = f"best: {list(runs)[best]} of {max(runs)}"
    return Line(group, [*runs], means, [-high for _, high in ends], [-low for low, _ in ends], best, said)


def _likeness(path: str, bench: Bench) -> Likeness:
    return likeness(open_experts(bench.libraries[path]))


def _group(clusterer: Clusterer, seen: Tasks | None, bench: Bench) -> _Groups:
    found = cluster(clusterer, bench.libraries[_FIRST], base=None if seen is None else bench.base, tasks=seen)
    return _Groups(dict(found.groups))


def _of_groups(path: str, training: Mapping[str, Any], bench: Bench) -> Builder:
    return PerCluster(Clusters(bench.measured[path].groups), **training)


def _with_k(clusterer: Clusterer, k: int, seed: int) -> Clusterer:
    changed: Any = clusterer
    known = {field.name for field in fields(changed)}
    return replace(changed, **{name: value for name, value in (("k", k), ("seed", seed)) if name in known})


def _groups_of(name: str) -> str:
    return f"measures/groups.{file_name(name)}.json"


def _likeness_of(name: str) -> str:
    return f"measures/likeness.{file_name(name)}.json"
