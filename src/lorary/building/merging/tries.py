"""What a search has tried so far, in a file that bears this user's seal: whoever forges a loss chooses the weights."""

import json
from collections.abc import Sequence
from pathlib import Path

from lorary.building.training.checkpoint import FOREIGN, warn_unusable
from lorary.disk.reading import open_file
from lorary.disk.seal import is_sealed, seal
from lorary.disk.writing import write_whole

_ABOUT = "tries"
_MOST_BYTES = 1 << 24


def write_tries(path: Path, run: str, losses: Sequence[float]) -> None:
    """Keep the losses of all tries so far, in their order. `run`: the key of what is searched. Raises OSError."""
    write_whole(path, json.dumps({"losses": list(losses), "seal": seal(_ABOUT, run, list(losses))}).encode())


def read_tries(path: Path, run: str, n_most: int) -> list[float]:
    """Read them; none, with a warning (W-CHECKPOINT), if the file is damaged or this user's lorary didn't write it."""
    try:
        with open_file(path, through_links=False) as file:
            told = json.loads(file.read(_MOST_BYTES))
    except FileNotFoundError:
        return []
    except (OSError, ValueError, RecursionError) as error:
        warn_unusable(path, f"{type(error).__name__}: {error}")
        return []
    losses = told.get("losses") if isinstance(told, dict) else None
    found = told.get("seal") if isinstance(told, dict) else None
    if not isinstance(losses, list) or not isinstance(found, str) or not is_sealed(found, _ABOUT, run, losses):
        warn_unusable(path, FOREIGN)
        return []
    return losses[:n_most]
