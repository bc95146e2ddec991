"""A library on disk that is watched: what is added, replaced or removed there comes to be served."""

import asyncio
import contextlib
import os
from collections.abc import Mapping, Sequence

from lorary.errors import LoraryError
from lorary.library.adapter.expert import Expert
from lorary.library.layout import CONFIG, WEIGHTS
from lorary.library.library import Library
from lorary.progress import Tell
from lorary.serving.edits import Editor
from lorary.serving.shelf import Shelf
from lorary.serving.stand import Changes, Stand

Stamp = tuple[tuple[int, int, int] | None, ...]
"""Of an expert's files, what changes when another takes their place."""


async def watch_all(shelf: Shelf, editor: Editor, tell: Tell, every_s: float | None) -> None:
    """Take over what changes on disk, looking every so many seconds; None: don't."""
    watched = {name: Watched(stand.library, tell) for name, stand in shelf.stands.items()}
    while every_s is not None:
        for name, library in watched.items():
            try:
                await editor.change(name, library.follow)
            except Exception as error:  # whatever it is, it mustn't end the watch
                tell(f"{name} is served as it was: {error}")
        await asyncio.sleep(every_s)


class Watched:
    """One library, and what of it was taken over. A change that fails is told, and tried again with the next one."""

    def __init__(self, library: Library, tell: Tell) -> None:
        self._library, self._tell = library, tell
        self._name = library.path.name
        self._taken: dict[str, Stamp | None] = dict.fromkeys(library)
        self._tried: Mapping[str, Stamp] | None = None

    def follow(self, stand: Stand) -> Stand:
        """Make the stand that the disk asks for; the same one if nothing has changed. Reads no tensors to find out."""
        stamps = self._look()
        if stamps == self._tried:
            return stand
        self._tried = stamps
        try:
            library = Library.open(self._library.path, skip_bad=True)
            return self._changed(stand, library, stamps)
        except LoraryError as error:
            self._tell(f"{self._name} is served as it was: {error}")
        return stand

    def _look(self) -> dict[str, Stamp]:
        layout = self._library.layout
        return {
            name: tuple(_stamp(layout.experts / name / file) for file in (WEIGHTS, CONFIG))
            for name in layout.expert_names()
        }

    def _changed(self, stand: Stand, library: Library, stamps: Mapping[str, Stamp]) -> Stand:
        coming = []
        for name, stamp in stamps.items():
            if self._taken.get(name, ()) == stamp:
                continue
            if name in library.bad:
                self._tell(f"{self._name}/{name}: {library.bad[name]}")
            elif name in library:
                if self._taken.get(name, ()) is None and library[name] == self._library[name]:
                    self._taken[name] = stamp  # it was there when the library was opened
                else:
                    coming.append(library[name])
        leaving = [name for name in self._taken if name not in stamps]
        if not coming and not leaving:
            return stand
        try:
            return self._take(stand, coming, leaving, stamps)
        except LoraryError:
            return self._one_by_one(stand, coming, leaving, stamps)

    def _one_by_one(
        self, stand: Stand, coming: Sequence[Expert], leaving: Sequence[str], stamps: Mapping[str, Stamp]
    ) -> Stand:
        """Take over what can be, and tell of the rest."""
        now = stand
        for arrivals, departures in [*(([expert], []) for expert in coming), ([], leaving)]:
            try:
                following = self._take(now, arrivals, departures, stamps)
            except LoraryError as error:
                self._tell(f"{self._name} goes on without this change: {error}")
                continue
            if now is not stand and following is not now:
                now.close()
            now = following
        return now

    def _take(
        self, stand: Stand, coming: Sequence[Expert], leaving: Sequence[str], stamps: Mapping[str, Stamp]
    ) -> Stand:
        there = [name for name in leaving if name in stand.experts]  # others were unloaded before
        after = stand.edited(Changes(coming, there)) if coming or there else stand
        self._taken |= {expert.name: stamps[expert.name] for expert in coming}
        for name in leaving:
            del self._taken[name]
        if after is not stand:
            told = [*(f"+{expert.name}" for expert in coming), *(f"-{name}" for name in there)]
            self._tell(f"{self._name}: {' '.join(told)}")
        return after


def _stamp(path: os.PathLike[str]) -> tuple[int, int, int] | None:
    with contextlib.suppress(OSError):
        found = os.stat(path)
        return found.st_ino, found.st_mtime_ns, found.st_size
    return None
