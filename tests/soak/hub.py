"""Adapters that come from a Hub that is busy, silent, hangs up, or sends other bytes than it has."""

import os
import shutil
from pathlib import Path
from random import Random

from process import command, run
from world import Lost, World, content, require_clean

from fake_hub import FAULTS, serving
from lorary.library.library import Library

_PATIENCE_S = 0.2


def hub(world: World, random: Random, place: Path) -> str:
    """Each request meets a fault by chance, or always; then the Hub is sound again, and the same command works."""
    shutil.copytree(world.start, place, dirs_exist_ok=True)
    share, seed = random.choice((0.05, 0.2, 0.5, 1.0)), random.random()
    line = ("add", place / "lib", "hf://me/lib/experts", "--base", world.base)
    end = run(lambda: _add(world, place, line, share, seed), 120)
    require_clean(end, (0, 1), "add from a Hub with faults")
    if end.code and "E-HUB" not in end.err:
        raise Lost(f"add from a Hub with faults says: {end.err}")
    _require_whole(world, place, complete=end.code == 0)
    again = run(lambda: _add(world, place, (*line, "--replace"), 0.0, seed), 120)
    require_clean(again, (0,), "add from a sound Hub")
    _require_whole(world, place, complete=True)
    return "arrived" if end.code == 0 else "refused"


def _add(world: World, place: Path, line: tuple[object, ...], share: float, seed: float) -> None:
    from unittest.mock import patch

    from huggingface_hub import constants
    from huggingface_hub.utils import _http

    from lorary.library import sync

    drawn = Random(seed)

    def plan(_method: str, _path: str) -> str | None:
        return drawn.choice(FAULTS) if drawn.random() < share else None

    fetch = sync.snapshot_download
    with serving(world.root / "more", plan) as server:
        server.silence_s = 2 * _PATIENCE_S
        for name, value in server.constants(_PATIENCE_S).items():
            setattr(constants, name, value)
        os.environ["HF_HUB_OFFLINE"] = "0"
        with (
            patch.object(_http.time, "sleep", lambda _seconds: None),
            patch.object(sync, "snapshot_download", lambda *a, **o: fetch(*a, cache_dir=place / "cache", **o)),
        ):
            command(*line)()


def _require_whole(world: World, place: Path, *, complete: bool) -> None:
    names, library = set(Library.open(world.root / "more")), Library.open(place / "lib")
    if complete and not names <= set(library):
        raise Lost(f"the Hub has {sorted(names)}, the library {sorted(library)}, and nothing was said")
    for name in names & set(library):
        file = Path("experts", name, "adapter_model.safetensors")
        if (place / "lib" / file).read_bytes() != (world.root / "more" / file).read_bytes():
            raise Lost(f"expert {name} is not what the Hub has")
    for name in Library.open(world.start / "lib"):
        if content(place / "lib" / "experts" / name) != content(world.start / "lib" / "experts" / name):
            raise Lost(f"expert {name} is another one now")


KINDS = {"a faulty Hub": hub}
