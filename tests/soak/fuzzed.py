"""Files as no lorary wrote them: mutated bytes and fields, through the commands that read them."""

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from process import End, command, run
from world import Lost, World, content, require_clean

from lorary.library.library import Library

LONGEST_S = 30.0
_UNCHANGED = "unchanged"
MOST_MB = 1000.0
"""More than the process that everything is forked from has: what a read may cost at most."""
_EVIL: tuple[Any, ...] = (
    None, True, 0, -1, 1, 2**31, 2**63, 10**400, -0.0, 0.5, 1e308, float("nan"), float("inf"), "", "x", "/", "..",
    "../..", "\x00", "\x1b[31m", "\u202egnp", "a" * 10_000, "é" * 300, "1e999", "NaN", [], {}, [[]], [None], {"": None},
    [1, "x"], ["q_proj"] * 3000, "__LINK__", 1e-320, "float32", "torch.float32",
)  # fmt: skip


def adapter(world: World, random: Random, place: Path) -> str:
    """An adapter of a stranger's: shown, added, and if it passes, routed."""
    _copy(world, place)
    guest = Path(shutil.copytree(world.adapters / "poems", place / "guest"))
    what = _mutate(random, random.choice(sorted(guest.iterdir())))
    _tell(what, ("show", guest))
    end = _tell(what, ("add", place / "lib", guest, "--base", world.base))
    if end.code == 0:
        _ask(world, place, what)
    _others_stand(world, place / "lib")
    return "taken" if end.code == 0 else "refused"


def expert(world: World, random: Random, place: Path) -> str:
    """An expert in the library: shown, asked, and taken out, which works after any damage."""
    _copy(world, place)
    file = random.choice(sorted((place / "lib" / "experts" / "swap").iterdir()))
    what = _mutate(random, file)
    shown = _tell(what, ("show", place / "lib"))
    _ask(world, place, what)
    if (place / "lib" / "experts" / "swap").exists():
        require_clean(run(command("remove", place / "lib", "swap")), (0,), f"{what}: remove")
    require_clean(run(command("show", place / "lib")), (0,), f"{what}: show after it was taken out")
    _others_stand(world, place / "lib")
    return "read" if shown.code == 0 else "refused"


def manifest(world: World, random: Random, place: Path) -> str:
    """library.json."""
    _copy(world, place)
    what = _mutate(random, place / "lib" / "library.json")
    ends = [_tell(what, line) for line in (("show", place / "lib"), ("gc", place / "lib"))]
    _ask(world, place, what)
    return "read" if ends[0].code == 0 else "refused"


def state(world: World, random: Random, place: Path) -> str:
    """What a router knows of the experts: a mutated file changes no answer."""
    _copy(world, place)
    line = ("ask", place / "lib", "hello", "--router", "arrow", "--base", world.base, "--max-new-tokens", 8)
    expected = run(command(*line))
    (file,) = (place / "lib" / "derived").glob("arrow-*")
    what = _mutate(random, file)
    found = _tell(what, line)
    if found.code or found.out != expected.out:
        raise Lost(f"{what}: the answer was {expected.out!r}, is {found.out!r} {found.err}")
    return "the same answer"


def learned(world: World, random: Random, place: Path) -> str:
    """What a builder learned for a router."""
    shutil.copytree(world.made("learned"), place / "lib")
    file = random.choice(sorted((place / "lib" / "learned").iterdir()))
    what = _mutate(random, file)
    line = ("ask", place / "lib", "hello", "--router", "phatgoose", "--base", world.base, "--max-new-tokens", 4)
    end = _tell(what, line)
    return "read" if end.code == 0 else "refused"


def saved(world: World, random: Random, place: Path) -> str:
    """A saved model, any file of it."""
    shutil.copytree(world.made("save") / "saved", place / "saved")
    files = sorted(p for p in (place / "saved").rglob("*") if p.is_file())
    top = [p for p in files if p.parent == place / "saved"]
    what = _mutate(random, random.choice(top if random.random() < 0.7 else files))
    _tell(what, ("show", place / "saved"))
    end = _tell(what, ("ask", place / "saved", "hello", "--base", world.base, "--max-new-tokens", 4))
    return "read" if end.code == 0 else "refused"


def scores(world: World, random: Random, place: Path) -> str:
    """A file of scores: reported, and gone on with."""
    shutil.copytree(world.start, place, dirs_exist_ok=True)
    done = Path(shutil.copy(world.made("eval") / "more.jsonl", place / "more.jsonl"))
    what = _mutate(random, done)
    if random.random() < 0.5 and done.exists():
        done.rename(place / "more.jsonl.part")
    end = _tell(what, world.commands["eval"].line(place))
    _tell(what, ("report", place / "more.jsonl", "--into", place / "report.html"))
    return "gone on with" if end.code == 0 else "refused"


