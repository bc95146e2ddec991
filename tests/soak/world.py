"""What rounds start from: a tiny random base, toy tasks, a library, adapters to add, and what commands make of them."""

import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

from process import End, command, run

from lorary.building.training import loop as train
from lorary.library.library import Library
from lorary.model.base.named_bases import remember_base
from lorary.tasks.toy import toy_tasks
from lorary.testing.contracts import files_of
from lorary.testing.pico import pico_base, random_library

NAMES = ("copy", "join", "swap", "upper")


class Lost(AssertionError):  # noqa: N818 - it says what became of a round
    """Something that was promised did not hold."""


@dataclass(frozen=True)
class Command:
    """A command to be broken off.

    made: what it makes, beside the library. once: the error that a second run may end in, since the first was done.
    """

    name: str
    line: Callable[[Path], tuple[object, ...]]
    made: tuple[str, ...] = ()
    once: str | None = None
    python: Callable[[Path], None] | None = None

    def at(self, place: Path) -> Callable[[], None]:
        """Make the function that runs it in a place."""
        python = self.python
        return (lambda: python(place)) if python else command(*self.line(place))


@dataclass
class World:
    """base, tasks, adapters: shared, never changed. `start`: what each round gets a copy of."""

    root: Path
    base: Path = field(init=False)
    tasks: Path = field(init=False)
    adapters: Path = field(init=False)
    start: Path = field(init=False)
    seconds: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Name the places."""
        self.base, self.tasks = self.root / "pico", self.root / "tasks"
        self.adapters, self.start = self.root / "adapters", self.root / "start"

    def make(self) -> None:
        """Make what all rounds start from."""
        shutil.rmtree(self.root, ignore_errors=True)
        (self.root / "after").mkdir(parents=True)
        pico = pico_base()
        pico.write(self.base)
        toys = toy_tasks(10, 2, 2).only(NAMES)
        self.tasks.mkdir()
        for name, task in toys.items():
            parts = [(part, getattr(task, part)) for part in ("train", "valid", "test")]
            rows = [{"prompt": e.prompt, "completion": e.completion, "split": part} for part, es in parts for e in es]
            (self.tasks / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        random_library(self.start / "lib", pico, NAMES)
        more = random_library(self.root / "more", pico, ["poems", "riddles", "songs"], seed=1)
        for name in more:
            more[name].copy_to(self.adapters / name)
        remember_base(str(self.base))
        scored = ("--router", "arrow", "--metric", "perplexity", "--limit", 2, "--base", self.base)
        line = ("eval", self.start / "lib", self.tasks, *scored)
        end = run(command(*line, "--into", self.start / "scores.jsonl"))
        require_clean(end, (0,), "making the world")

    def made(self, name: str) -> Path:
        """Give the place where a command was run without a fault, or `learned`, or `unfinished`; made when first asked.

        A command's time is noted then: it says when to break it off.
        """
        place = self.root / "after" / name
        if place.exists():
            return place / "built" if name == "unfinished" else place
        beside = place.with_name(f"{name} arriving")
        if name == "learned":
            line = ("build", self.tasks, "--method", "phatgoose:steps=2,batch_size=2", "--from", self.start / "lib")
            do = command(*line, "--base", self.base, "--into", beside)
        elif name == "unfinished":
            do = broken_off(self.commands["build"].at(beside))
        else:
            shutil.copytree(self.start, beside)
            do = self.commands[name].at(beside)
        end = run(do)
        require_clean(end, (0,), f"{name}, without a fault")
        self.seconds[name] = end.seconds
        beside.rename(place)
        return self.made(name)

    @property
    def commands(self) -> dict[str, Command]:
        """All commands that change files, by name."""
        base = ("--base", self.base)
        train = "private:steps=6,batch_size=2,rank=2,n_evaluations=2,lr=1e-2,dropout=0.1"
        arrow = ("--router", "arrow:top_k=2")
        all_of_them = [
            Command("add", lambda p: ("add", p / "lib", self.adapters / "poems", *base), once="E-EXISTS"),
            Command("add a pile", lambda p: ("add", p / "lib", self.adapters, *base), once="E-EXISTS"),
            Command(
                "add --replace",
                lambda p: ("add", p / "lib", self.adapters / "songs", "--as", "swap", "--replace", *base),
            ),
            Command("remove", lambda p: ("remove", p / "lib", "swap"), once="E-NAME"),
            Command("build", lambda p: ("build", self.tasks, "--method", train, *base, "--into", p / "built")),
            Command(
                "build a merge",
                lambda p: ("build", "--method", "ties", "--from", p / "lib", *base, "--into", p / "ties"),
            ),
            Command(
                "finetune",
                lambda p: ("finetune", self.tasks, *base, "--options", "epochs=1,batch_size=4", "--into", p / "tuned"),
                made=("tuned",),
                once="E-EXISTS",
            ),
            Command(
                "cluster",
                lambda p: ("cluster", p / "lib", "--method", "mbc:k=2", *base, "--into", p / "groups.json"),
                made=("groups.json",),
            ),
            Command(
                "save", lambda p: ("save", p / "lib", *arrow, *base, "--into", p / "saved"), ("saved",), "E-EXISTS"
            ),
            Command(
                "export",
                lambda p: ("export", p / "lib", "--rank", 4, *base, "--into", p / "one"),
                made=("one",),
                once="E-EXISTS",
            ),
            Command(
                "eval",
                lambda p: ("eval", p / "lib", self.tasks, *arrow, *base, "--limit", 2, "--into", p / "more.jsonl"),
                made=("more.jsonl",),
            ),
            Command(
                "report",
                lambda p: ("report", p / "scores.jsonl", "--into", p / "report.html"),
                made=("report.html",),
            ),
            Command(
                "copy_to",
                lambda p: (),
                made=("copied",),
                once="E-EXISTS",
                python=lambda p: Library.open(p / "lib")["swap"].copy_to(p / "copied") and None,
            ),
            Command("gc", lambda p: ("gc", p / "lib", "--states")),
            Command("ask", lambda p: ("ask", p / "lib", "hello", *base, "--max-new-tokens", 2)),
        ]
        return {tried.name: tried for tried in all_of_them}


def broken_off(do: Callable[[], object]) -> Callable[[], None]:
    """Give a build that is broken off at its fourth step, as by kill -9: nothing is tidied up."""

    def begin() -> None:
        with patch.object(train, "CHECKPOINT_EVERY_S", 0.0), patch.object(train, "_report", _ends_at_step(4)):
            do()

    return begin


def _ends_at_step(last: int) -> Callable[..., None]:
    tell = train._report

    def tell_or_end(run: Any, step: int, live: Any) -> None:
        if step == last:
            os._exit(0)
        tell(run, step, live)

    return tell_or_end


def content(place: Path) -> dict[str, str]:
    """Hash all files of a place by their path in it; of hidden ones, which are nobody's work, too."""
    return files_of(place)


def require_clean(end: End, codes: tuple[int, ...], doing: str) -> None:
    """Raise Lost unless a command ended with one of some codes, soon, without a traceback."""
    said = f"{doing}: exit code {end.code}\n{end.err[-3000:]}"
    if "HUNG" in end.err:
        raise Lost(f"hang: {said}")
    if "Traceback" in end.err:
        raise Lost(f"traceback: {said}")
    if end.code not in codes:
        raise Lost(f"wrong exit code, expected one of {codes}: {said}")


def wait_for(what: Callable[[], bool], longest_s: float) -> bool:
    """Wait until something is true; give whether it came to be."""
    deadline = time.monotonic() + longest_s
    while not what():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
