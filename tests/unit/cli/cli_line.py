"""Command lines run in this process, and what they left."""

import contextlib
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from lorary.cli.main import main
from lorary.library.base_names import shared_name
from lorary.tasks.task import Task


@dataclasses.dataclass(frozen=True)
class Answer:
    """What one command left: its exit code and what it wrote."""

    code: int
    out: str
    err: str


Run = Callable[..., Answer]


@dataclasses.dataclass(frozen=True)
class World:
    """A base of two layers, three tasks, and a library with one expert for each."""

    base: Path
    tasks: Path
    library: Path

    @property
    def called(self) -> str:
        """What shared files call the base."""
        return shared_name(str(self.base))


def run_line(capfd: pytest.CaptureFixture[str], arguments: tuple[object, ...]) -> Answer:
    capfd.readouterr()
    code = run_quietly(*arguments)
    return Answer(code, *capfd.readouterr())


def run_quietly(*arguments: object) -> int:
    stopped = SystemExit(0)
    with contextlib.suppress(SystemExit):
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as stop:
            stopped = stop
    return int(stopped.code or 0)


def write_task(folder: Path, task: Task) -> None:
    folder.mkdir(exist_ok=True)
    lines = [
        json.dumps({"prompt": e.prompt, "completion": e.completion, "split": part})
        for part in ("train", "valid", "test")
        for e in getattr(task, part)
    ]
    (folder / f"{task.name}.jsonl").write_text("\n".join(lines) + "\n")
