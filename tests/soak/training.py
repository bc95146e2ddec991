"""Trainings whose checkpoints are damaged, whose workers die, hang or raise, or whose driver is killed."""

import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from unittest.mock import patch

import safetensors.torch
from moody import Moody
from process import End, Running, command, of_round, run
from world import NAMES, Lost, World, content, require_clean, wait_for

from lorary.building.build import build, build_recipe
from lorary.building.builders.private import Private
from lorary.building.recipe import Recipe
from lorary.building.training import loop as train
from lorary.errors import LoraryError
from lorary.library.library import Library
from lorary.model.base.base_model import load_base
from lorary.tasks.read import read_tasks
from lorary.tasks.task import Tasks

TRAINING = {"steps": 6, "batch_size": 2, "rank": 2, "n_evaluations": 2, "lr": 1e-2, "dropout": 0.1}
"""As the command `build` of the world trains."""
_ORPHANS_S = 30.0


def checkpoint(world: World, random: Random, place: Path) -> str:
    """A killed training whose checkpoint is cut, damaged, or lacks a part: the same bytes in the end."""
    shutil.copytree(world.start, place, dirs_exist_ok=True)
    into = place / "built"
    running = Running(_slowly(world.commands["build"].at(place), 0.1))
    found: list[Path] = []

    def has_one() -> bool:
        found[:] = into.glob(".work/*/*/checkpoint.safetensors")
        return bool(found)

    if not wait_for(has_one, 60):
        raise Lost(f"no checkpoint came: {running.wait().err}")
    time.sleep(random.random() * 0.5)
    running.kill()
    running.wait()
    has_one()
    how = "none left" if not found else _damage(random, found[0])
    _rerun(world, place, how)
    return how


def full(world: World, random: Random, place: Path) -> str:
    """The disk is full from some step of a training on, at a checkpoint or at the experts (RLIMIT_FSIZE)."""
    shutil.copytree(world.start, place, dirs_exist_ok=True)
    running = Running(_slowly(world.commands["build"].at(place), 0.05))
    if not wait_for(lambda: bool(list((place / "built").glob(".work/*/*/checkpoint.safetensors"))), 60):
        raise Lost(f"no checkpoint came: {running.wait().err}")
    time.sleep(random.random() * 0.5)
    running.allow_files_of(random.choice((0, 1000, 20_000)))
    end = running.wait()
    require_clean(end, (0, 1, 3), "a training whose disk is full")
    if end.code and "E-DISK" not in end.err:
        raise Lost(f"a training whose disk is full says: {end.err}")
    _rerun(world, place, "a full disk")
    return "ended before" if end.code == 0 else "refused"


def driver(world: World, random: Random, place: Path) -> str:
    """The process that started the workers is killed: they end, and the same command goes on."""
    line = world.commands["build"].line(place)
    running = Running(_slowly(command(*line, "--workers", 2), 0.0))
    if not wait_for(lambda: bool(list((place / "built").glob(".work/*/*/lease.json"))), 90):
        raise Lost(f"no worker began: {running.wait().err}")
    time.sleep(random.random() * 1.5)
    running.kill()
    end = running.wait()
    if not wait_for(lambda: not of_round(os.environ["LORARY_SOAK_ROUND"]), _ORPHANS_S):
        raise Lost(f"workers run on {_ORPHANS_S:.0f} s after their driver was killed")
    workers = random.choice((1, 2))
    _require_built(world, place, run(command(*line, "--workers", workers), 240), "the driver died")
    return "ended before" if end.code == 0 else f"{workers} workers went on"


def order(world: World, random: Random, place: Path) -> str:
    """Other numbers of workers, other orders of tasks, broken off between them: the same experts."""
    line = world.commands["build"].line(place)
    running = Running(_slowly(command(*line, "--workers", 1), 0.03))
    time.sleep(random.random() * 2)
    running.kill(random.choice((signal.SIGTERM, signal.SIGKILL)))
    running.wait()
    names = random.sample(NAMES, len(NAMES))
    if random.random() < 0.6:
        end, how = run(lambda: _build_shuffled(world, place / "built", names)), "order shuffled"
    else:
        n = random.choice((2, 4))
        end, how = run(command(*line, "--workers", n), 240), f"then {n} workers"
    _require_built(world, place, end, how)
    return how


