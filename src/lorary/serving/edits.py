"""Experts that come and go while a library is served: a new stand is made beside the one that answers, then takes over.

Who asked before gets the whole answer from the experts that there were; who asks afterwards, from those that are.
"""

import asyncio
import itertools
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

from lorary.errors import LibraryError, OptionError, known_names, quote
from lorary.library.adapter.expert import Expert, accept
from lorary.library.adapter.opened import open_adapter
from lorary.library.layout import check_free
from lorary.library.library import Library
from lorary.progress import Tell
from lorary.serving.scheduler import Scheduler
from lorary.serving.shelf import Shelf
from lorary.serving.stand import Changes, Stand
from lorary.using.library_base import LibraryBase


class Editor:
    """Changes what is on a shelf, one change after another. store: a directory for copies of what is loaded."""

    def __init__(self, shelf: Shelf, scheduler: Scheduler, tell: Tell, store: Path) -> None:
        self._shelf, self._scheduler, self._tell, self._store = shelf, scheduler, tell, store
        self._numbers = itertools.count()
        self._lock = asyncio.Lock()

    async def change(self, name: str, make: Callable[[Stand], Stand]) -> None:
        """Let the stand that `make` makes of a library's present one take over; nobody's answer changes under way."""
        async with self._lock:
            before = self._shelf.stands[name]
            after = await asyncio.to_thread(make, before)
            if after is before:
                return
            self._shelf.put(after)  # no request comes between this and the next
            unused = {expert.directory for expert in before.experts.values()}
            unused -= {expert.directory for expert in after.experts.values()}

            def close() -> None:
                before.close()
                self._delete(unused)

            self._scheduler.exchange(after.callers, before.callers, close)

    async def load(self, library: str, name: str, path: str, *, in_place: bool) -> None:
        """Take in an adapter's directory. Raises E-PATH, E-EXISTS and what `lorary.add` has against an adapter."""

        def make(stand: Stand) -> Stand:
            if name in stand.experts and not in_place:
                hint = "Send load_inplace: true to put another in its place."
                raise LibraryError("E-EXISTS", f"expert {quote(name)} is served already.", hint)
            check_free(name, stand.experts.keys() - {name})
            expert = self._copied(stand.library, name, path)
            try:
                return stand.edited(Changes(coming=[expert]))
            except BaseException:
                self._delete([expert.directory])
                raise

        await self.change(library, make)

    async def unload(self, library: str, name: str) -> None:
        """Let an expert go; on disk it stays. Raises E-NAME, and E-EMPTY for the last one."""
        await self.change(library, lambda stand: stand.edited(Changes(leaving=[name])))

    def place(self, called: str) -> tuple[str, str]:
        """Give the library and the expert that a name means: LIBRARY/EXPERT, or EXPERT of the only library.

        Raises E-NAME for a library that isn't served.
        """
        stands = self._shelf.stands
        library, slash, name = called.rpartition("/")
        if not slash and len(stands) == 1:
            return next(iter(stands)), name
        if library not in stands:
            hint = known_names(library, sorted(stands)) if slash else "Write LIBRARY/EXPERT."
            raise OptionError("E-NAME", f"{quote(called)} names no library that is served.", hint)
        return library, name

    def _copied(self, library: Library, name: str, path: str) -> Expert:
        """Copy an adapter in, judged as `lorary.add` does, so that nobody changes it under the model."""
        source = Path(path)
        if "://" in path or not source.is_absolute() or not source.is_dir():
            what = f"lora_path is {quote(path, 200)}, expected an adapter's directory on the server's machine."
            raise LibraryError("E-PATH", what, "Give its absolute path.")
        with open_adapter(source) as adapter:
            if adapter.unread:
                accept(adapter, name)  # raises why
            of_base = LibraryBase(library, None, None, self._tell)
            base_name, sizes = of_base.check(name, adapter.config or {}, adapter.provenance)
            accepted = accept(adapter, name, base=sizes)
            for finding in accepted.findings:
                self._tell(f"warning[{finding.code}] expert {quote(name)}: {finding.message} {finding.hint}".strip())
            kept = Library.create(self._store / str(next(self._numbers)), base=library.base)
            return kept.take(accepted, base_name=base_name)

    def _delete(self, directories: Iterable[Path]) -> None:
        """Delete copies that nobody uses any more."""
        for directory in directories:
            if directory.is_relative_to(self._store):
                shutil.rmtree(self._store / directory.relative_to(self._store).parts[0], ignore_errors=True)
