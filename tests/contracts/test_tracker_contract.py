"""What every tracker promises; a new file in trackers/ is tested without an edit here."""

import dataclasses

import pytest

from lorary import extras
from lorary.folder import TRACKERS
from lorary.testing.contracts import TrackerContract
from trackio_place import give_trackio

SLOW = {"mlflow", "trackio", "wandb"}  # to import


def named(name):
    return pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name


@pytest.mark.parametrize("name", [named(name) for name in TRACKERS.names()])
class TestTracker(TrackerContract):
    @pytest.fixture
    def tracker(self, name, tmp_path, monkeypatch):
        if name in extras.EXTRAS and extras.missing(name):
            pytest.skip(f"{name} isn't installed")
        if name == "trackio":
            give_trackio(tmp_path / "trackio", monkeypatch)
        monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
        places = {"into": str(tmp_path / "into"), "uri": (tmp_path / "uri").as_uri(), "mode": "offline"}
        cls = TRACKERS.load(name)
        return cls(**{f.name: places[f.name] for f in dataclasses.fields(cls) if f.name in places})