def worker(world: World, random: Random, place: Path) -> str:
    """A worker dies, hangs, runs out of memory or raises in one of four trainings: the others are kept."""
    mood, times = random.choice(("die", "hang", "raise", "memory")), random.choice((1, 99))
    place.mkdir(parents=True, exist_ok=True)
    moody = Moody(**TRAINING, mood=mood, victim=random.choice(NAMES), marker=str(place / "moods"), times=times)
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])
    job = Recipe(builder=moody, into=place / "built", base=str(world.base), tasks=(str(world.tasks),))
    end = run(lambda: _build_moody(job), 400)
    require_clean(end, (0, 3), f"a worker that has to {mood}")
    passes = times == 1 and mood in ("die", "hang")  # whoever raises is not tried again in the same run
    if (end.code == 0) != passes:
        raise Lost(f"a worker that has to {mood}, {times} times: exit code {end.code}\n{end.out}{end.err}")
    kept = sorted(set(Library.open(place / "built")))
    if end.code and kept != sorted(set(NAMES) - {moody.victim}):
        raise Lost(f"a worker that has to {mood} at {moody.victim}: kept are {kept}\n{end.out}")
    (place / "moods").write_text("." * 1000)  # from now on it is in a good mood
    again = run(lambda: _build_moody(job), 240)
    require_clean(again, (0,), f"after a worker that had to {mood}")
    _same_weights(world, place, moody)
    if left := of_round(os.environ["LORARY_SOAK_ROUND"]):
        raise Lost(f"workers are left: {left}")
    return f"{mood}, {'once' if times == 1 else 'always'}"


# ---- what they share ----------------------------------------------------------------------------


def _slowly(do: Callable[[], object], pause_s: float) -> Callable[[], None]:
    """Give a command that keeps a checkpoint of each step and pauses after it."""

    def slow() -> None:
        tell = train._report

        def pause(*arguments: object) -> None:
            time.sleep(pause_s)
            tell(*arguments)  # type: ignore[arg-type]

        with patch.object(train, "CHECKPOINT_EVERY_S", 0.0), patch.object(train, "_report", pause):
            do()

    return slow


def _damage(random: Random, path: Path) -> str:
    data = path.read_bytes()
    how = random.choice(
        ("cut", "a flipped bit", "a page of zeros", "empty", "gone", "no optimiser", "numbers changed", "only its copy")
    )
    match how:
        case "cut":
            path.write_bytes(data[: random.randrange(len(data))])
        case "a flipped bit":
            at = random.randrange(len(data))
            path.write_bytes(data[:at] + bytes([data[at] ^ 1 << random.randrange(8)]) + data[at + 1 :])
        case "a page of zeros":
            at = random.randrange(len(data))
            path.write_bytes(data[:at] + b"\0" * len(data[at : at + 4096]) + data[at + 4096 :])
        case "empty":
            path.write_bytes(b"")
        case "gone":
            path.unlink()
        case "only its copy":
            path.rename(path.with_name(path.name + ".tmp"))
        case _:
            _change_tensors(random, path, lose=how == "no optimiser")
    return how


def _change_tensors(random: Random, path: Path, *, lose: bool) -> None:
    """Write the file again without the optimiser's state, or with other numbers: whole, but not what was saved."""
    with safetensors.safe_open(path, framework="pt") as file:
        facts = file.metadata()
    tensors = safetensors.torch.load_file(path)
    names = sorted(name for name in tensors if tensors[name].dim())
    if lose:
        tensors = {name: t for name, t in tensors.items() if not name.startswith("exp_avg")}
    else:
        tensors[random.choice(names)].add_(0.01)
    safetensors.torch.save_file(tensors, path, facts)


def _rerun(world: World, place: Path, how: str) -> None:
    end = run(world.commands["build"].at(place))
    _require_built(world, place, end, how)
    if content(place) != content(world.made("build")):
        raise Lost(f"{how}: the library is another one")


def _require_built(world: World, place: Path, end: End, how: str) -> None:
    require_clean(end, (0,), f"build after: {how}")
    found = content(place / "built" / "experts")
    expected = content(world.made("build") / "built" / "experts")
    if found != expected:
        other = sorted(f for f in found.keys() | expected.keys() if found.get(f) != expected.get(f))
        raise Lost(f"{how}: other bytes in {other}")


def _same_weights(world: World, place: Path, moody: Moody) -> None:
    """Raise Lost unless the experts are those of a good mood, byte for byte."""
    calm = world.root / "calm"
    if not calm.exists():
        job = Recipe(builder=Moody(**TRAINING), into=calm, base=str(world.base), tasks=(str(world.tasks),))
        require_clean(run(lambda: _build_moody(job)), (0,), "a good mood")
    for name in NAMES:
        file = Path("experts", name, "adapter_model.safetensors")
        if (place / "built" / file).read_bytes() != (calm / file).read_bytes():
            raise Lost(f"expert {name} is another one than without a fault ({moody.mood})")


def _build_shuffled(world: World, into: Path, names: list[str]) -> None:
    tasks = read_tasks(str(world.tasks))
    build(Private(**TRAINING), Tasks(tasks[name] for name in names), load_base(str(world.base)), into=into)


def _build_moody(job: Recipe) -> None:
    try:
        build_recipe(job, backend="local:workers=2,hang_s=4")
    except LoraryError as error:
        print(error)
        raise SystemExit(3) from None


KINDS = {
    "damaged checkpoint": checkpoint,
    "disk full in a training": full,
    "driver killed": driver,
    "workers and order": order,
    "moody worker": worker,
}