def groups(world: World, random: Random, place: Path) -> str:
    """A file of groups."""
    _copy(world, place)
    shutil.copy(world.made("cluster") / "groups.json", place / "groups.json")
    what = _mutate(random, place / "groups.json")
    method = f"per_cluster:clusters={place / 'groups.json'},steps=2"
    line = ("build", world.tasks, "--method", method, "--base", world.base, "--into", place / "built", "--dry-run")
    end = _tell(what, line)
    again = (
        "cluster",
        place / "lib",
        "--join",
        place / "groups.json",
        "--base",
        world.base,
        "--into",
        place / "new.json",
    )
    _tell(what, again)
    return "read" if end.code == 0 else "refused"


def recipe(world: World, random: Random, place: Path) -> str:
    """A recipe."""
    text = f"tasks = '{world.tasks}'\nbase = '{world.base}'\ninto = '{place / 'built'}'\n"
    text += "[builder]\nname = 'private'\nsteps = 3\n"
    place.mkdir(exist_ok=True)
    (place / "recipe.toml").write_text(text)
    what = _mutate(random, place / "recipe.toml")
    end = _tell(what, ("build", "--recipe", place / "recipe.toml", "--dry-run"), codes=(0, 1, 2))
    return "read" if end.code == 0 else "refused"


def data(world: World, random: Random, place: Path) -> str:
    """Task data."""
    shutil.copytree(world.tasks, place / "tasks")
    what = _mutate(random, place / "tasks" / "copy.jsonl")
    line = ("build", place / "tasks", "--method", "private:steps=2", "--base", world.base, "--into", place / "built")
    end = _tell(what, (*line, "--dry-run"))
    return "read" if end.code == 0 else "refused"


def work(world: World, random: Random, place: Path) -> str:
    """What a build that isn't done keeps: damaged anywhere, the build ends in the same experts, or says why not."""
    shutil.copytree(world.made("unfinished"), place / "built")
    files = sorted(p for p in (place / "built" / ".work").rglob("*") if p.is_file())
    what = _mutate(random, random.choice(files))
    _tell(what, ("status", place / "built"), codes=(0, 1, 3))
    end = _tell(what, world.commands["build"].line(place))
    expected = content(world.made("build") / "built" / "experts")
    if end.code == 0 and content(place / "built" / "experts") != expected:
        raise Lost(f"{what}: the experts are other ones")
    return "the same experts" if end.code == 0 else "refused"


# ---- mutations ----------------------------------------------------------------------------------


def _mutate(random: Random, file: Path) -> str:
    """Change a file somehow, or not at all, to see that it would do; say how."""
    if random.random() < 0.08:
        return _UNCHANGED
    before = file.read_bytes()
    ways = [_flip, _cut, _insert, _empty, _repeat, _zeros]
    ways += [_field] * 8 if file.suffix == ".json" else [_row] * 4 if file.suffix == ".jsonl" else []
    ways += [_header] * 6 if file.suffix == ".safetensors" else []
    ways += [_odd]
    way = random.choice(ways)
    if way is _odd:
        return f"{file.name} {_odd(random, file)}"
    after = way(random, before)
    file.unlink()
    file.write_bytes(after)
    return f"{file.name} after {way.__name__.strip('_')}"


def _flip(random: Random, data: bytes) -> bytes:
    found = bytearray(data)
    for _ in range(random.choice((1, 1, 1, 4, 50))):
        found[random.randrange(len(found))] ^= 1 << random.randrange(8)
    return bytes(found)


def _cut(random: Random, data: bytes) -> bytes:
    return data[: random.randrange(len(data))]


def _insert(random: Random, data: bytes) -> bytes:
    at = random.randrange(len(data) + 1)
    return data[:at] + random.randbytes(random.choice((1, 8, 1000))) + data[at:]


def _empty(random: Random, data: bytes) -> bytes:
    return b"" if random.random() < 0.5 else b"\0" * len(data)


def _repeat(random: Random, data: bytes) -> bytes:
    return data * random.choice((2, 3))


def _zeros(random: Random, data: bytes) -> bytes:
    """What a power cut leaves: a page that was never written."""
    at = random.randrange(len(data))
    return data[:at] + b"\0" * min(4096, len(data) - at) + data[at + 4096 :]


