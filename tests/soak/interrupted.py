"""Commands that are killed, asked to stop, or find the disk full at any instant; then the same command again."""

import contextlib
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from random import Random

from process import End, Running, cold, command, filled, run, small_disk
from world import Command, Lost, World, content, require_clean

from lorary.errors import LoraryError
from lorary.library.library import Library

COLD_SHARE = 0.04
_AFTER_S = 10.0
_WRITERS = ("add", "add --replace", "ask", "add a pile")
_RUNS_ON = 1.15


def kill(world: World, name: str, random: Random, place: Path) -> str:
    """Kill -9 at any instant."""
    tried, begin = _begin(world, name, random, place)
    running, moment = begin()
    time.sleep(moment)
    running.kill()
    end = running.wait()
    if end.code not in (0, -signal.SIGKILL):
        require_clean(end, (0, -signal.SIGKILL), f"{name}, to be killed")
    _judge(world, tried, place)
    return "ended before" if end.code == 0 else "killed"


def stop(world: World, name: str, random: Random, place: Path) -> str:
    """SIGTERM, as Ctrl-C: 130 within ten seconds, in one line, and nothing is left of it."""
    tried, begin = _begin(world, name, random, place)
    running, moment = begin()
    time.sleep(moment)
    running.kill(signal.SIGTERM)
    asked = time.monotonic()
    end = running.wait()
    early = end.code == -signal.SIGTERM and not end.err  # it was not yet lorary that was asked
    if not early:
        codes = (0, -signal.SIGTERM) if tried.python else (0, 130)
        require_clean(end, codes, f"{name}, asked to stop")
    if time.monotonic() - asked > _AFTER_S:
        raise Lost(f"{name} took {time.monotonic() - asked:.0f} s to stop")
    if end.code == 130 and not end.err.strip().splitlines()[-1].startswith("interrupted."):
        raise Lost(f"{name}, interrupted, says: {end.err}")
    _judge(world, tried, place)
    return {0: "ended before", 130: "interrupted"}.get(end.code, "not yet begun")


def limit(world: World, name: str, random: Random, place: Path) -> str:
    """From any instant on no file can grow beyond some bytes: a full disk that needs no disk (RLIMIT_FSIZE)."""
    tried, begin = _begin(world, name, random, place, is_cold=False)
    running, moment = begin()
    time.sleep(moment if random.random() < 0.7 else 0.0)
    running.allow_files_of(random.choice((0, 0, 100, 1000, 5000, 20000, 50000)))
    end = running.wait()
    _require_told(tried, end)
    _judge(world, tried, place)
    return "ended before" if end.code == 0 else "refused"


def fill(world: World, name: str, random: Random, place: Path) -> str:
    """A disk of its own that fills at any instant, and is emptied again (a tmpfs in a user's namespace)."""

    world.made(name)  # here, where the files are not those of the small disk

    def alone() -> None:
        small_disk(place, 16 << 20)
        print(_fill(world, name, random, place))

    if name == "gc":
        for other in _WRITERS:
            world.made(other)
    end = run(alone)
    if end.code:
        said = end.err.partition("world.Lost: ")[2] or end.err
        raise Lost(said.strip())
    return end.out.strip().splitlines()[-1]


def _fill(world: World, name: str, random: Random, place: Path) -> str:
    tried, begin = _begin(world, name, random, place, is_cold=False)
    room = random.choice((0, 0, 4096, 20_000, 100_000, 400_000))
    running, moment = begin()
    time.sleep(moment if random.random() < 0.7 else 0.0)
    with filled(place, room):
        end = running.wait()
        _require_told(tried, end)
        _require_whole(world, tried, place)
    _judge(world, tried, place)
    return "ended before" if end.code == 0 else "refused"


# ---- what all share -----------------------------------------------------------------------------


