"""The libraries and measures of a study, as one of its workers makes them with the others."""

import os
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

from lorary.building.build_work import Build as BuildWork
from lorary.building.contract import Builder, JobStep
from lorary.building.finetune import FullFineTuning, finetune
from lorary.library.library import Library
from lorary.model.base.base_model import BaseModel
from lorary.studies.contract import GIVEN, Bench, Build, Measure, Plan
from lorary.studies.kept import kept
from lorary.studies.sharing.cpu_time import counted
from lorary.studies.sharing.measure_work import MeasureWork
from lorary.work.backend import Order, Work
from lorary.work.jobs import Listener, Pack
from lorary.work.share import torch_threads
from lorary.work.worker import Worker, join

_PAUSE_S = 0.2  # while others work on all that could be done


@dataclass(frozen=True)
class Place:
    """Where one repeat of a study goes. shared: where the libraries go that other studies have in common with it."""

    into: Path
    shared: Path
    plan: Plan

    @property
    def paths(self) -> list[Path]:
        """List what all parts make: libraries, measures, scores."""
        made = [*map(self.of, self.plan.builds), *map(self.of, self.plan.measures)]
        return [*made, *(self.into / cell.path for cell in self.plan.cells)]

    def of(self, part: Build | Measure) -> Path:
        """Say where a library or a measure goes."""
        return (self.shared if isinstance(part, Build) and part.is_shared else self.into) / part.path


@dataclass
class Repeat:
    """What of one repeat is there, and what isn't yet. tuned: fine-tuned copies of the base, by their paths."""

    place: Place
    bench: Bench
    waiting: list[Build | Measure]
    tuned: dict[str, Path] = field(default_factory=dict)

    def ready(self) -> list[Build | Measure]:
        """List what could be made now, in the order of the plan."""
        return [part for part in self.waiting if self._is_ready(part)]

    def _is_ready(self, part: Build | Measure) -> bool:
        made = {*self.bench.libraries, *self.bench.measured, *self.tuned}
        if isinstance(part, Measure):
            return {*part.libraries, *part.after} <= made
        needed = {*part.after, *([part.source] if part.source else [])}
        if callable(part.builder):  # it may look at all that is built before it
            builds = self.place.plan.builds
            needed |= {one.path for one in builds[: list(builds).index(part)]}
        return needed <= made

    def add(self, part: Build | Measure) -> None:
        """Take note of what stands."""
        self.waiting.remove(part)
        path, bench = self.place.of(part), self.bench
        if isinstance(part, Measure):
            found = {**bench.measured, part.path: kept(part, bench, self.place.into)}
            self.bench = replace(bench, measured=found)
        elif isinstance(part.builder, FullFineTuning):
            self.tuned[part.path] = path
        else:
            self.bench = replace(bench, libraries={**bench.libraries, part.path: Library.open(path)})


@dataclass
class Making:
    """One worker's part in making what a study builds and measures.

    threads: of each pack, None for as many as torch has. times: the file that the processor's time is noted in.
    """

    base: BaseModel
    order: Order
    threads: int | None
    times: Path
    _open: dict[Path, tuple[Worker, list[Pack]]] = field(default_factory=dict)

    def make_all(self, places: Mapping[str, Place], source: Library | None) -> dict[str, Repeat]:
        """Make everything, or wait until others have. Raises what building and measuring raise."""
        given = {} if source is None else {GIVEN: source}
        repeats = {
            name: Repeat(place, Bench(self.base, given), [*place.plan.builds, *place.plan.measures])
            for name, place in places.items()
        }
        while any(repeat.waiting for repeat in repeats.values()):
            found = [(repeat, part) for repeat in repeats.values() for part in repeat.ready()]
            if not any(self._advance(repeat, part) for repeat, part in found):
                time.sleep(_PAUSE_S)
        return repeats

    def _advance(self, repeat: Repeat, part: Build | Measure) -> bool:
        """Make of a part what is free. Tells whether anything came of it."""
        path = repeat.place.of(part)
        with self._threads(), counted(self.times, os.path.relpath(path, self.times.parent)):
            is_done, moved = self._tuned(repeat, part, path) or self._worked(repeat, part, path)
        if is_done:
            repeat.add(part)
        return moved

    def _tuned(self, repeat: Repeat, part: Build | Measure, path: Path) -> tuple[bool, bool] | None:
        if not isinstance(part, Build) or not isinstance(part.builder, FullFineTuning):
            return None
        self._say_building(part)
        finetune(part.builder, part.tasks, self.base, into=path, report=self._on_step)
        return True, True

    def _worked(self, repeat: Repeat, part: Build | Measure, path: Path) -> tuple[bool, bool]:
        """Join the work on a library or a measure: whether it is done, and whether this worker did anything."""
        if path not in self._open:
            worker = self._join(repeat, part, path)
            if worker is None:
                return True, True
            self._open[path] = worker, list(worker.packs)
        worker, left = self._open[path]
        with worker.runner.at_work():
            settled = [pack for pack in list(left) if worker.try_pack(pack)]
        left[:] = [pack for pack in left if pack not in settled]
        if left:
            return False, bool(settled)
        worker.finish()
        del self._open[path]
        return True, True

    def _join(self, repeat: Repeat, part: Build | Measure, path: Path) -> Worker | None:
        if isinstance(part, Measure):
            work: Work = MeasureWork(part, repeat.bench, repeat.place.into)
        else:
            assert not isinstance(part.builder, FullFineTuning)
            self._say_building(part)
            builder = part.builder if isinstance(part.builder, Builder) else part.builder(repeat.bench)
            source = None if part.source is None else repeat.bench.libraries[part.source]
            work = BuildWork(builder, part.tasks, self.base, path, source)
        listener = Listener.of(None, self._on_step, self.order.listener.tell)
        return join(replace(self.order, work=work, listener=listener))

    def _say_building(self, part: Build) -> None:
        self.order.listener.tell(f"building {Path(part.path).name}")

    def _on_step(self, step: JobStep) -> None:
        self.order.listener.on_step(step)
        if step.step == step.n_steps:
            self.order.listener.tell(f"made {step.job}")

    def _threads(self) -> AbstractContextManager[None]:
        return nullcontext() if self.threads is None else torch_threads(self.threads)
