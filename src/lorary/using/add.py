"""Adapters that others trained -> experts of a library: each is compared with the base, and taken in if it passes."""

import contextlib
import dataclasses
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import NoneType

from lorary.disk.processes import scratch
from lorary.errors import LibraryError, LoraryError, OptionError
from lorary.library.adapter.chat_template import judge_template
from lorary.library.adapter.check import Finding
from lorary.library.adapter.expert import accept
from lorary.library.adapter.opened import OpenAdapter, open_adapter
from lorary.library.adapter.provenance import Provenance
from lorary.library.hijack_note import noted_hijacks
from lorary.library.layout import Layout, check_name
from lorary.library.library import Library
from lorary.library.sameness import look_for_twins, look_for_zeros
from lorary.model.base.base_model import load_base
from lorary.model.routed.route import route
from lorary.options import require, require_each
from lorary.progress import Tell
from lorary.using.base_of import base_of
from lorary.using.library_base import LibraryBase
from lorary.using.sources import Source, fetched, find_sources

_STOPPING = ("E-DISK", "E-PERM")
Given = str | os.PathLike[str] | Source


@dataclasses.dataclass(frozen=True)
class Added:
    """An adapter that is an expert now. source: as it was given; about: its size, for people."""

    expert: str
    source: str
    findings: tuple[Finding, ...]
    about: str


@dataclasses.dataclass(frozen=True)
class Refused:
    """An adapter that didn't pass, and why."""

    source: str
    error: LoraryError


@dataclasses.dataclass(frozen=True)
class Additions:
    """What became of adapters. kept: experts that stood already as they are; notes: what else was said, in order."""

    library: Path
    added: tuple[Added, ...]
    kept: tuple[str, ...]
    refused: tuple[Refused, ...]
    notes: tuple[str, ...]

    def __str__(self) -> str:
        kept = f", {len(self.kept)} were there already" if self.kept else ""
        return f"{self.library}: {len(self.added)} added, {len(self.refused)} refused{kept}"

    def plain(self) -> dict[str, object]:
        """Tell all in dictionaries, lists and text, as JSON has them."""
        added = [
            {"expert": one.expert, "source": one.source, "findings": [vars(finding) for finding in one.findings]}
            for one in self.added
        ]
        refused = [{"source": one.source, "code": one.error.code, "error": str(one.error)} for one in self.refused]
        return {"library": str(self.library), "added": added, "kept": list(self.kept), "refused": refused}


def add(
    library: Library | str | os.PathLike[str],
    sources: Given | Sequence[Given],
    *,
    name: str | None = None,
    tasks: Sequence[str] = (),
    base: str | None = None,
    vocab_size: int | None = None,
    replace: bool = False,
    probe: bool = False,
    tell: Tell | None = None,
) -> Additions:
    """Check adapters and copy them into a library, which is made when the first one passes.

    `sources`: PEFT adapter directories, folders of them, hf://user/repo[/folder][@revision], hf://collections/user/slug,
    or libraries of mttl, the paper's code: directories of .ckpt and .meta files, or mttl://user/repo. From a directory
    that holds several, as PEFT saves them, all are taken, but a trainer's checkpoints. An expert that stands already,
    the same, is kept. `name`: of a single adapter; else they are called by their directories. `tasks`: that they were
    trained on; {name} stands for the expert's name. `base`: the base they were trained on, whatever name they give it.
    `vocab_size`: how many rows its embedding had before others were added. `replace`: experts of the same names.
    `probe`: load the base, and find out who would take most of every text (W-HIJACK). `tell` hears each warning and
    result as it comes.
    A single adapter that is refused raises what is wrong with it; of several, the others are taken, and `refused` has
    the errors. Raises E-FILE and E-HUB for a single source that holds none, E-BASE, E-OPTION, E-EXISTS and E-PATH
    where no library can be, E-DISK, E-PERM.
    """
    given = [sources] if isinstance(sources, str | os.PathLike | Source) else sources
    require("library", library, (Library, str, os.PathLike), "a library or the path of one")
    require_each("sources", given, (str, os.PathLike, Source), "paths or hf:// names", "Give one or a list of them.")
    require_each("tasks", tasks, str, "names of tasks")
    require("base", base, (str, NoneType), "the name of a base")
    if not given:
        raise OptionError("E-OPTION", "sources is an empty list.", "Give at least one.")
    notes: list[str] = []

    def note(line: str) -> None:
        notes.append(line)
        if tell is not None:
            tell(line)

    with scratch() as folder:
        unread = [source for source in given if not isinstance(source, Source)]
        found = find_sources(unread, folder, note) if unread else []
        found += [source for source in given if isinstance(source, Source)]
        is_lone = len(found) == 1 and not found[0].is_one_of_many
        require_lone(name, is_lone)
        arrivals = _Arrivals(library, tuple(tasks), base, vocab_size, replace, note)
        if is_lone:
            arrivals.take(dataclasses.replace(found[0], name=name or found[0].name))
        else:
            arrivals.take_all(fetched(found, folder, note))
    if probe:
        arrivals.probe()
    return Additions(arrivals.path, tuple(arrivals.added), tuple(arrivals.kept), tuple(arrivals.refused), tuple(notes))


