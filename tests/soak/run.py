"""Harm lorary at random for a while, and count what it survives: `make soak`.

Each round is one fault, chosen by the seed and the round's number, on tiny random models; no network is needed. The
figures are written after every round, so a soak that is broken off goes on where it was, with the same seed and file.
`--round N` repeats one round of a seed: the same fault in the same place of the same command, though its instant is the
clock's. A lost round leaves what it found in its folder.
"""

import argparse
import importlib
import json
import os
import pkgutil
import secrets
import shutil
import sys
import tempfile
import time
import traceback
from pathlib import Path
from random import Random
from typing import Any

SETTINGS = {
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",
}
OPTIONAL = ("ray", "nevergrad", "triton")


def main() -> int:
    """Soak; 1 if anything was lost."""
    options = parse()
    sys.path.append(str(Path(__file__).resolve().parents[1]))
    work = Path(options.work or tempfile.mkdtemp(prefix="lorary-soak-")).absolute()
    os.environ.update(SETTINGS, LORARY_CACHE=str(work / "cache"), XDG_CONFIG_HOME=str(work / "config"))
    import_everything()
    figures = read_figures(Path(options.into) if options.into else None, options)
    print(f"seed {figures['seed']}, in {work}", flush=True)
    kinds = chosen_kinds(options.only, work)
    from world import World

    world = World(work / "world")
    world.make()
    began = time.monotonic()
    while options.round is not None or time.monotonic() - began < options.seconds:
        number = figures["rounds"] if options.round is None else options.round
        one_round(world, kinds, figures, number, work)
        figures["rounds"], figures["seconds"] = number + 1, round(figures["before_s"] + time.monotonic() - began)
        write_figures(figures, options.into)
        if options.round is not None:
            break
    print(table(figures), flush=True)
    if not figures["lost"] and options.work is None:
        shutil.rmtree(work, ignore_errors=True)
    return 1 if figures["lost"] else 0


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=600, help="how long; the round under way is ended")
    parser.add_argument("--seed", type=int, help="by default another each time")
    parser.add_argument("--round", type=int, help="repeat this one of a seed")
    parser.add_argument("--only", action="append", help="faults whose name begins so; repeatable")
    parser.add_argument("--into", help="JSON file for the figures; an earlier one of the seed is continued")
    parser.add_argument("--work", help="folder to work in, and to keep; by default one in the temporary folder")
    return parser.parse_args()


def import_everything() -> None:
    """Import all of lorary before anything is forked."""
    import lorary

    for module in pkgutil.walk_packages(lorary.__path__, "lorary."):
        try:
            importlib.import_module(module.name)
        except ImportError as error:
            if error.name not in OPTIONAL:
                raise


def chosen_kinds(only: list[str] | None, work: Path) -> list[tuple[str, Any]]:
    """List the faults, each as often as it shall come, in an order that mixes them."""
    import faults
    from process import has_small_disks

    kinds = faults.kinds(has_small_disks=has_small_disks(work / "disk"))
    wanted = [(name, do) for name, do in kinds if not only or name.startswith(tuple(only))]
    if not wanted:
        sys.exit(f"no such fault; known: {', '.join(sorted({name for name, _ in kinds}))}")
    Random(0).shuffle(wanted)
    return wanted


def one_round(world: Any, kinds: list[tuple[str, Any]], figures: dict[str, Any], number: int, work: Path) -> None:
    """Do one fault and note what became of it."""
    from process import MARK
    from world import Lost

    name, do = kinds[number % len(kinds)]
    place = work / f"round-{number}" / "place"
    place.mkdir(parents=True, exist_ok=True)
    os.environ[MARK] = str(place)
    counts = figures["kinds"].setdefault(name, {"tried": 0, "survived": 0, "lost": 0, "how": {}})
    counts["tried"] += 1
    try:
        how = do(world, Random(f"{figures['seed']}:{number}"), place)
    except Lost as lost:
        counts["lost"] += 1
        told = str(lost)
    except Exception:
        counts["lost"] += 1
        told = traceback.format_exc()
    else:
        counts["survived"] += 1
        counts["how"][how] = counts["how"].get(how, 0) + 1
        shutil.rmtree(place.parent, ignore_errors=True)
        return
    figures["lost"].append({"round": number, "kind": name, "why": told[-4000:], "in": str(place.parent)})
    print(f"LOST round {number} ({name}): {told}\n  left in {place.parent}", flush=True)


def read_figures(into: Path | None, options: argparse.Namespace) -> dict[str, Any]:
    """Begin the figures, or go on with those of a soak of the same seed."""
    if into is not None and into.exists() and options.round is None:
        found: dict[str, Any] = json.loads(into.read_text(encoding="utf-8"))
        if options.seed in (None, found["seed"]):
            return found | {"before_s": found["seconds"]}
    seed = secrets.randbelow(10**6) if options.seed is None else options.seed
    return {"seed": seed, "rounds": 0, "seconds": 0, "before_s": 0, "kinds": {}, "lost": []}


def write_figures(figures: dict[str, Any], into: str | None) -> None:
    """Write the figures, whole or not at all."""
    if into is None:
        return
    beside = Path(f"{into}.new")
    beside.parent.mkdir(parents=True, exist_ok=True)
    beside.write_text(json.dumps(figures, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    beside.replace(into)


def table(figures: dict[str, Any]) -> str:
    """Show the figures as the lines of a table; those of all commands that met a fault are one line."""
    head = ["| fault | tried | survived | lost | how it ended |", "|---|--:|--:|--:|---|"]
    rows: dict[str, dict[str, Any]] = {}
    for name, counts in sorted(figures["kinds"].items()):
        fault, _, command = name.partition(": ")
        row = rows.setdefault(fault, {"tried": 0, "survived": 0, "lost": 0, "how": {}, "commands": []})
        row["commands"] += [command] if command else []
        for key in ("tried", "survived", "lost"):
            row[key] += counts[key]
        for how, n in counts["how"].items():
            row["how"][how] = row["how"].get(how, 0) + n
    lines = [
        _line(fault + (f" ({', '.join(row['commands'])})" if row["commands"] else ""), row)
        for fault, row in rows.items()
    ]
    total = {key: sum(row[key] for row in rows.values()) for key in ("tried", "survived", "lost")}
    lines.append(_line(f"all, in {figures['seconds']} s, seed {figures['seed']}", total | {"how": {}}))
    return "\n".join([*head, *lines])


def _line(name: str, row: dict[str, Any]) -> str:
    ends = ", ".join(f"{how} {n}" for how, n in sorted(row["how"].items()))
    return f"| {name} | {row['tried']} | {row['survived']} | {row['lost']} | {ends} |"


if __name__ == "__main__":
    sys.exit(main())
