"""Many jobs: run what is missing, finish each by one rename."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from lorary import __version__
from lorary.building.base import Builder, Job, Report
from lorary.errors import BuildError
from lorary.folder import BUILDERS
from lorary.hashing import hash_file, short_key
from lorary.library import derived
from lorary.library.library import Library
from lorary.library.provenance import Provenance
from lorary.model.base_model import BaseModel
from lorary.tasks.task import Tasks

WORK = ".work"
"""Checkpoints of unfinished jobs, inside the library's directory."""


def build(
    builder: Builder | str,
    tasks: Tasks,
    base: BaseModel,
    *,
    into: Path | str,
    source: Library | None = None,
    report: Report | None = None,
    on_plan: Callable[[Sequence[Job], Sequence[str]], None] | None = None,
) -> Library:
    """Build a library: plan the jobs, run those whose expert isn't there yet, one after the other.

    Interrupted or killed, a second call goes on where the first one was; the result is the same to the byte.
    `source`: the library that merges and adaptations start from; it is not changed.
    `on_plan` hears all jobs and the names of those already done.
    Raises E-EXISTS if the library holds an expert of that name that was built otherwise.
    """
    builder = BUILDERS.parse(builder) if isinstance(builder, str) else builder
    jobs = builder.plan(tasks, source)
    library = Library.create(Path(into), base=base.fingerprint, exist_ok=True)
    done = {job.name for job in jobs if _is_done(job, base, library)}
    if on_plan:
        on_plan(jobs, sorted(done))
    for pack in builder.packs(jobs, base):
        missing = [job for job in pack if job.name not in done]
        if missing:
            _run_pack(builder, pack, missing, base, library, report)
    shutil.rmtree(library.path / WORK, ignore_errors=True)
    return Library.open(into)


def _is_done(job: Job, base: BaseModel, library: Library) -> bool:
    standing = [name for name in job.experts if name in library]
    for name in standing:
        if library[name].provenance.extra.get("job") != job.key(base.fingerprint):
            raise BuildError(
                "E-EXISTS",
                f"library {str(library.path)!r} holds an expert {name!r} that was built with other options or data.",
                "Give another --into, or remove the expert.",
            )
    return len(standing) == len(job.experts)


def _run_pack(
    builder: Builder,
    pack: Sequence[Job],
    missing: Sequence[Job],
    base: BaseModel,
    library: Library,
    report: Report | None,
) -> None:
    """Run a pack as a whole, even if some of its experts stand, so that the others come out the same; commit each."""
    keys = {job.name: job.key(base.fingerprint) for job in pack}
    work = library.path / WORK / short_key(sorted(keys.items()))
    made = builder.run(pack, base, work, report)
    for kind, write in made.learned.items():
        derived.put(library, kind, keys[pack[0].name], "safetensors", write, learned=True)
    for job in missing:
        for name in (name for name in job.experts if name not in library):
            with library.stage(name) as stage:
                facts = made.experts[name](stage)
                provenance = make_provenance(facts, keys[job.name], base, stage)
                (stage / "expert.json").write_bytes(provenance.to_json())
    shutil.rmtree(work, ignore_errors=True)


def make_provenance(facts: dict[str, Any], key: str, base: BaseModel, stage: Path) -> Provenance:
    """Say where an expert comes from: the job's facts, the hash of its weights, the base, this version."""
    return Provenance(
        **facts,
        weights_sha256=hash_file(stage / "adapter_model.safetensors"),
        base_fingerprint=base.fingerprint,
        created_by=f"lorary {__version__}",
        extra={"job": key},
    )
