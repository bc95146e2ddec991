"""Tasks -> a new base: all weights are trained. The baseline that libraries are compared with; no library itself."""

import contextlib
import json
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from lorary import __version__
from lorary.building.contract import JobStep, Report, other_settings, settings_of
from lorary.building.training.job import TrainingJob, training_job
from lorary.building.training.loop import train
from lorary.building.training.options import TrainingOptions
from lorary.building.training.stack import Stack
from lorary.building.training.trainable import Trainable
from lorary.disk.arrival import arriving
from lorary.disk.writing import ELSEWHERE, check_writable, disk_errors
from lorary.errors import LibraryError, quote
from lorary.model.base.base_model import BaseModel
from lorary.options import require
from lorary.tasks.task import Tasks
from lorary.work.claims import HANG_S, LEASE_S, Claim, LeaseLostError, Watch, claim

FACTS = "training.json"
"""Where the new base comes from, beside its weights."""


@dataclass(frozen=True, kw_only=True)
class FullFineTuning(TrainingOptions):
    """Train all weights of the base on the union of all tasks (the paper's FullFT).

    Computed in float32 whatever the base is stored in; needs memory for five copies in float32, besides the base:
    weights, gradients, two moments, the best weights.
    Source: Ostapenko et al. 2024 (2405.11157) section 5 and its code: lr 3e-5, one epoch.
    Differs: as `TrainingOptions` has it; `as_paper(FullFineTuning)` gives the paper's values.
    """

    lr: float = 3e-5
    epochs: float = 1.0


def finetune(
    options: FullFineTuning, tasks: Tasks, base: BaseModel, *, into: Path | str, report: Report | None = None
) -> Path:
    """Train a copy of the base and write it to a new directory, which `load_base` and transformers open.

    Interrupted or killed, a second call resumes; the result is the same to the byte. The
    directory appears by one rename when all is in it. The base given is not changed. Of several processes that are
    asked for the same, one trains; the others wait for it, and take over if it dies.
    Raises E-EXISTS if the directory is there and was made otherwise, E-DATA for tasks without training examples,
    E-OPTION for a builder's options, which are of a library, E-DISK and E-PERM, before training if the directory
    can't be written.
    """
    require("options", options, FullFineTuning, "FullFineTuning(...)", "Builders make libraries: build(...).")
    into = Path(into)
    job = training_job(options, "full", list(tasks.values()))
    work, watch = into.with_name(f".{into.name}.work"), Watch()
    pack = work / job.key(base.identity)
    try:
        with disk_errors(quote(str(into), 200), ELSEWHERE):
            while not _stands(into, job, base):
                mine = claim(pack, watch)
                if mine is None:
                    time.sleep(min(1.0, LEASE_S / 10))
                    continue
                with contextlib.suppress(LeaseLostError), mine.held(HANG_S):
                    _work(options, job, base, into, mine, report)
                    shutil.rmtree(work, ignore_errors=True)
    finally:
        for left in (pack, work):
            with contextlib.suppress(OSError):  # unless there is work in it
                left.rmdir()
    return into


def check_into(into: Path) -> None:
    """Refuse a directory that no run can have made, before a base is loaded. Raises E-EXISTS, E-PATH, E-PERM."""
    if into.exists() and not (into / FACTS).is_file():
        what = f"{str(into)!r} exists and was not made by `lorary finetune`."
        raise LibraryError("E-EXISTS", what, "Give another --into, or remove it.")
    check_writable(into)


def _work(
    options: FullFineTuning, job: TrainingJob, base: BaseModel, into: Path, mine: Claim, report: Report | None
) -> None:
    """Train as the only one; what another made meanwhile is as good."""

    def report_step(step: JobStep) -> None:
        mine.reached(step.step)
        if report:
            report(step)

    try:
        if not _stands(into, job, base):
            _make(options, job, base, into, mine, report_step)
    except BaseException as error:
        if not mine.is_lost and not any(mine.directory.glob("checkpoint*")):
            mine.finish()  # nothing to go on from: the disk refused before training began
        if not isinstance(error, (LibraryError, OSError)) or not _stands(into, job, base):
            raise


def _make(options: FullFineTuning, job: TrainingJob, base: BaseModel, into: Path, mine: Claim, report: Report) -> None:
    copy = base.trainable_copy()
    trainable = Trainable(copy, [job.pupil(copy)], {"weights": Stack(list(copy.hf.parameters()), 1, lr=options.lr)})
    (curve,) = train(trainable, options, job.n_steps, mine.directory, report)
    mine.check()
    with arriving(into) as stage:
        facts = job.write_facts(stage, curve)
        copy.write(stage)
        made_by = {"job": mine.pack.name, **settings_of(base), "base_fingerprint": base.fingerprint}
        _write_facts(stage / FACTS, {**facts, **made_by})


def _stands(into: Path, job: TrainingJob, base: BaseModel) -> bool:
    if not into.exists():
        return False
    try:
        found = json.loads((into / FACTS).read_text(encoding="utf-8"))
        made_by = found["job"]
    except (OSError, ValueError, KeyError, TypeError):
        found, made_by = {}, None
    facts = base.identity
    if made_by != job.key(facts):
        how, remedy = other_settings(job, made_by, found, facts)
        why = f": it was made {how}" if how else " and was not made by this run: other options, data or base"
        raise LibraryError("E-EXISTS", f"{str(into)!r} exists{why}.", f"{remedy}Give another --into, or remove it.")
    return True


def _write_facts(path: Path, facts: dict[str, object]) -> None:
    content = {**facts, "created_by": f"lorary {__version__}"}
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
