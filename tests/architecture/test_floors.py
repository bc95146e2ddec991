"""Imports point downstairs only."""

import re

from source_tree import ROOT, modules

FLOORS = {
    **dict.fromkeys(("errors", "disk", "extras", "folder", "options", "hashing", "progress"), 0),
    **dict.fromkeys(("tasks", "library", "pages", "work"), 1),
    **dict.fromkeys(("adapters", "evaluation"), 2),
    **dict.fromkeys(("formats", "routing"), 3),
    "model": 4,
    **dict.fromkeys(("building", "using"), 5),
    **dict.fromkeys(("asking", "grid", "harness", "reporting", "serving", "tracking"), 6),
    "studies": 7,
    **dict.fromkeys(("cli", "testing"), 8),
}
ROOMS = {
    "model": ("sites", "text", "attached", "decoding", "base", "probes", "ensemble", "saved", "routed",
        "trainers"),
    "building": (
        "limits", "lengths", "trained_layers", "contract", "training", "merging", "clustering", "builders",
        "estimate", "recipe", "runner", "build_work", "finetune", "build",
    ),
    "tasks": ("example", "task", "joined", "rows", "stored", "gather", "telling", "on_disk", "read"),
    "adapters": ("contract", "bank_rows", "growing_rows", "mixing", "low_rank"),
}  # fmt: skip
"""Floor -> its rooms from the bottom up: one may import those before it. Rooms that aren't listed stand above all."""

NEVER = {
    "routing": {"library", "tasks"},
    "evaluation": {"library"},
    "building": {"evaluation"},
    "using": {"evaluation"},
    "reporting": {"building", "library", "model"},
}
"""What a floor must not know, although it is below."""

FRONT_DOOR = "__init__"  # names things on all floors; from it others may take the version alone


def test_every_import_points_downstairs() -> None:
    wrong = []
    for module in modules():
        for found in module.imports():
            package, _, rest = found.target.partition(".")
            if package != "lorary" or module.folder == FRONT_DOOR or rest == "__version__":
                continue
            here, there = module.folder, rest.partition(".")[0]
            if here == there or FLOORS[here] == FLOORS.get(there) == 0:  # the ground floor is one room
                continue
            if FLOORS.get(there, 99) >= FLOORS[here]:
                floors = f"{here} is on floor {FLOORS[here]}, {there or 'the front door'} on {FLOORS.get(there, 'top')}"
                wrong.append(f"src/lorary/{module.path}:{found.line} imports {found.target}: {floors}")
    assert not wrong, "\n".join(["A module may import its own folder and lower floors:", *wrong])


def test_nobody_knows_what_it_must_not() -> None:
    wrong = [
        f"src/lorary/{module.path}:{found.line} imports {found.target}: {module.folder} must not know {there}"
        for module in modules()
        for found in module.imports()
        if (there := found.target.removeprefix("lorary.").partition(".")[0]) in NEVER.get(module.folder, set())
        and found.target.startswith("lorary.")
    ]
    assert not wrong, "\n".join(wrong)


def test_rooms_of_a_floor_are_in_order() -> None:
    wrong = [
        f"src/lorary/{module.path}:{found.line} imports {found.target}: {here} is below {there}"
        for module in modules()
        for found in module.imports()
        if module.folder in ROOMS
        and found.target.startswith(f"lorary.{module.folder}.")
        and (here := _room(module.name)) != (there := _room(found.target))
        and _height(module.folder, there) > _height(module.folder, here)
    ]
    assert not wrong, "\n".join(["A room may import those that ROOMS lists before it:", *wrong])


def _room(name: str) -> str:
    return name.split(".")[2] if name.count(".") > 1 else ""


def _height(floor: str, room: str) -> int:
    return ROOMS[floor].index(room) if room in ROOMS[floor] else len(ROOMS[floor])


def test_every_folder_has_a_floor() -> None:
    homeless = sorted({module.folder for module in modules()} - {*FLOORS, FRONT_DOOR})
    assert not homeless, f"give these a floor in {__name__} and docs/architecture.md: {homeless}"


def test_the_plan_says_the_same() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    lines = {int(line.split()[0]): line for line in re.findall(r"^ +\d   .*$", text, re.MULTILINE)}
    for folder in sorted({module.folder for module in modules()} - {FRONT_DOOR}):
        line = lines.get(FLOORS[folder], "")
        assert re.search(rf"\b{folder}\b", line), f"docs/architecture.md: floor {FLOORS[folder]} doesn't name {folder}"
