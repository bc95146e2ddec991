"""What work leaves in .work/ while it isn't done: who does what is in the files, so that anybody may look.

    .work/
      plan-<key>.json      jobs and packs as the first worker grouped them, so that all have the same
      <pack>/              who works on a pack, and its checkpoints: see `claims`
      failed/<pack>.json   why a pack failed
      logs/                one file per worker process, and one per failure

All of it goes when everything that the plans make stands. Imports no torch: `lorary status` reads it.
"""

import contextlib
import json
import os
import re
import shutil
import stat
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

from lorary.disk.processes import WORK, beside, host
from lorary.disk.reading import require_plain_directory
from lorary.disk.writing import write_whole
from lorary.errors import LibraryError, quote
from lorary.hashing import is_short_key, short_key
from lorary.work.jobs import Pack
from lorary.work.records import are_texts, is_count, is_text, is_time, read_record, read_records

_MOST_TRIES = 8  # at what others may undo at the same moment
_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._=,+-]*")  # of a path that a plan names: it leads nowhere else


@dataclass(frozen=True)
class Failure:
    """Why a pack failed: one line, where its traceback is, in which run and when (seconds since 1970)."""

    error: str
    log: str
    run: str
    at: float


@dataclass(frozen=True)
class Worklist:
    """One plan's part of .work/ in the directory `root`."""

    root: Path
    key: str

    @property
    def work(self) -> Path:
        """The directory."""
        return self.root / WORK

    @property
    def logs(self) -> Path:
        """Where logs go."""
        return self.work / "logs"

    def pack_directory(self, pack: Pack) -> Path:
        """Where a pack's owners come and go."""
        return self.work / pack.key

    # ---- the plan -------------------------------------------------------------------------------

    def agree(self, jobs: Mapping[str, Sequence[str]], group: Callable[[], Sequence[Pack]]) -> tuple[Pack, ...]:
        """Give the packs of jobs (name -> what it makes) as the first worker grouped them; group them if that is us.

        Raises E-PATH if a link, or what is no file, stands in .work/.
        """
        check_work(self.root)
        path = self.work / f"plan-{self.key}.json"
        wanted = _members([Pack("", tuple(jobs), tuple(tuple(made) for made in jobs.values()), 0)])
        for _ in range(_MOST_TRIES):
            packs = read_packs(path)
            if _members(packs) == wanted:
                return packs
            path.unlink(missing_ok=True)  # there is none, or it is damaged
            grouped = group()
            assert _members(grouped) == wanted, "packs must hold each job once"
            assert all(map(_is_inside, (path for made in jobs.values() for path in made))), "paths must stay inside"
            with contextlib.suppress(FileNotFoundError):  # who ended another build removed .work/ at this moment
                self.work.mkdir(exist_ok=True)
                _write_unless_there(path, json.dumps([asdict(pack) for pack in grouped], indent=1))
        raise LibraryError("E-FILE", f"{str(path)!r} can't be read back as it was written.", "Look at the disk.")

    # ---- failures -------------------------------------------------------------------------------

    def failure(self, pack: Pack) -> Failure | None:
        """Read why a pack failed; None if it didn't."""
        return read_failure(self.root, pack)

    def fail(self, pack: Pack, error: str, details: str, run: str) -> Failure:
        """Keep why a pack failed, with details in a log."""
        log = self.logs / f"{pack.key}.log"
        said = f"{time.strftime('%Y-%m-%d %H:%M:%S')} {host()}:{os.getpid()} {', '.join(pack.names)}\n{details}\n"
        with open_log(log) as file:
            file.write(said.encode())
        failure = Failure(error, str(log.relative_to(self.root)), run, time.time())
        record = _record(self.root, pack)
        record.parent.mkdir(exist_ok=True)
        write_whole(record, json.dumps(asdict(failure)).encode())
        return failure

    def forget_failure(self, pack: Pack) -> None:
        """A pack that is done, or tried anew, has no failure."""
        _record(self.root, pack).unlink(missing_ok=True)


def open_log(path: Path) -> BinaryIO:
    """Open a log to write at its end. Whoever ends a build removes .work/, so its folder may go while we make it."""
    for _ in range(_MOST_TRIES):
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            return path.open("ab")
    return path.open("ab")


def clear(root: Path) -> None:
    """Remove the plans of which everything stands, and all of .work/ if no plan is left.

    A plan that can't be read is left, with the checkpoints that may be of it: its own build writes it anew. Raises
    E-PATH for a .work/ that is a link.
    """
    require_plain_directory(root / WORK)
    for plan in plans(root):
        packs = read_packs(plan)
        if packs and not any(pack.missing(root) for pack in packs):
            plan.unlink(missing_ok=True)
    if not plans(root):
        shutil.rmtree(root / WORK, ignore_errors=True)


def check_work(root: Path) -> None:
    """Raise E-PATH for what workers never make in .work/: links, which lead elsewhere, and pipes, which hang."""
    work = root / WORK
    require_plain_directory(work)
    for parent, folders, files in os.walk(work):
        for path in (Path(parent, name) for name in (*folders, *files)):
            if not _is_made_by_workers(path, is_top=path.parent == work):
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
    """List jobs with what they make, sorted."""
    return sorted(pair for pack in packs for pair in zip(pack.names, pack.made, strict=True))


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


def plans(root: Path) -> list[Path]:
    """List the plans that aren't done, oldest first."""
    found = []
    for name in _names_in(root / WORK):
        if name.startswith("plan-") and name.endswith(".json"):
            path = root / WORK / name
            with contextlib.suppress(FileNotFoundError):  # it went while we looked
                found.append((path.lstat().st_mtime, path.name, path))
    return [path for _, _, path in sorted(found)]


def _names_in(directory: Path) -> list[str]:
    """List what stands in a directory that whoever ends the work may remove at any time."""
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
    """Make a pack of what a file says; None where its key or what it makes, which become paths, could lead elsewhere.

    Plans of older versions, which name experts, are none either: who builds on writes them anew, and finds its packs.
    """
    if not isinstance(fields, dict) or fields.keys() != {"key", "names", "made", "n_steps"}:
        return None
    key, names, made, n_steps = (fields[name] for name in ("key", "names", "made", "n_steps"))
    if not (is_text(key) and is_short_key(key) and are_texts(names) and is_count(n_steps)):
        return None
    if not (isinstance(made, list) and len(made) == len(names) and all(map(are_texts, made))):
        return None
    if not all(_is_inside(path) for paths in made for path in paths):
        return None
    return Pack(key, tuple(names), tuple(map(tuple, made)), n_steps)


def _is_inside(path: str) -> bool:
    return all(map(_PART.fullmatch, path.split("/")))


def _record(root: Path, pack: Pack) -> Path:
    return root / WORK / "failed" / f"{pack.key}.json"


def read_failure(root: Path, pack: Pack) -> Failure | None:
    """Read why a pack failed; None if it didn't."""
    texts = dict.fromkeys(("error", "log", "run"), is_text)
    return read_record(_record(root, pack), Failure, {**texts, "at": is_time})


def failures_of(root: Path, run: str) -> dict[str, Failure]:
    """Tell which packs failed in a run and still miss something: the names of those jobs joined, and why."""
    unfinished = [pack for plan in plans(root) for pack in read_packs(plan) if pack.missing(root)]
    found = {", ".join(pack.missing(root)): read_failure(root, pack) for pack in unfinished}
    return {names: failure for names, failure in found.items() if failure and failure.run == run}


def plan_key(keys: Mapping[str, str]) -> str:
    """Name a plan by the keys of its jobs."""
    return short_key(sorted(keys.items()))
