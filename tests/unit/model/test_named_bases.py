"""A base is found again by its fingerprint where its user loaded it; nothing else is."""

import json
import shutil

import pytest

from lorary.model.base.base_model import load_base
from lorary.model.base.embedded_needs import EMBEDDED
from lorary.model.base.named_bases import find_base, recall, remember_fit
from lorary.model.routed.route import route
from lorary.testing.pico import random_library


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LORARY_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def mine(base, tmp_path, monkeypatch, cache):
    """The pico base as a directory, loaded by a relative name."""
    monkeypatch.chdir(tmp_path)
    base.write(tmp_path / "mine")
    return load_base("mine", device="cpu", dtype="float32")


def test_it_is_noted_when_it_fits_a_library_and_found_from_elsewhere(mine, tmp_path, monkeypatch):
    library = random_library(tmp_path / "lib", mine, ["a"])
    assert recall(mine.fingerprint) is None
    route(mine, library, "uniform").detach()
    (tmp_path / "else").mkdir()
    monkeypatch.chdir(tmp_path / "else")
    assert find_base("mine", library.base) == recall(mine.fingerprint) == str(tmp_path / "mine")
    assert find_base(EMBEDDED, library.base) == EMBEDDED


def test_only_this_base_is_found(mine, tmp_path):
    remember_fit(mine)
    known = mine.fingerprint
    assert recall(None) is None
    assert recall({}) is None
    assert recall({**known, "weights": "others"}) is None
    sizes = {key: value for key, value in known.items() if key not in ("weights", "embedding_signs")}
    assert recall(sizes) is None, "many bases have these sizes"
    shutil.rmtree(tmp_path / "mine")
    assert recall(known) is None
    assert find_base("mine", known) is None


def test_another_precision_is_found_by_its_signs_unless_the_same_is_there(mine, tmp_path):
    remember_fit(mine)
    half = {key: value for key, value in mine.fingerprint.items() if key != "weights"} | {"weights_float16": "half"}
    assert recall(half) == str(tmp_path / "mine")
    shutil.copytree(tmp_path / "mine", tmp_path / "copy")
    remember_fit(load_base("copy", device="cpu", dtype="float16"))
    assert recall(mine.fingerprint) == str(tmp_path / "mine")


def test_a_note_that_is_damaged_or_not_to_be_written_is_none(mine, cache):
    remember_fit(mine)
    (note,) = (cache / "bases").iterdir()
    for text in ("", "[]", json.dumps({"directory": 3}), json.dumps({"fingerprint": {}}), "\xff"):
        note.write_text(text, encoding="latin-1")
        assert recall(mine.fingerprint) is None
    shutil.rmtree(cache)
    cache.write_text("a file")
    remember_fit(mine)
    assert recall(mine.fingerprint) is None


def test_a_note_that_somebody_else_left_is_none(mine, tmp_path, cache):
    remember_fit(mine)
    (note,) = (cache / "bases").iterdir()
    shutil.copytree(tmp_path / "mine", tmp_path / "theirs")
    told = json.loads(note.read_text()) | {"directory": str(tmp_path / "theirs")}
    note.write_text(json.dumps(told))
    assert recall(mine.fingerprint) is None
