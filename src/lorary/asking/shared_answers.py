"""A file of prompts shared by workers: each group of rows is a job, and the file is put together of what they made."""

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

from lorary.adapters.contract import Mix
from lorary.asking.answers import Prompt, Wish, answer_group, check_answers, groups, header_of, parts_of
from lorary.asking.stream import Model
from lorary.disk.processes import beside
from lorary.disk.reading import absolute_name, as_path
from lorary.disk.writing import ELSEWHERE, disk_errors, write_whole
from lorary.errors import BuildError, EvaluationError, LoraryError
from lorary.evaluation.header import check_same
from lorary.evaluation.scores import to_line
from lorary.folder import BACKENDS
from lorary.hashing import short_key
from lorary.model.base.outline import bytes_of
from lorary.model.base.passes import count_passes
from lorary.progress import Tell
from lorary.routing.contract import Router
from lorary.tasks.task import Tasks
from lorary.using.base_of import base_of
from lorary.using.open_model import Choice, choose_model
from lorary.using.target import find_target
from lorary.work.backend import Backend, Order, Work, new_run
from lorary.work.claims import Claim
from lorary.work.jobs import Job, JobStep, Listener, OnPlan, Report, Runner
from lorary.work.share import Needs

_HEAD = "run.json"  # in the directory of parts: of what run they are


def answer_with_workers(
    target: Choice | str | PathLike[str], prompts: Sequence[Prompt], *, into: str | Path, wish: Wish | None = None,
    backend: Backend | str = "local", run: str | None = None, loading: Mapping[str, object] | None = None,
    report: Report | None = None, on_plan: OnPlan | None = None, tell: Tell | None = None,
) -> None:  # fmt: skip
    """Write the file that `answer_prompts` writes, by workers that share the prompts.

    target: what each worker opens: a library, a saved model, "base", or what `choose_model` gives; loading: what it
    takes besides, as device and dtype. Until all is answered, the parts are in `<into>.parts`, and any number of
    processes and hosts may work on them; the same call goes on where workers were killed. A group of rows is always
    answered together, so that the bytes are the same for any number of workers, with equal threads.
    `backend`, `run`, `report`, `on_plan`, `tell`: see `build_recipe`; steps are rows. Raises E-RUN if `into` is there
    already, and for another run's parts; E-JOBS for rows that can't be answered, E-DISK, E-PERM; and as `open_model`.
    """
    path = as_path(into).absolute()
    check_answers(path, by_workers=True)
    choice = target if isinstance(target, Choice) else choose_model(target)
    work = _work_of(choice, prompts, wish or Wish(), path, loading or {})
    work.check_begun()
    if path.exists():  # it was put together, and the process died before its parts were gone
        return work.discard_parts()
    order = Order(work, run or new_run(), Listener.of(on_plan, report, tell))
    place: Backend = BACKENDS.parse(backend) if isinstance(backend, str) else backend
    try:
        place.work(order)
        work.put_together()
    except (LoraryError, OSError):
        if not path.exists():  # else another process, which worked on the same parts, was first to put them together
            raise
    return work.discard_parts()


def _work_of(
    choice: Choice, prompts: Sequence[Prompt], wish: Wish, into: Path, loading: Mapping[str, Any]
) -> "AnswerWork":
    """Say it in absolute paths, so that any process can open the model."""
    target = choice.target
    base = target.base and absolute_name(target.base)
    path = target.path if target.is_bare else str(Path(target.path).absolute())
    mix = choice.mix if target.library is not None else None
    how = (path, base, choice.router, mix, choice.tasks, choice.max_share, dict(loading))
    return AnswerWork(*how, tuple(prompts), wish, into)