def _begin(
    world: World, name: str, random: Random, place: Path, is_cold: bool | None = None
) -> tuple[Command, Callable[[], tuple[Running, float]]]:
    """Copy the world; give the command, and a function that starts it and says after how long it is to be harmed."""
    tried = world.commands[name]
    world.made(name)
    shutil.copytree(world.start, place, dirs_exist_ok=True)
    is_fresh = not tried.python and random.random() < COLD_SHARE if is_cold is None else is_cold
    share = random.random() * _RUNS_ON
    if name == "gc":
        _litter(world, random, place)

    def begin() -> tuple[Running, float]:
        do = cold(*tried.line(place)) if is_fresh else tried.at(place)
        seconds = world.seconds.get(f"cold {name}", 8.0) if is_fresh else world.seconds[name]
        return Running(do), share * seconds

    return tried, begin


def _litter(world: World, random: Random, place: Path) -> None:
    """Kill some writers, so that there is something to collect."""
    for name in random.sample(_WRITERS, 2):
        tried = world.commands[name]
        world.made(name)
        running = Running(tried.at(place))
        time.sleep(random.random() * world.seconds[name])
        running.kill()
        running.wait()
    # What they added is nothing that gc is to be judged by.
    library = Library.open(place / "lib")
    with contextlib.suppress(LoraryError):
        library.replace(world.start / "lib" / "experts" / "swap", "swap")
    for extra in set(library) - set(Library.open(world.start / "lib")):
        library.remove(extra)


def _require_told(tried: Command, end: End) -> None:
    """Raise Lost unless a command did its work or said that the disk is full."""
    if not tried.python:
        require_clean(end, (0, 1, 3), f"{tried.name} on a full disk")
    if end.code and "E-DISK" not in end.err:
        raise Lost(f"{tried.name} on a full disk says: {end.err}")


def _require_whole(world: World, tried: Command, place: Path) -> None:
    """Raise Lost unless every library opens, every expert in it is whole, and what was made is whole or absent."""
    after, before = content(world.made(tried.name)), content(world.start)
    for home in ("lib", "built", "ties"):
        if not (place / home / "library.json").exists():
            continue
        library = Library.open(place / home)
        for expert in library.values():
            found = {f"{home}/experts/{expert.name}/{file}": h for file, h in content(expert.directory).items()}
            stood = all(before.get(file) == h for file, h in found.items())
            came = all(after.get(file) == h for file, h in found.items())
            if not stood and not came:
                raise Lost(f"{tried.name}: expert {home}/{expert.name} is neither the old one nor the new one")
        gone = set(Library.open(world.start / home)) - set(library) if home == "lib" else set()
        if gone - ({"swap"} if tried.name == "remove" else set()):
            raise Lost(f"{tried.name}: experts are gone: {sorted(gone)}")
    for made in tried.made:
        if (place / made).exists() and _part(content(place), made) != _part(after, made):
            raise Lost(f"{tried.name}: {made} is there, and is not what it is without a fault")


def _part(files: dict[str, str], made: str) -> dict[str, str]:
    return {file: h for file, h in files.items() if file == made or file.startswith(f"{made}/")}


def _judge(world: World, tried: Command, place: Path) -> None:
    """Look at what is there, run the command again, collect, and compare with a run without a fault."""
    _require_whole(world, tried, place)
    end = run(tried.at(place))
    done_before = tried.once is not None and end.code != 0 and f"[{tried.once}]" in end.err
    if not done_before:
        require_clean(end, (0,), f"{tried.name}, run again")
    for home in ("lib", "built", "ties"):
        if (place / home / "library.json").exists():
            require_clean(run(command("gc", place / home)), (0,), f"{tried.name}: gc of {home}")
    _compare(tried, content(place), content(world.made(tried.name)))


def _compare(tried: Command, found: dict[str, str], expected: dict[str, str]) -> None:
    missing = sorted(expected.keys() - found.keys())
    more = sorted(found.keys() - expected.keys())
    other = sorted(file for file in found.keys() & expected.keys() if found[file] != expected[file])
    if missing or more or other:
        raise Lost(f"{tried.name}, run again: lacks {missing[:5]}, has left {more[:5]}, has other bytes in {other[:5]}")


KINDS = {"kill -9": kill, "SIGTERM": stop, "file limit": limit, "full disk": fill}
