"""What `lorary add` does with what `sources` found: compare each with the base of the library, take in what passes."""

import contextlib
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lorary.cli.console import say
from lorary.cli.one_base import OneBase
from lorary.cli.sources import Adapter
from lorary.errors import LibraryError, LoraryError

if TYPE_CHECKING:
    from lorary.library.adapter.check import Finding
    from lorary.library.adapter.expert import Expert
    from lorary.library.adapter.opened import OpenAdapter
    from lorary.library.library import Library

_STOPPING = ("E-DISK", "E-PERM")


@dataclasses.dataclass(frozen=True)
class Added:
    """One that is an expert now."""

    expert: str
    source: str
    findings: list[dict[str, Any]]
    about: str


class Arrivals:
    """Adapters on their way into one library. base, vocab_size: what the user says they were trained on."""

    def __init__(
        self, library: Path, *, tasks: Sequence[str], base: str | None, replace: bool, vocab_size: int | None = None
    ) -> None:
        self._path, self._tasks, self._replace = library, tasks, replace
        self._library = _opened(library)
        self._base = OneBase(self._library, base, vocab_size)
        self._asked = base
        self._is_making = False
        self.added: list[Added] = []
        self.kept: list[str] = []
        self.refused: list[tuple[str, LoraryError]] = []

    def take_all(self, adapters: Sequence[Adapter]) -> None:
        """Take in all that pass, telling of each on stderr; those that stand as they are already are kept.

        Raises E-DISK and E-PERM: the library can't be written to.
        """
        with contextlib.ExitStack() as stack:
            for adapter in adapters:
                try:
                    if self._stands(adapter):
                        self.kept.append(adapter.name)
                        continue
                    added = self.take(adapter, None, stack)
                    say(f"{added.expert}: {added.about}")
                except LoraryError as error:
                    if self._is_making or (error.code in _STOPPING and isinstance(error.__cause__, OSError)):
                        raise  # the library's disk, which the next one would meet as well
                    self.refused.append((adapter.given, error))
                    say(f"{adapter.given} refused: {error}")

    def take(self, adapter: Adapter, name: str | None, stack: contextlib.ExitStack | None = None) -> Added:
        """Check one and make it an expert. Raises what is wrong with it."""
        from lorary.library.adapter.opened import open_adapter
        from lorary.library.layout import check_name

        if adapter.error is not None:
            raise adapter.error
        name = name or adapter.name
        check_name(name)
        if name in [added.expert for added in self.added]:
            raise LibraryError(
                "E-EXISTS", f"two of the adapters would be called {name!r}.", "Add one apart, with --as."
            )
        with open_adapter(adapter.directory) as opened:
            return self._take(opened, name, adapter, stack)

    def _take(self, opened: "OpenAdapter", name: str, adapter: Adapter, stack: contextlib.ExitStack | None) -> Added:
        from lorary.library.adapter.brought import judge_template
        from lorary.library.adapter.expert import accept
        from lorary.library.sameness import look_for_twins, look_for_zeros

        try:
            base_name, sizes = self._base.judge(name, opened.config or {}, opened.provenance)
        except LoraryError:
            accept(opened, name)  # raises what is wrong with it on any base, which comes first
            raise
        accepted = accept(opened, name, base=sizes)
        findings, found = accepted.findings, accepted.expert
        _warn(findings, adapter if adapter.is_one_of_many else None)
        library = self._home()
        if stack is not None and not self.added:
            stack.enter_context(library.noted_once())
        stands = name in library or name in library.bad
        made = self._provenance(found, adapter)
        expert = library.take(accepted, provenance=made, base_name=base_name, replace=self._replace and stands)
        self._base.settle(expert)
        more = [*look_for_zeros(expert), *look_for_twins(expert, library)]
        more += judge_template(opened.template, expert.directory, self._base.template)
        _warn(more, adapter if adapter.is_one_of_many else None)
        findings = [*findings, *more]
        about = f"rank {expert.rank}, {len(expert.sites)} sites"
        self.added.append(Added(name, adapter.given, [vars(finding) for finding in findings], about))
        return self.added[-1]

    def probe(self) -> None:
        """Route the library's base by Arrow, and tell which of those that were added would take most of every text.

        Raises E-BASE and E-HUB for a base that isn't to be had; what was added stays.
        """
        from lorary.cli.loading import Loading
        from lorary.cli.models import base_of, load
        from lorary.library.hijack_note import noted_hijacks
        from lorary.library.library import Library
        from lorary.model.routed.route import route

        if not self.added:
            return
        library = Library.open(self._path, skip_bad=True)
        route(load(self._asked or base_of(library), Loading()), library, "arrow").detach()  # warns, and notes it
        for one in self.added:
            one.findings.extend(vars(finding) for finding in noted_hijacks(library, library[one.expert]))

    def _home(self) -> "Library":
        """Make the library when the first adapter passes: if none does, none is left behind."""
        from lorary.library.library import Library

        if self._library is None:
            self._is_making = True
            self._library = Library.create(self._path, exist_ok=True)
            self._is_making = False
        return self._library

    def _stands(self, adapter: Adapter) -> bool:
        from lorary.library.adapter.expert import read_expert

        if adapter.error or self._replace or self._library is None or adapter.name not in self._library:
            return False
        found = read_expert(adapter.directory, adapter.name)
        return (
            adapter.name not in [a.expert for a in self.added] and self._library[adapter.name].hash == found.copied_hash
        )

    def _provenance(self, found: "Expert", adapter: Adapter) -> Any:
        known, tasks = found.provenance, tuple(task.replace("{name}", found.name) for task in self._tasks)
        # Of a local path nobody is told: it would tell of this machine.
        origin = {"source": adapter.given} if "://" in adapter.given else {}
        return dataclasses.replace(known, tasks=tasks or known.tasks, extra={**known.extra, **origin})

    @property
    def summary(self) -> str:
        """How many there were of what."""
        kept = f", {len(self.kept)} were there already" if self.kept else ""
        return f"{self._path}: {len(self.added)} added, {len(self.refused)} refused{kept}"

    def as_json(self) -> dict[str, Any]:
        """Tell all, for machines."""
        added = [{key: value for key, value in vars(one).items() if key != "about"} for one in self.added]
        refused = [{"source": source, "code": error.code, "error": str(error)} for source, error in self.refused]
        return {"library": str(self._path), "added": added, "kept": self.kept, "refused": refused}


def _opened(path: Path) -> "Library | None":
    """Open a library that is there, bad experts and all: one of them may be what is to be replaced."""
    from lorary.library.layout import Layout
    from lorary.library.library import Library

    return Library.open(path, skip_bad=True) if Layout(path).manifest.exists() else None


def _warn(findings: Sequence["Finding"], adapter: Adapter | None) -> None:
    for finding in findings:
        where = f"{adapter.given}: " if adapter else ""
        say(f"{where}{finding.level}[{finding.code}] {finding.message} {finding.hint}".rstrip())
