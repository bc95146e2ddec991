"""Follow trainings by what they leave on disk, whoever trains: each is shown once it is over."""

import time
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path

from lorary.errors import LibraryError, LoraryError, OptionError, known_names
from lorary.extras import require_extra
from lorary.folder import TRACKERS
from lorary.hashing import hash_file
from lorary.library.adapter.provenance import read_metrics
from lorary.library.layout import METRICS, find_layout
from lorary.progress import Tell
from lorary.tracking.contract import Tracker, Training, numbers_of

_CODE = "W-LOG"
_PAUSE_S = 2.0  # between two looks


def find_trackers(specs: Iterable[str]) -> list[Tracker]:
    """Make trackers of "tensorboard,mlflow:uri=..."; what follows a comma is another one unless it is key=value.

    Raises E-NAME, E-OPTION, and E-EXTRA for one whose package is missing.
    """
    found: list[Tracker] = []
    for spec in (one for text in specs for one in _split(text)):
        name = spec.partition(":")[0]
        if name not in TRACKERS.names():
            raise OptionError("E-NAME", f"unknown tracker {name!r}.", known_names(name, TRACKERS.names()))
        tracker: Tracker = TRACKERS.parse(spec)
        require_extra(name, f"--log {name}")
        found.append(tracker)
    return found


def _split(text: str) -> list[str]:
    specs: list[str] = []
    for part in text.split(","):
        head = part.partition("=")[0]
        if specs and "=" in part and ":" not in head:
            specs[-1] += f",{part}"
        elif part.strip():
            specs.append(part.strip())
    return specs


class Following:
    """Shows the trainings of a library, or of a new base, in all trackers. What fails is told, and keeps no other back.

    tell: hears what was shown, as a line.
    """

    def __init__(self, root: Path, trackers: Sequence[Tracker], tell: Tell) -> None:
        self._root, self._trackers, self._tell = root.absolute(), trackers, tell
        self._seen: set[Path] = set()
        self._next = 0.0

    def look(self, *, now: bool = True) -> None:
        """Show what is new; unless `now`, at most every few seconds."""
        if not self._trackers or (not now and time.monotonic() < self._next):
            return
        for directory in _trainings(self._root):
            if directory not in self._seen and (directory / METRICS).is_file():
                self._seen.add(directory)
                self._show(directory)
        self._next = time.monotonic() + _PAUSE_S

    def _show(self, directory: Path) -> None:
        training: Training | None = None
        for tracker in self._trackers:
            try:
                training = training or _read(self._root, directory)
                if tracker.show(training):
                    self._tell(f"{directory.name} is in {type(tracker).__name__}.")
            except Exception as error:  # whatever a tracker or its server raises, the training counts for more
                why = str(error) if isinstance(error, LoraryError) else f"{type(error).__name__}: {error}"
                what = f"{directory.name!r} isn't in {type(tracker).__name__}: {' '.join(why.split())[:300]}"
                hint = "The same command shows what is missing."
                warnings.warn(f"warning[{_CODE}] {what} {hint}", RuntimeWarning, stacklevel=2)


def _trainings(root: Path) -> list[Path]:
    if (root / METRICS).is_file():
        return [root]
    try:
        layout = find_layout(root)
    except LibraryError:  # not there yet
        return []
    return [layout.expert(name) for name in layout.expert_names()]


def _read(root: Path, directory: Path) -> Training:
    path = directory / METRICS
    return Training(
        root.name, directory.name, hash_file(path), path.stat().st_mtime, numbers_of(read_metrics(directory))
    )
