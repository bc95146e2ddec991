"""Imports point downstairs only."""

import re

from source_tree import ROOT, module_of, modules

FLOORS = {
    **dict.fromkeys(("errors", "disk", "extras", "folder", "options", "hashing", "processes"), 0),
    **dict.fromkeys(("tasks", "library"), 1),
    **dict.fromkeys(("adapters", "evaluation"), 2),
    "routing": 3,
    "model": 4,
    "building": 5,
    **dict.fromkeys(("reporting", "serving"), 6),
    "studies": 7,
    **dict.fromkeys(("cli", "testing"), 8),
}
NEVER = {
    "routing": {"library", "tasks"},
    "evaluation": {"library"},
    "building": {"evaluation"},
    "reporting": {"building", "library", "model"},
}
"""What a floor must not know, although it is below."""

ROOMS = {"building/work/": {"building/jobs.py", "building/finetune.py"}}
"""A part of a floor -> who of the rest of that floor may come in; the others are below it and know nothing of it."""

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


def test_a_room_is_above_the_rest_of_its_floor() -> None:
    wrong = [
        f"src/lorary/{module.path}:{found.line} imports {found.target}: who builds must not know {room}"
        for room, doors in ROOMS.items()
        for module in modules()
        for found in module.imports()
        if found.target.startswith("lorary." + room.replace("/", "."))
        and module.folder == room.partition("/")[0]
        and not module.path.startswith(room)
        and module.path not in doors
    ]
    circles = [
        f"src/lorary/{module.path}:{found.line} imports {found.target}: {room} must not know its own door"
        for room, doors in ROOMS.items()
        for module in modules()
        for found in module.imports()
        if module.path.startswith(room)
        and found.target.startswith("lorary.")
        and module_of(found.target) in {_name(door) for door in doors}
    ]
    assert not wrong + circles, "\n".join(wrong + circles)


def _name(path: str) -> str:
    return "lorary." + path.removesuffix(".py").replace("/", ".")


def test_every_folder_has_a_floor() -> None:
    homeless = sorted({module.folder for module in modules()} - {*FLOORS, FRONT_DOOR})
    assert not homeless, f"give these a floor in {__name__} and docs/architecture.md: {homeless}"


def test_the_plan_says_the_same() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    lines = {int(line.split()[0]): line for line in re.findall(r"^ +\d   .*$", text, re.MULTILINE)}
    for folder in sorted({module.folder for module in modules()} - {FRONT_DOOR}):
        line = lines.get(FLOORS[folder], "")
        assert re.search(rf"\b{folder}\b", line), f"docs/architecture.md: floor {FLOORS[folder]} doesn't name {folder}"
