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
import shutil
import stat
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

from lorary.building.work.records import are_texts, is_count, is_text, is_time, read_record, read_records
from lorary.disk.processes import beside, host
from lorary.disk.writing import write_whole
from lorary.errors import BuildError, LibraryError, quote
from lorary.hashing import is_short_key, short_key
from lorary.library.layout import Layout, check_name

_MOST_TRIES = 8  # at what others may undo at the same moment


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
        return self.layout.work

    @property
    def logs(self) -> Path:
        """Where logs go."""
        return self.work / "logs"

    def pack_directory(self, pack: Pack) -> Path:
        """Where a pack's owners come and go."""
        return self.work / pack.key

    # ---- the plan -------------------------------------------------------------------------------

    def agree(self, jobs: Mapping[str, Sequence[str]], group: Callable[[], Sequence[Pack]]) -> tuple[Pack, ...]:
        """Give the packs of jobs (name -> its experts) as the first worker grouped them; group them if that is us.

        Raises E-PATH if a link, or what is no file, stands in .work/, E-NAME for an expert's name that is refused.
        """
        check_work(self.layout)
        path = self.work / f"plan-{self.key}.json"
        wanted = _members([Pack("", tuple(jobs), tuple(tuple(made) for made in jobs.values()), 0)])
        for _ in range(_MOST_TRIES):
            packs = read_packs(path)
            if _members(packs) == wanted:
                return packs
            path.unlink(missing_ok=True)  # there is none, or it is damaged
            grouped = group()
            assert _members(grouped) == wanted, "packs must hold each job once"
            for expert in (expert for made in jobs.values() for expert in made):
                check_name(expert)
            with contextlib.suppress(FileNotFoundError):  # who ended another build removed .work/ at this moment
                self.work.mkdir(exist_ok=True)
                _write_unless_there(path, json.dumps([asdict(pack) for pack in grouped], indent=1))
        raise BuildError("E-FILE", f"{str(path)!r} can't be read back as it was written.", "Look at the disk.")

    # ---- failures -------------------------------------------------------------------------------

    def failure(self, pack: Pack) -> Failure | None:
        """Read why a pack failed; None if it didn't."""
        return read_failure(self.layout, pack)

    def fail(self, pack: Pack, error: str, details: str, run: str) -> Failure:
        """Keep why a pack failed, with details in a log."""
        log = self.logs / f"{pack.key}.log"
        said = f"{time.strftime('%Y-%m-%d %H:%M:%S')} {host()}:{os.getpid()} {', '.join(pack.names)}\n{details}\n"
        with open_log(log) as file:
            file.write(said.encode())
        failure = Failure(error, str(log.relative_to(self.layout.root)), run, time.time())
        record = _record(self.layout, pack)
        record.parent.mkdir(exist_ok=True)
        write_whole(record, json.dumps(asdict(failure)).encode())
        return failure

    def forget_failure(self, pack: Pack) -> None:
        """A pack that is done, or tried anew, has no failure."""
        _record(self.layout, pack).unlink(missing_ok=True)


def open_log(path: Path) -> BinaryIO:
    """Open a log to write at its end. Whoever ends a build removes .work/, so its folder may go while we make it."""
    for _ in range(_MOST_TRIES):
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            return path.open("ab")
    return path.open("ab")


def clear(layout: Layout) -> None:
    """Remove the plans whose experts all stand, and all of .work/ if no plan is left.

    A plan that can't be read is left, with the checkpoints that may be of it: its own build writes it anew. Raises
    E-PATH for a .work/ that is a link.
    """
    layout.require_plain()
    for plan in plans(layout):
        packs = read_packs(plan)
        if packs and not any(pack.missing(layout) for pack in packs):
            plan.unlink(missing_ok=True)
    if not plans(layout):
        shutil.rmtree(layout.work, ignore_errors=True)


def check_work(layout: Layout) -> None:
    """Raise E-PATH for what workers never make in .work/: links, which lead elsewhere, and pipes, which hang."""
    layout.require_plain()
    for parent, folders, files in os.walk(layout.work):
        for path in (Path(parent, name) for name in (*folders, *files)):
            if not _is_made_by_workers(path, is_top=path.parent == layout.work):
                message = f"{quote(str(path), 200)} is no plain file or directory of a build."
                raise LibraryError("E-PATH", message, "Look at it and remove it: no worker made it.")


