"""A base of two layers, three toy tasks on disk, and a library of them."""

import shutil
from pathlib import Path

import pytest
from cli_line import Run, World, run_line, run_quietly, write_task

from lorary.model.base.named_bases import remember_base
from lorary.tasks.toy import toy_tasks
from lorary.testing.pico import pico_base


@pytest.fixture
def world(_world: World) -> World:
    """The world, its base one that the user named: what was noted is forgotten before every test."""
    remember_base(str(_world.base))
    return _world


@pytest.fixture(scope="session")
def _world(tmp_path_factory: pytest.TempPathFactory) -> World:
    place = tmp_path_factory.mktemp("world")
    world = World(place / "pico", place / "tasks", place / "libs" / "private")
    base = pico_base()
    base.hf.save_pretrained(world.base)
    base.tokenizer.save_pretrained(world.base)
    for name in ("copy", "swap", "upper"):
        write_task(world.tasks, toy_tasks(16, 4, 4)[name])
    line = ("build", world.tasks, "--method", "private:steps=3", "--base", world.base, "--into", world.library)
    assert run_quietly(*line) == 0
    return world


@pytest.fixture
def copied(world: World, tmp_path: Path) -> Path:
    """A copy of the private library, to be changed."""
    return Path(shutil.copytree(world.library, tmp_path / "copied"))


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    """Run a command line in this process."""
    return lambda *arguments: run_line(capfd, arguments)


@pytest.fixture
def padded(tmp_path: Path) -> Path:
    """The world's base, to whose embedding rows were added."""
    base = pico_base()
    base.hf.resize_token_embeddings(320, mean_resizing=False)
    base.hf.save_pretrained(tmp_path / "padded")
    base.tokenizer.save_pretrained(tmp_path / "padded")
    return tmp_path / "padded"
