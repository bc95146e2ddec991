"""Tasks -> a new base: all weights are trained. The baseline that libraries are compared with; no library itself."""

import contextlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from lorary import __version__
from lorary.building.base import Report
from lorary.building.job import TrainingJob, TrainingOptions
from lorary.building.learner import Learner
from lorary.building.stack import Stack
from lorary.building.train import train
from lorary.disk import ELSEWHERE, disk_errors
from lorary.errors import BuildError
from lorary.library.findings import quote
from lorary.model.base_model import BaseModel
from lorary.options import require
from lorary.tasks.task import Tasks

FACTS = "training.json"
"""Where the new base comes from, beside its weights."""


@dataclass(frozen=True, kw_only=True)
class FullFineTuning(TrainingOptions):
    """Train all weights of the base on the union of all tasks (the paper's FullFT).

    Computed in float32 whatever the base is stored in; needs memory for five copies in float32, besides the base:
    weights, gradients, two moments, the best weights.
    Source: Ostapenko et al. 2024 (2405.11157) section 5 and its code: lr 3e-5, one epoch.
    """

    lr: float = 3e-5
    epochs: float = 1.0


def finetune(
    options: FullFineTuning, tasks: Tasks, base: BaseModel, *, into: Path | str, report: Report | None = None
) -> Path:
    """Train a copy of the base and write it to a new directory, which `load_base` and transformers open.

    Interrupted or killed, a second call goes on where the first one was; the result is the same to the byte. The
    directory appears by one rename when all is in it. The base given is not changed.
    Raises E-EXISTS if the directory is there and was made otherwise, E-DATA for tasks without training examples,
    E-OPTION for a builder's options, which are of a library, E-DISK and E-PERM, before training if the directory
    can't be written.
    """
    require("options", options, FullFineTuning, "FullFineTuning(...)", "Builders make libraries: build(...).")
    into = Path(into)
    job = options.job("full", list(tasks.values()))
    key = job.key(base.origin)
    if _stands(into, key):
        return into
    work = into.with_name(f".{into.name}.work")
    try:
        with disk_errors(quote(str(into), 200), ELSEWHERE):
            _make(options, job, base, into, work / key, report)
            shutil.rmtree(work, ignore_errors=True)
    finally:
        for left in (work / key, work):
            with contextlib.suppress(OSError):  # only what is empty goes: the disk refused before training began
                left.rmdir()
    return into


def _make(
    options: FullFineTuning, job: TrainingJob, base: BaseModel, into: Path, work: Path, report: Report | None
) -> None:
    copy = base.trainable_copy()
    learner = Learner(copy, [job.pupil(copy)], {"weights": Stack(list(copy.hf.parameters()), 1, lr=options.lr)})
    (curve,) = train(learner, options, job.n_steps, work, report)
    stage = work.with_name("stage")
    shutil.rmtree(stage, ignore_errors=True)
    stage.mkdir(parents=True)
    facts = job.write_facts(stage, curve)
    copy.write(stage)
    _write_facts(stage / FACTS, {**facts, "job": work.name, "base_fingerprint": base.fingerprint})
    stage.rename(into)


def _stands(into: Path, key: str) -> bool:
    if not into.exists():
        return False
    try:
        made_by = json.loads((into / FACTS).read_text(encoding="utf-8"))["job"]
    except (OSError, ValueError, KeyError, TypeError):
        made_by = None
    if made_by != key:
        raise BuildError(
            "E-EXISTS", f"{str(into)!r} is there and was not made by this run: other options, data or base.",
            "Give another --into, or remove it.",
        )  # fmt: skip
    return True


def _write_facts(path: Path, facts: dict[str, object]) -> None:
    content = {**facts, "created_by": f"lorary {__version__}"}
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
