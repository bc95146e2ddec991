"""What every backend promises; a new file in backends/ is tested without an edit here."""

import pytest

from lorary.building.builders.private import Private
from lorary.building.recipe import Recipe
from lorary.folder import BACKENDS
from lorary.testing.contracts import BackendContract
from recipe_files import write_base, write_tasks

OPTIONS = {"local": "local:workers=1", "ray": "ray"}  # worker processes of local: tests/slow
SLOW = {"ray"}  # starts a cluster


def named(name):
    return pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name


@pytest.mark.parametrize("name", [named(name) for name in BACKENDS.names()])
class TestBackend(BackendContract):
    @pytest.fixture
    def backend(self, name):
        return BACKENDS.parse(OPTIONS.get(name, name))

    @pytest.fixture
    def recipe(self, base, toy, tmp_path):
        quick = Private(steps=2, batch_size=2, rank=2, n_evaluations=1)
        tasks = write_tasks(tmp_path / "tasks", toy.only(["copy", "swap"]))
        place = write_base(tmp_path / "pico", base)
        return Recipe(builder=quick, into=tmp_path / "lib", base=str(place), tasks=(str(tasks),))
