"""What every builder promises; a new file in building/builders/ is tested without an edit here."""

import dataclasses

import pytest

from lorary.building.clustering.clusters import Clusters
from lorary.building.training import loop as train
from lorary.folder import BUILDERS
from lorary.testing.contracts import BuilderContract
from lorary.testing.pico import random_library

TASKS = ["copy", "swap", "upper"]
QUICK = {
    "weights": (0.5, -1.0, 2.0),
    "expert": "copy",
    "steps": 6,
    "batch_size": 2,
    "rank": 2,
    "n_evaluations": 2,
    "dropout": 0.1,
    "lr": 1e-2,
}


@pytest.fixture(scope="module")
def source(_pico, tmp_path_factory):
    """One for all builders: that they leave it as it was is a promise."""
    return random_library(tmp_path_factory.mktemp("source") / "lib", _pico, TASKS, ranks=2)


@pytest.mark.parametrize("name", BUILDERS.names())
class TestBuilder(BuilderContract):
    @pytest.fixture
    def builder(self, name, monkeypatch):
        monkeypatch.setattr(train, "CHECKPOINT_EVERY_S", 0.0)
        cls = BUILDERS.load(name)
        known = {f.name for f in dataclasses.fields(cls)}

        def make(tasks):
            clusters = Clusters({"c0": tuple(tasks)[:2], "c1": tuple(tasks)[2:]})
            options = {**QUICK, "clusters": clusters, "adapt_to": tuple(tasks)[:2]}
            return cls(**{key: value for key, value in options.items() if key in known})

        return make

    @pytest.fixture
    def tasks(self, toy):
        return toy.only(TASKS)
