"""What a build leaves in .work/ while it isn't done: who does what is in the files, so that anybody may look.

    .work/
      plan-<key>.json      jobs and packs as the first worker grouped them, so that all have the same
      <pack>/              who works on a pack, and its checkpoints: see `claims`
      failed/<pack>.json   why a pack failed
      logs/                one file per worker process, and one per failure

All of it goes when every expert of the plan stands. Imports no torch: `lorary status` reads it.
"""

import contextlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lorary.disk import write_whole
from lorary.hashing import short_key
from lorary.library.layout import Layout
from lorary.library.processes import host

WORK = ".work"


@dataclass(frozen=True)
class Pack:
    """Jobs that run together. names: of its jobs; experts: of each job, in the same order; n_steps: of each job."""

    key: str
    names: tuple[str, ...]
    experts: tuple[tuple[str, ...], ...]
    n_steps: int

    def missing(self, layout: Layout) -> list[str]:
        """Name the jobs whose experts don't all stand."""
        standing = zip(self.names, self.experts, strict=True)
        return [name for name, made in standing if not all(layout.expert(e).is_dir() for e in made)]


@dataclass(frozen=True)
class Failure:
    """Why a pack failed: one line, where its traceback is, in which run and when (seconds since 1970)."""

    error: str
    log: str
    run: str
    at: float


@dataclass(frozen=True)
class Worklist:
    """One plan's part of .work/ in a library."""

    layout: Layout
    key: str

    @property
    def work(self) -> Path:
        """The directory."""
        return self.layout.root / WORK

    @property
    def logs(self) -> Path:
        """Where logs go."""
        return self.work / "logs"

    def pack_directory(self, pack: Pack) -> Path:
        """Where a pack's owners come and go."""
        return self.work / pack.key

    # ---- the plan -------------------------------------------------------------------------------

    def agree(self, names: Collection[str], group: Callable[[], Sequence[Pack]]) -> tuple[Pack, ...]:
        """Give the packs of the named jobs as the first worker grouped them; group them if that is us."""
        path = self.work / f"plan-{self.key}.json"
        packs = read_packs(path)
        while _names(packs) != sorted(names):
            path.unlink(missing_ok=True)  # there is none, or it is damaged
            self.work.mkdir(exist_ok=True)
            grouped = group()
            assert _names(grouped) == sorted(names), "packs must hold each job once"
            _write_unless_there(path, json.dumps([asdict(pack) for pack in grouped], indent=1))
            packs = read_packs(path)
        return packs

    # ---- failures -------------------------------------------------------------------------------

    def failure(self, pack: Pack) -> Failure | None:
        """Read why a pack failed; None if it didn't."""
        return read_failure(self.layout, pack)

    def fail(self, pack: Pack, error: str, details: str, run: str) -> Failure:
        """Keep why a pack failed, with details in a log."""
        log = self.logs / f"{pack.key}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("a", encoding="utf-8") as file:
            file.write(
                f"{time.strftime('%Y-%m-%d %H:%M:%S')} {host()}:{os.getpid()} {', '.join(pack.names)}\n{details}\n"
            )
        failure = Failure(error, str(log.relative_to(self.layout.root)), run, time.time())
        record = _record(self.layout, pack)
        record.parent.mkdir(exist_ok=True)
        write_whole(record, json.dumps(asdict(failure)).encode())
        return failure

    def forget_failure(self, pack: Pack) -> None:
        """A pack that is done, or tried anew, has no failure."""
        _record(self.layout, pack).unlink(missing_ok=True)


def clear(layout: Layout) -> None:
    """Remove the plans whose experts all stand, and all of .work/ if no plan is left."""
    for plan in plans(layout):
        if not any(pack.missing(layout) for pack in read_packs(plan)):
            plan.unlink(missing_ok=True)
    if not plans(layout):
        shutil.rmtree(layout.root / WORK, ignore_errors=True)


def _names(packs: Sequence[Pack]) -> list[str]:
    return sorted(name for pack in packs for name in pack.names)


def _write_unless_there(path: Path, content: str) -> None:
    """Write a whole file unless it is there: the first of several wins."""
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    beside.write_text(content, encoding="utf-8")
    try:
        with contextlib.suppress(FileExistsError):
            os.link(beside, path)
    except OSError:  # a disk without links: two may write in the same instant, equal plans as a rule
        os.replace(beside, path)
    beside.unlink(missing_ok=True)


def plans(layout: Layout) -> list[Path]:
    """List the plans of a library that aren't done, oldest first."""
    found = (layout.root / WORK).glob("plan-*.json")
    with contextlib.suppress(FileNotFoundError):
        return sorted(found, key=lambda path: (path.stat().st_mtime, path.name))
    return plans(layout)  # one went while we looked


def read_packs(plan: Path) -> tuple[Pack, ...]:
    """Read a plan; none if it went meanwhile or isn't one."""
    try:
        return tuple(_pack(fields) for fields in json.loads(plan.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, KeyError):
        return ()


def _pack(fields: Mapping[str, Any]) -> Pack:
    experts = tuple(tuple(map(str, made)) for made in fields["experts"])
    return Pack(str(fields["key"]), tuple(map(str, fields["names"])), experts, int(fields["n_steps"]))


def _record(layout: Layout, pack: Pack) -> Path:
    return layout.root / WORK / "failed" / f"{pack.key}.json"


def read_failure(layout: Layout, pack: Pack) -> Failure | None:
    """Read why a pack failed; None if it didn't."""
    try:
        return Failure(**json.loads(_record(layout, pack).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def failures_of(layout: Layout, run: str) -> dict[str, Failure]:
    """Tell which packs failed in a run and still miss experts: the names of those jobs joined, and why."""
    unfinished = [pack for plan in plans(layout) for pack in read_packs(plan) if pack.missing(layout)]
    found = {", ".join(pack.missing(layout)): read_failure(layout, pack) for pack in unfinished}
    return {names: failure for names, failure in found.items() if failure and failure.run == run}


def plan_key(keys: Mapping[str, str]) -> str:
    """Name a plan by the keys of its jobs."""
    return short_key(sorted(keys.items()))
