"""R1: sizes are alarms with walls; exceptions.txt says who may break a wall, and why."""

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from source_tree import modules
from test_names import METHODS

ALARMS = {"function": 50, "file": 300, "class": 200}
WALLS = {"function": 80, "file": 400, "class": 200}
COMMAND_WALL = 80
MOST_EXCEPTIONS = 5
MOST_FILES = {"cli": 22}
"""Of a folder, where it isn't 14 yet; only to be lowered."""


class Size(NamedTuple):
    """How many lines something has; `place` is what exceptions.txt calls it."""

    place: str
    kind: str
    n_lines: int


def sizes() -> Iterator[Size]:
    for module in modules():
        yield Size(module.path, "file", len(module.text.splitlines()))
        for node in ast.walk(module.tree):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                kind = "class" if isinstance(node, ast.ClassDef) else "function"
                assert node.end_lineno is not None
                yield Size(f"{module.path}::{node.name}", kind, node.end_lineno - node.lineno + 1)


def exceptions() -> dict[str, str]:
    lines = Path(__file__).with_name("exceptions.txt").read_text(encoding="utf-8").splitlines()
    pairs = [line.split(maxsplit=1) for line in lines if line.strip() and not line.startswith("#")]
    return {pair[0]: pair[1] if len(pair) > 1 else "" for pair in pairs}


def test_nothing_breaks_a_wall(capsys: pytest.CaptureFixture[str]) -> None:
    found = [f"src/lorary/{s.place}: {s.n_lines} lines, wall {WALLS[s.kind]}" for s in _beyond(WALLS)]
    rising = [f"alarm: src/lorary/{s.place}: {s.n_lines} lines" for s in sizes() if s.n_lines > ALARMS[s.kind]]
    with capsys.disabled():
        print("\n" + "\n".join(rising) if rising else "", end="")
    assert not found, "\n".join([*found, "Split it, or give a reason in tests/architecture/exceptions.txt."])


def _beyond(walls: dict[str, int]) -> list[Size]:
    return [size for size in sizes() if size.n_lines > walls[size.kind] and size.place not in exceptions()]


def test_no_folder_is_a_corridor() -> None:
    """A room of many files hides what is in it; folders of methods and commands are lists, and may be long."""
    files = Counter(module.path.rpartition("/")[0] for module in modules() if not module.path.endswith("__init__.py"))
    for folder in (*METHODS, "cli/commands"):
        del files[folder]
    assert {folder: n for folder, n in files.items() if n > MOST_FILES.get(folder, 14)} == {}


def test_exceptions_are_few_reasoned_and_needed() -> None:
    known = exceptions()
    needed = {size.place for size in sizes() if size.n_lines > WALLS[size.kind]}
    assert len(known) <= MOST_EXCEPTIONS
    assert all(known.values()), "every line needs a reason after the place"
    assert set(known) <= needed, f"no longer needed: {sorted(set(known) - needed)}"


def test_a_command_is_small() -> None:
    commands = [size for size in sizes() if size.kind == "file" and size.place.startswith("cli/commands/")]
    assert [size for size in commands if size.n_lines >= COMMAND_WALL] == []
