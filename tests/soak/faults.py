"""All faults by name, each as often as it shall come."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random

import fuzzed
import hub
import interrupted
import live
import training
import writers
from world import World

Fault = Callable[[World, Random, Path], str]
_TIMES = {
    "kill -9": 3,
    "writers at once": 5,
    "a faulty Hub": 5,
    "changed while it answers": 3,
    "moody worker": 3,
    "damaged checkpoint": 8,
    "disk full in a training": 4,
    **dict.fromkeys(fuzzed.KINDS, 6),
}


def kinds(*, has_small_disks: bool) -> list[tuple[str, Fault]]:
    """List faults with their names; without small disks those faults are left out."""
    found: list[tuple[str, Fault]] = []
    for fault, do in interrupted.KINDS.items():
        if fault == "full disk" and not has_small_disks:
            continue
        for name in World(Path()).commands:
            found += [(f"{fault}: {name}", partial(_of_command, do, name))] * _TIMES.get(fault, 1)
    for fault, alone in {**writers.KINDS, **fuzzed.KINDS, **training.KINDS, **hub.KINDS, **live.KINDS}.items():
        found += [(fault, alone)] * _TIMES.get(fault, 1)
    return found


def _of_command(
    do: Callable[[World, str, Random, Path], str], name: str, world: World, random: Random, place: Path
) -> str:
    return do(world, name, random, place)
