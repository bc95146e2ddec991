"""Several processes that change one library at once, one of them killed, perhaps."""

import os
import shutil
import signal
import time
from collections import Counter
from pathlib import Path
from random import Random

from process import Running, command, run
from world import Lost, World, require_clean

from lorary.errors import LoraryError
from lorary.library.library import Library

_SHARED = ("poems", "riddles", "songs", "swap")
_EXPECTED = ("E-EXISTS", "E-NAME")
"""What may be said to a writer whom another outran."""


def crowd(world: World, random: Random, place: Path) -> str:
    """Two to four writers add, replace, remove and collect at random; in half of the rounds one is killed."""
    shutil.copytree(world.start, place, dirs_exist_ok=True)
    seeds = [random.random() for _ in range(random.randint(2, 4))]
    running = [
        Running(lambda seed=seed, i=i: _write(world, Random(seed), place / "lib", i)) for i, seed in enumerate(seeds)
    ]
    victim = random.choice(running) if random.random() < 0.5 else None
    if victim is not None:
        time.sleep(random.random() * 0.6)
        victim.kill()
    ends = {writer: writer.wait() for writer in running}
    for writer, end in ends.items():
        require_clean(end, (0, -signal.SIGKILL) if writer is victim else (0,), "a writer among others")
    require_clean(run(command("gc", place / "lib")), (0,), "gc after many writers")
    _judge(world, place / "lib", [end.out for writer, end in ends.items() if writer is not victim or end.code == 0])
    return f"{len(running)} writers" + (", one killed" if victim else "")


def _write(world: World, random: Random, path: Path, number: int) -> None:
    library, n_own = Library.open(path), 0
    for _ in range(random.randint(5, 15)):
        source = world.adapters / random.choice(("poems", "riddles", "songs"))
        name = random.choice(_SHARED)
        try:
            match random.randrange(6):
                case 0 | 1:
                    library.add(source, f"own{number}-{n_own}")
                    n_own += 1
                    print("own", f"own{number}-{n_own - 1}", flush=True)
                case 2:
                    library.add(source, name)
                case 3:
                    library.replace(source, name)
                case 4:
                    library.remove(name)
                case 5:
                    library = Library.open(path)
                    library.gc()
        except LoraryError as error:
            if error.code not in _EXPECTED:
                raise
            print("told", error.code, flush=True)


def _judge(world: World, path: Path, told: list[str]) -> None:
    library = Library.open(path)
    known = {e.hash for root in (world.start / "lib", world.root / "more") for e in Library.open(root).values()}
    if wrong := [expert.name for expert in library.values() if expert.hash not in known]:
        raise Lost(f"experts that nobody wrote so: {wrong}")
    own = {line.split()[1] for out in told for line in out.splitlines() if line.startswith("own ")}
    if missing := own - set(library):
        raise Lost(f"experts that were added are gone: {sorted(missing)}")
    if gone := {"copy", "join", "upper"} - set(library):
        raise Lost(f"experts that nobody touched are gone: {sorted(gone)}")
    staging = path / ".staging"
    if staging.exists() and (left := os.listdir(staging)):
        raise Lost(f"left in staging: {left}")
    if left := [p.name for p in path.rglob(".*") if p.name != ".staging"]:
        raise Lost(f"left in the library: {dict(Counter(left))}")


KINDS = {"writers at once": crowd}