@dataclass(frozen=True)
class AnswerWork(Work):
    """Groups of rows to answer. target: the absolute path of a library or saved model, or "base"; base: see `Target`.

    loading: what a model is opened with.
    """

    target: str
    base: str | None
    router: Router | None
    mix: Mix | None
    tasks: Tasks | None
    max_share: float | None
    loading: Mapping[str, Any]
    prompts: tuple[Prompt, ...]
    wish: Wish
    into: Path

    @property
    def root(self) -> Path:
        """The directory of the parts."""
        return parts_of(self.into)

    @property
    def only_here(self) -> bool:
        """Whether the router is only in this process."""
        return type(self.router).__module__ == "__main__"

    @property
    def device(self) -> str:
        """Where the base is to be."""
        return str(self.loading.get("device", "auto"))

    def choice(self) -> Choice:
        """Find the model. Raises as `choose_model`."""
        return choose_model(
            find_target(self.target, self.base), router=self.router, mix=self.mix, tasks=self.tasks,
            max_share=self.max_share,
        )  # fmt: skip

    def require_root(self) -> None:
        """Raise E-RUN if the parts are gone, or are put together by now."""
        if self.into.exists():
            hint = "Write to another file, or delete this one."
            raise EvaluationError("E-RUN", f"{self.into} is there by now: another process wrote it.", hint)
        if not self.root.is_dir():
            what = f"directory {str(self.root)!r} is gone: it was moved or deleted while answers were written to it."
            raise EvaluationError("E-RUN", what, "The same command begins again.")

    def check_begun(self) -> None:
        """Refuse another run's parts as far as that can be seen before a model is opened. Raises E-RUN."""
        known = self.choice().identity
        with suppress(FileNotFoundError):
            found = self._read_head()
            theirs = found.get("model")
            found["model"] = {key: theirs.get(key) for key in known} if isinstance(theirs, Mapping) else theirs
            check_same(self.root, found, header_of(known, self.prompts, self.wish))

    def _read_head(self) -> dict[str, Any]:
        try:
            found = json.loads((self.root / _HEAD).read_bytes())
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise EvaluationError("E-RUN", f"{self.root}: no unfinished answers.", "Write to another file.")
        return found

    def load(self, listener: Listener) -> "AnswerRunner":
        """Open the model. Raises E-RUN for parts of another run."""
        model = self.choice().open(tell=listener.tell, **self.loading)
        header = header_of(model.identity, self.prompts, self.wish)
        with disk_errors(self.called, ELSEWHERE):
            self.root.mkdir(parents=True, exist_ok=True)
            if not (self.root / _HEAD).exists():
                write_whole(self.root / _HEAD, to_line(header))
        check_same(self.root, self._read_head(), header)
        return AnswerRunner(self, model, short_key(header))

    @property
    def needs(self) -> Needs:
        """Count the groups, and those that aren't answered. What a base takes that isn't here yet is unknown: 0."""
        names = [_file(group) for group in groups(len(self.prompts))]
        missing = [name for name in names if not (self.root / name).exists()]
        return Needs(len(names), len(missing), self._held_bytes())

    def _held_bytes(self) -> int:
        target = self.choice().target
        name = target.base or (base_of(target.library) if target.library is not None else None)
        return bytes_of(name) if name else 0

    def put_together(self) -> None:
        """Write the file of all parts, in their order. Raises E-DISK, E-PERM, and OSError where one is gone."""
        with disk_errors(f"{str(self.into)!r}", ELSEWHERE):
            write_whole(self.into, self._parts())

    def _parts(self) -> bytes:
        return b"".join((self.root / _file(group)).read_bytes() for group in groups(len(self.prompts)))

    def discard_parts(self) -> None:
        """Delete what the file was put together of. Raises E-RUN if the file isn't that."""
        away = beside(self.root)
        try:
            is_whole = self._parts() == self.into.read_bytes()
            if is_whole:
                self.root.rename(away)  # at once: half of the parts would be an unfinished run
        except FileNotFoundError:
            is_whole = not self.root.exists()  # another process does the same
        if not is_whole:
            what = f"{self.into} is there already, beside unfinished parts of it."
            raise EvaluationError("E-RUN", what, "Write to another file, or delete this one.")
        shutil.rmtree(away, ignore_errors=True)


@dataclass(frozen=True)
class _Part:
    """The lines of one group."""

    data: bytes
    failed: Mapping[str, LoraryError] = field(default_factory=dict)


class AnswerRunner(Runner):
    """Answers groups of rows, one after the other, with one model."""

    def __init__(self, work: AnswerWork, model: Model, key: str) -> None:
        self._work, self._model = work, model
        self._groups = {_name(group): group for group in groups(len(work.prompts))}
        self.jobs = [
            Job(name, short_key(key, name), (_file(group),), len(group)) for name, group in self._groups.items()
        ]

    def run(self, jobs: Sequence[Job], mine: Claim, report: Report) -> _Part:
        """Answer a group."""
        (job,) = jobs
        with count_passes(self._model.base, lambda _: mine.moved()):
            rows = answer_group(self._model, self._work.prompts, self._work.wish, self._groups[job.name])
        report(JobStep(job.name, len(rows), job.n_steps))
        return _Part(b"".join(map(to_line, rows)))

    def commit(self, job: Job, product: _Part) -> None:
        """Write a group's lines by one rename."""
        write_whole(self._work.root / job.made[0], product.data)

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Leave the base as it was."""
        with self._model:
            yield

    def check_made(self) -> None:
        """Raise E-JOBS if parts are missing though all groups were answered, and nobody put them together."""
        missing = [job.made[0] for job in self.jobs if not job.stands(self._work.root)]
        if missing and not self._work.into.exists():
            what = f"directory {str(self._work.root)!r}: {missing[0]!r} is missing though it was written"
            raise BuildError("E-JOBS", f"{what}: somebody removed it.", "The same command answers what is missing.")


def _name(group: range) -> str:
    return f"rows-{group.start + 1}-{group.stop}"


def _file(group: range) -> str:
    return f"{_name(group)}.jsonl"
