"""Whether an expert answers louder on its own task than another would."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from lorary.building.builders.private import Private
from lorary.building.limits import check_positive, check_targets
from lorary.errors import TaskError
from lorary.evaluation.bootstrap import central_interval, resampled_means
from lorary.formats.peft import open_experts
from lorary.library.library import Library
from lorary.reporting.canvas import Picture
from lorary.reporting.measure_figures import Amounts, draw_histograms
from lorary.reporting.table import Cell, Column, Row, Table
from lorary.studies.comparing.paper_claims import Said, of_tasks
from lorary.studies.comparing.stock import BRIEF
from lorary.studies.contract import GIVEN, Bench, Build, Measure, Plan, Results, Study, Subject, Verdict
from lorary.studies.measuring.norms import WAYS, Norms, compare_norms
from lorary.tasks.task import Tasks

_PRIVATE = "libs/private"
_IN_WORDS = {"adapter": "adapter alone", "layer": "layer and adapter"}
_CLAIMED = {"layer": ("C2", "above 1 for all 5,000 examples, mean 1.005"), "adapter": ("C2 (adapter)", "not measured")}
"""Number of the claim, and what the paper found, for each way to measure it."""
_MEANING = "Weights alone tell which expert an input is for: Arrow needs no data."
_DRAWS = 2000
_UNIT = "% above 1"


@dataclass(frozen=True)
class NormStudy(Study):
    """Test whether the right expert's answer is larger than another's: why Arrow can tell experts by their weights.

    Each example goes through the expert of its task. At every adapted layer another expert, drawn anew, is asked of the
    same input; the ratio of both norms is averaged over the layers. Adapter alone: of what the adapters add, as the
    paper's formula says. Layer and adapter: of the whole answer of the layer, as its code measures. Norms are averaged
    over the tokens of prompt and answer before the ratio is taken, as there.
    Source: Ostapenko et al. 2024 (2405.11157) Figure 5: all ratios above 1, mean 1.005.
    Differs: claims are judged by the geometric mean. The mean of a ratio is above 1 even where both are drawn alike;
    that of its logarithm is 0, since all experts stand above the line as often as below it.
    """

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"paper": {"steps": 2500}}

    steps: int = 60
    """Optimiser steps of each expert, if no library is given."""
    batch_size: int = 4
    """Examples in each step."""
    lr: float = 2e-3
    """Peak learning rate."""
    targets: tuple[str, ...] = ("attention",)
    """Layers with an adapter, if no library is given."""
    limit: int = 16
    """Test examples of each task."""
    seed: int = 42
    """Seed of the training, and of the draw of other experts."""

    def __post_init__(self) -> None:
        """Refuse options that have no meaning."""
        super().__post_init__()
        check_positive(self, "steps", "batch_size", "lr", "limit")
        check_targets(self)

    def plan(self, subject: Subject) -> Plan:
        """List a library, if none is given, and a measure for each task. Raises E-TASK for fewer than two experts."""
        tasks, given = subject.tasks, subject.source
        if not tasks or len(tasks if given is None else given) < 2:
            found = f"{len(tasks)} tasks" if given is None else f"{len(tasks)} tasks of a library of {len(given)}"
            raise TaskError("E-TASK", f"study norms: {found}, expected at least 2 experts.", "Give more.")
        how: dict[str, Any] = {"batch_size": self.batch_size, "lr": self.lr, "seed": self.seed, **BRIEF}
        builder = Private(steps=self.steps, targets=self.targets, **how)
        builds = [] if given is not None else [Build(_PRIVATE, builder, tasks, is_shared=True)]
        library = _PRIVATE if given is None else GIVEN
        return Plan(builds, measures=[self._of_task(i, name, tasks, library) for i, name in enumerate(tasks)])

    def _of_task(self, place: int, name: str, tasks: Tasks, library: str) -> Measure:
        tested = Tasks([tasks[name].first(train=0, valid=0, test=self.limit)])
        compute = partial(_compare, library, name, tested, self.seed)
        options, examples = {"task": name, "seed": self.seed}, tested[name].test
        return Measure(_path(place), compute, Norms, [library], tested, options=options, examples=examples)

    # ---- what came out ----------------------------------------------------------------------------

    def judge(self, results: Results) -> list[Verdict]:
        """Judge whether the geometric mean of the ratio is above 1, for both ways to measure it."""
        return [self._verdict(way, _found(results)) for way in reversed(WAYS)]

    def _verdict(self, way: str, found: Sequence[Norms]) -> Verdict:
        text = f"the right expert's answer is larger than another's ({_IN_WORDS[way]})"
        said = Said(_CLAIMED[way][0], text, _CLAIMED[way][1], _MEANING)
        if not found:
            return said.verdict(None, "Nothing was measured.")
        logs = _values(found, f"{way}_log")
        mean, low, high = _interval(logs)
        first, _ = of_tasks([float(task.mean()) for task in logs])
        ratios = np.concatenate(_values(found, way))
        above = (float(np.expm1(mean)), float(np.expm1(low)), float(np.expm1(high)))
        by, least, most = (f"{100 * excess:+.3g}" for excess in above)
        share = f"above 1 for {100 * (ratios > 1).mean():.1f} % of {len(ratios)} examples"
        numbers = f"ratio beside 1: {by} % [{least}, {most}] (geometric mean), {_excess(ratios)} (mean); {share}."
        return said.by_interval(above, numbers, over_tasks=first > 0)

    def tables(self, results: Results, title: str) -> list[Table]:
        """Lay out the ratios, over all tasks and for each of them."""
        found = _found(results)
        if not found:
            return [Table((), (), title)]
        n_tasks, n = len({one.task for one in found}), sum(len(one.layer) for one in found)
        kinds = (("mean", "mean", _UNIT), ("geometric", "geometric mean", _UNIT), ("share", "above 1", "%"))
        columns = [Column("all tasks", key, label, unit, None, n_tasks, n) for key, label, unit in kinds]
        rows = [Row(_IN_WORDS[way], tuple(_cells(found, way))) for way in WAYS]
        names = list(dict.fromkeys(one.task for one in found))
        each = [(name, [one for one in found if one.task == name]) for name in names]
        of_task = [Column(_IN_WORDS[way], way, "geometric mean", _UNIT, None, n_tasks, n) for way in WAYS]
        lines = [Row(name, tuple(_cells(own, way)[1] for way in WAYS)) for name, own in each]
        note = (
            "Brackets: 95 % interval, bootstrap over examples. Ratio: the right expert's norm over another's, told "
            "as the percentage by which it lies above 1."
        )
        below = f"{title}: each task" if title else "each task"
        return [Table(tuple(columns), tuple(rows), title, note), Table(tuple(of_task), tuple(lines), below, note)]

    def figures(self, results: Results) -> list[Picture]:
        """Draw the ratios of all examples, a histogram for each way to measure them."""
        found = _found(results)
        if not found:
            return []
        panels = []
        for way in WAYS:
            values = np.concatenate(_values(found, way))
            said = f"mean 1 {_excess(values)}, above 1: {100 * (values > 1).mean():.1f} %"
            panels.append(Amounts(_IN_WORDS[way], values.tolist(), said))
        caption = (
            f"{sum(len(one.layer) for one in found)} examples of {len({one.task for one in found})} tasks. Across: the "
            "norm of the right expert's answer over that of another's at the same input, mean over the layers. Dotted: "
            "1, where both are equal. Orange: the mean. The last bar holds all that is beyond the 99.5th percentile."
        )
        title, label = "The right expert's norm over another's", "ratio of norms"
        return [draw_histograms(panels, x_label=label, caption=caption, name="norms", title=title)]


def _compare(path: str, task: str, tested: Tasks, seed: int, bench: Bench) -> Norms:
    library = bench.libraries[path]
    experts = open_experts(library)
    return compare_norms(bench.base, experts, _owner(library, task), task, tested[task].test, seed=seed)


def _owner(library: Library, task: str) -> str:
    """Name the expert of a task, the first by name if there are several. Raises E-TASK if there is none."""
    owners = [name for name in sorted(library) if task in library[name].provenance.tasks]
    if not owners:
        raise TaskError("E-TASK", f"study norms: no expert was trained on task {task!r}.", "Leave it out.")
    return owners[0]


def _found(results: Results) -> list[Norms]:
    return [one for measured in results.measured for one in measured.values() if isinstance(one, Norms)]


def _values(found: Sequence[Norms], which: str) -> list[NDArray[np.float64]]:
    """Give the values of each task's examples, (N_t,); those of several seeds stand in one row."""
    names = dict.fromkeys(one.task for one in found)
    return [np.concatenate([np.array(getattr(one, which)) for one in found if one.task == name]) for name in names]


def _interval(values: Sequence[NDArray[np.float64]]) -> tuple[float, float, float]:
    """Give the mean over tasks with its 95 % interval, of values (N_t,) of each."""
    low, high = central_interval(resampled_means(values, draws=_DRAWS, seed=0), 0.95)
    return float(np.mean([task.mean() for task in values])), low, high


def _cells(found: Sequence[Norms], way: str) -> list[Cell]:
    values = _values(found, way)
    mean, low, high = (100 * float(np.expm1(value)) for value in _interval(_values(found, f"{way}_log")))
    share = _interval([np.where(task > 1, 100.0, 0.0) for task in values])
    return [Cell(*_interval([100 * (task - 1) for task in values])), Cell(mean, low, high), Cell(*share)]


def _excess(ratios: NDArray[np.float64]) -> str:
    """Say by how much the mean lies above 1: of a layer with its adapter that is far less than a hundredth."""
    return f"{100 * (ratios.mean() - 1):+.3g} %"


def _path(place: int) -> str:
    return f"measures/norms{place:03}.json"