def _is_made_by_workers(path: Path, *, is_top: bool) -> bool:
    try:
        mode = path.lstat().st_mode
    except OSError:  # another worker is done with it
        return True
    if stat.S_ISREG(mode):
        return not (is_top and (is_short_key(path.name) or path.name in ("failed", "logs")))
    return stat.S_ISDIR(mode) and path.suffix not in (".json", ".log")


def _members(packs: Sequence[Pack]) -> list[tuple[str, tuple[str, ...]]]:
    """List jobs with their experts, sorted."""
    return sorted(pair for pack in packs for pair in zip(pack.names, pack.experts, strict=True))


def _write_unless_there(path: Path, content: str) -> None:
    """Write a whole file unless it is there: the first of several wins."""
    arriving = beside(path)
    arriving.write_text(content, encoding="utf-8")
    try:
        with contextlib.suppress(FileExistsError):
            os.link(arriving, path)
    except OSError:  # a disk without links: two may write in the same instant, equal plans as a rule
        os.replace(arriving, path)
    arriving.unlink(missing_ok=True)


def plans(layout: Layout) -> list[Path]:
    """List the plans of a library that aren't done, oldest first."""
    found = []
    for name in _names_in(layout.work):
        if name.startswith("plan-") and name.endswith(".json"):
            path = layout.work / name
            with contextlib.suppress(FileNotFoundError):  # it went while we looked
                found.append((path.lstat().st_mtime, path.name, path))
    return [path for _, _, path in sorted(found)]


def _names_in(directory: Path) -> list[str]:
    """List what stands in a directory that whoever ends a build may remove at any time."""
    try:
        return os.listdir(directory)
    except (FileNotFoundError, NotADirectoryError):
        return []


def read_packs(plan: Path) -> tuple[Pack, ...]:
    """Read a plan; none if it went meanwhile or isn't one: then no part of it counts."""
    packs = [_pack(fields) for fields in read_records(plan)]
    sound = tuple(pack for pack in packs if pack is not None)
    return sound if len({pack.key for pack in sound}) == len(packs) else ()


def _pack(fields: Any) -> Pack | None:
    """Make a pack of what a file says; None where its key, which becomes a path, or a name could lead elsewhere."""
    if not isinstance(fields, dict) or fields.keys() != {"key", "names", "experts", "n_steps"}:
        return None
    key, names, experts, n_steps = (fields[name] for name in ("key", "names", "experts", "n_steps"))
    if not (is_text(key) and is_short_key(key) and are_texts(names) and is_count(n_steps)):
        return None
    if not (isinstance(experts, list) and len(experts) == len(names) and all(map(are_texts, experts))):
        return None
    try:
        for expert in (expert for made in experts for expert in made):
            check_name(expert)
    except LibraryError:
        return None
    return Pack(key, tuple(names), tuple(map(tuple, experts)), n_steps)


def _record(layout: Layout, pack: Pack) -> Path:
    return layout.work / "failed" / f"{pack.key}.json"


def read_failure(layout: Layout, pack: Pack) -> Failure | None:
    """Read why a pack failed; None if it didn't."""
    texts = dict.fromkeys(("error", "log", "run"), is_text)
    return read_record(_record(layout, pack), Failure, {**texts, "at": is_time})


def failures_of(layout: Layout, run: str) -> dict[str, Failure]:
    """Tell which packs failed in a run and still miss experts: the names of those jobs joined, and why."""
    unfinished = [pack for plan in plans(layout) for pack in read_packs(plan) if pack.missing(layout)]
    found = {", ".join(pack.missing(layout)): read_failure(layout, pack) for pack in unfinished}
    return {names: failure for names, failure in found.items() if failure and failure.run == run}


def plan_key(keys: Mapping[str, str]) -> str:
    """Name a plan by the keys of its jobs."""
    return short_key(sorted(keys.items()))