def require_lone(name: str | None, is_lone: bool) -> None:
    """Refuse a name for several adapters. Raises E-OPTION."""
    if name is not None and not is_lone:
        what = f"name={name!r}: it names a single adapter; several keep the names of their directories."
        raise OptionError("E-OPTION", what, "Add one alone, or leave it out.")


def _opened(path: Path) -> Library | None:
    """Open a library that is there, bad experts and all: one of them may be what is to be replaced."""
    return Library.open(path, skip_bad=True) if Layout(path).manifest.exists() else None


class _Arrivals:
    """Adapters on their way into one library. base, vocab_size: what the user says they were trained on."""

    def __init__(
        self, library: Library | str | os.PathLike[str], tasks: tuple[str, ...], base: str | None,
        vocab_size: int | None, replace: bool, tell: Tell,
    ) -> None:  # fmt: skip
        self._tasks, self._asked, self._replace, self._tell = tasks, base, replace, tell
        self.path = library.path if isinstance(library, Library) else Path(library)
        self._library = library if isinstance(library, Library) else _opened(self.path)
        self._base = LibraryBase(self._library, base, vocab_size, tell)
        self._is_making = False
        self.added: list[Added] = []
        self.kept: list[str] = []
        self.refused: list[Refused] = []

    def take_all(self, sources: Iterable[Source]) -> None:
        """Take in all that pass, telling of each; those that stand as they are already are kept.

        Raises E-DISK and E-PERM: the library can't be written to.
        """
        with contextlib.ExitStack() as stack:
            for source in sources:
                try:
                    self.take(source, stack)
                except LoraryError as error:
                    if self._is_making or (error.code in _STOPPING and isinstance(error.__cause__, OSError)):
                        raise  # the library's disk, which the next one would meet as well
                    self.refused.append(Refused(source.given, error))
                    self._tell(f"{source.given} refused: {error}")

    def take(self, source: Source, stack: contextlib.ExitStack | None = None) -> None:
        """Check one and make it an expert. Raises what is wrong with it. stack: for one of many."""
        if source.error is not None:
            raise source.error
        with open_adapter(source.directory) as adapter:
            if stack is not None and self._stands(adapter, source.name):
                self.kept.append(source.name)
                return
            added = self._take(adapter, source, stack)
        self.added.append(added)
        if stack is not None:
            self._tell(f"{added.expert}: {added.about}")

    def _take(self, adapter: OpenAdapter, source: Source, stack: contextlib.ExitStack | None) -> Added:
        name, called = source.name, source if source.is_one_of_many else None
        check_name(name)
        if adapter.unread:
            accept(adapter, name)  # raises why
        if name in [added.expert for added in self.added]:
            raise LibraryError(
                "E-EXISTS", f"two of the adapters would be called {name!r}.", "Add one apart, with --as."
            )
        try:
            base_name, sizes = self._base.check(name, adapter.config or {}, adapter.provenance)
        except LoraryError:
            accept(adapter, name)  # raises what is wrong with it on any base, which comes first
            raise
        accepted = accept(adapter, name, base=sizes)
        self._warn(accepted.findings, called)
        library = self._home()
        if stack is not None and not self.added:
            stack.enter_context(library.noted_once())
        made, stands = self._provenance(name, adapter.provenance, source), name in library or name in library.bad
        expert = library.take(accepted, provenance=made, base_name=base_name, replace=self._replace and stands)
        self._base.settle(expert)
        more = [*look_for_zeros(expert), *look_for_twins(expert, library)]
        more += judge_template(adapter.template, expert.directory, self._base.template)
        self._warn(more, called)
        about = f"rank {expert.rank}, {len(expert.sites)} sites"
        return Added(name, source.given, (*accepted.findings, *more), about)

    def probe(self) -> None:
        """Route the library's base by Arrow, and tell which of those that were added would take most of every text.

        Raises E-BASE and E-HUB for a base that isn't to be had; what was added stays.
        """
        if not self.added:
            return
        library = Library.open(self.path, skip_bad=True)
        name = self._asked or base_of(library)
        self._tell(f"loading base {name} ...")
        route(load_base(name), library, "arrow").detach()  # warns, and notes it
        for place, one in enumerate(self.added):
            found = (*one.findings, *noted_hijacks(library, library[one.expert]))
            self.added[place] = dataclasses.replace(one, findings=found)

    def _home(self) -> Library:
        """Make the library when the first adapter passes: if none does, none is left behind."""
        if self._library is None:
            self._is_making = True
            self._library = Library.create(self.path, exist_ok=True)
            self._is_making = False
        return self._library

    def _stands(self, adapter: OpenAdapter, name: str) -> bool:
        if self._replace or self._library is None or name not in self._library:
            return False
        if name in [added.expert for added in self.added]:
            return False
        return self._library[name].hash == accept(adapter, name).expert.copied_hash

    def _provenance(self, name: str, known: Provenance, source: Source) -> Provenance:
        tasks = tuple(task.replace("{name}", name) for task in self._tasks)
        # Of a local path nobody is told: it would tell of this machine.
        origin = {"source": source.given, "revision": source.revision} if "://" in source.given else {}
        return dataclasses.replace(known, tasks=tasks or known.tasks, extra={**known.extra, **origin})

    def _warn(self, findings: Iterable[Finding], called: Source | None) -> None:
        for finding in findings:
            where = f"{called.given}: " if called else ""
            self._tell(f"{where}{finding.level}[{finding.code}] {finding.message} {finding.hint}".rstrip())
