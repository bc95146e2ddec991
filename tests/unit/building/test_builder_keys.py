"""A built library knows its jobs by their keys: options, defaults and keys stay what they were, to the byte."""

import dataclasses
import json
from pathlib import Path

import pytest

from lorary.building.clustering.clusters import Clusters
from lorary.folder import BUILDERS
from lorary.library.adapter.expert import Expert
from lorary.library.library import Library
from lorary.options import as_dict, to_spec
from lorary.testing.pico import random_library

PINNED = json.loads(Path(__file__).with_name("builder_keys.json").read_text(encoding="utf-8"))
"""Builder -> what it gave when this was written; a builder that came later isn't in it."""
FACTS = {"base": "0123", "dtype": "float32", "max_tokens": 256}
NEEDED = {
    "per_cluster": {"clusters": Clusters({"c0": ("copy", "swap"), "c1": ("upper",)})},
    "weighted": {"weights": (0.5, -1.0, 2.0)},
    "from_expert": {"expert": "copy"},
}
OTHER = {"steps": 6, "rank": 2, "lr": 0.01, "seed": 3, "adapt_to": ("copy", "swap"), "pack_tokens": 9, "strength": 2.0}


def what_is_pinned(name, tasks, source):
    cls = BUILDERS.load(name)
    default = cls(**NEEDED.get(name, {}))
    known = as_dict(default)
    other = cls(**NEEDED.get(name, {}), **{key: value for key, value in OTHER.items() if key in known})
    adapting = other if "adapt_to" in known else default
    return {
        "repr": repr_without_later(default),
        "spec": to_spec(other),
        "options": list(known),
        "jobs": {job.name: [job.key(FACTS), job.n_steps, job.describe()] for job in adapting.plan(tasks, source)},
        "other jobs": {job.name: job.key(FACTS) for job in other.plan(tasks, source)},
    }


def repr_without_later(options):
    """Leave out the options that came later, which show their defaults."""
    text = repr(options)
    for field in dataclasses.fields(options):
        if field.metadata.get("skip_default"):
            shown = f", {field.name}={field.default!r}"
            assert shown in text, f"{field.name} must show its default"
            text = text.replace(shown, "")
    return text


@pytest.fixture
def source(base, tmp_path, monkeypatch):
    monkeypatch.setattr(Expert, "hash", property(lambda self: self.name.encode().hex().ljust(64, "0")))
    monkeypatch.setattr(Library, "hash", property(lambda self: "fedc" * 16))
    return random_library(tmp_path / "lib", base, ["copy", "swap", "upper"], ranks=2)


@pytest.mark.parametrize("name", PINNED)
def test_options_and_keys_stay_what_they_were(name, toy, source):
    found = what_is_pinned(name, toy.only(["copy", "swap", "upper"]), source)
    assert json.loads(json.dumps(found)) == PINNED[name]