def _odd(random: Random, file: Path) -> str:
    """Put something in the file's place that is no file."""
    file.unlink()
    match random.choice(("gone", "directory", "pipe", "link to a device", "dead link")):
        case "directory":
            file.mkdir()
            return "is a directory"
        case "pipe":
            os.mkfifo(file)
            return "is a pipe"
        case "link to a device":
            file.symlink_to("/dev/zero")
            return "leads to a device"
        case "dead link":
            file.symlink_to("nowhere")
            return "leads nowhere"
    return "is gone"


def _field(random: Random, data: bytes) -> bytes:
    return _changed_json(random, json.loads(data))


def _row(random: Random, data: bytes) -> bytes:
    lines = data.splitlines(keepends=True)
    at = random.randrange(len(lines))
    lines[at] = _changed_json(random, json.loads(lines[at])) + b"\n"
    if random.random() < 0.2:
        random.shuffle(lines)
    return b"".join(lines)


def _header(random: Random, data: bytes) -> bytes:
    """Change the header of tensors, and let its length say so, or not."""
    n = int.from_bytes(data[:8], "little")
    header = _changed_json(random, json.loads(data[8 : 8 + n]))
    length = len(header) if random.random() < 0.8 else random.choice((0, 2**60, 2**63, n))
    return length.to_bytes(8, "little") + header + data[8 + n :]


def _changed_json(random: Random, value: Any) -> bytes:
    """Replace, rename, double or remove something at any depth."""
    for _ in range(random.choice((1, 1, 2, 5))):
        value = _changed(random, value)
    if random.random() < 0.05:
        return b"[" * 100_000 + b"]" * 100_000
    text = json.dumps(value, ensure_ascii=random.random() < 0.5).encode(errors="surrogatepass")
    if random.random() < 0.1 and isinstance(value, dict) and value:
        key = json.dumps(random.choice(list(value)))
        text = text[:-1] + f", {key}: null}}".encode()  # a key twice
    return text


def _changed(random: Random, value: Any) -> Any:
    if isinstance(value, dict) and value and random.random() < 0.85:
        key = random.choice(list(value))
        match random.randrange(8):
            case 0:
                return {k: v for k, v in value.items() if k != key}
            case 1:
                return {**value, str(random.choice(_EVIL)): value[key]}
            case _:
                return {**value, key: _changed(random, value[key])}
    if isinstance(value, list) and value and random.random() < 0.7:
        at = random.randrange(len(value))
        return [*value[:at], _changed(random, value[at]), *value[at + 1 :]]
    if isinstance(value, int | float) and random.random() < 0.4:
        return random.choice((-value, value + 1, value * 2, value * 10**9, float(value), str(value)))
    return random.choice(_EVIL)


# ---- what must hold -----------------------------------------------------------------------------


def _copy(world: World, place: Path) -> None:
    shutil.copytree(world.start / "lib", place / "lib")


def _tell(what: str, line: tuple[object, ...], codes: tuple[int, ...] = (0, 1)) -> End:
    """Run a command: it does its work or tells why not, with a code, in bounded time and memory."""
    end = run(command(*line), LONGEST_S)
    doing = f"{what}: lorary {' '.join(map(str, line))}"
    require_clean(end, (0,) if what == _UNCHANGED and line[0] != "status" else codes_of(line, codes), doing)
    if end.code in (1, 3) and not re.search(r"\bE-[A-Z]{3,}", end.err + end.out):
        raise Lost(f"{doing}: no code in {end.out} {end.err}")
    if end.peak_mb > _own_mb() + MOST_MB:
        raise Lost(f"{doing}: took {end.peak_mb:.0f} MB")
    return end


def codes_of(line: tuple[object, ...], codes: tuple[int, ...]) -> tuple[int, ...]:
    """Say in which exit codes a command may end: `show` ends in 3 where some of what it shows is bad."""
    return (*codes, 3) if line[0] == "show" else codes


def _own_mb() -> float:
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


def _ask(world: World, place: Path, what: str) -> None:
    _tell(what, ("ask", place / "lib", "hello", "--router", "arrow", "--base", world.base, "--max-new-tokens", 2))


def _others_stand(world: World, path: Path) -> None:
    """Raise Lost unless the other experts are byte for byte what they were."""
    for name in Library.open(world.start / "lib"):
        if name != "swap" and content(path / "experts" / name) != content(world.start / "lib" / "experts" / name):
            raise Lost(f"expert {name} is another one now")


KINDS: dict[str, Callable[[World, Random, Path], str]] = {
    f"fuzzed {what.__name__}": what
    for what in (adapter, expert, manifest, state, learned, saved, scores, groups, recipe, data, work)
}
