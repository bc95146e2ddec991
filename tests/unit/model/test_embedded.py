"""The embedded base lies in the user's cache, for all who may come there."""

import os

import pytest

from lorary.errors import LibraryError
from lorary.hashing import hash_file
from lorary.model.base import embedded


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache that isn't there yet, and a tiny wheel in place of the real one."""
    gguf = tmp_path / "model.gguf"
    gguf.write_bytes(b"4 bit")
    monkeypatch.setenv("LORARY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(embedded, "require_converter", lambda: None)
    monkeypatch.setattr(embedded, "find_packaged", lambda *_, **__: gguf)
    monkeypatch.setattr(embedded, "_GGUF_SHA256", hash_file(gguf))
    monkeypatch.setattr(embedded, "_convert", lambda _, target: (target / "model.safetensors").write_bytes(b"16 bit"))
    return tmp_path / "cache"


def test_the_umask_says_who_may_come_to_the_cached_base(cache):
    before = os.umask(0o022)
    try:
        place = embedded.embedded_directory()
    finally:
        os.umask(before)
    assert place == str(cache / "smollm2-135m") == embedded.embedded_directory()
    assert (cache / "smollm2-135m").stat().st_mode & 0o777 == 0o755
    assert [path.name for path in cache.iterdir()] == ["smollm2-135m"]


def test_a_cache_without_room_is_told(cache, full_disk):
    with full_disk(), pytest.raises(LibraryError) as caught:
        embedded.embedded_directory()
    assert str(caught.value).startswith(f"error[E-DISK] '{cache}', lorary's cache: the disk is full (")
    assert not list(cache.iterdir())


def test_a_cache_of_somebody_else_is_told(cache, someone_else):
    with someone_else(), pytest.raises(LibraryError) as caught:
        embedded.embedded_directory()
    assert str(caught.value) == (
        f"error[E-PERM] '{cache}', lorary's cache: writing is not allowed (Permission denied). "
        "Set LORARY_CACHE to a directory you can write to."
    )


def test_of_two_that_convert_at_once_the_later_takes_nothing_from_the_first(cache, monkeypatch):
    convert, first = embedded._convert, []

    def slow(gguf, target):
        convert(gguf, target)
        if not first:
            first.append(None)
            first[0] = (embedded.embedded_directory(), (cache / "smollm2-135m").stat().st_ino)

    monkeypatch.setattr(embedded, "_convert", slow)
    place = embedded.embedded_directory()
    assert first == [(place, (cache / "smollm2-135m").stat().st_ino)]
    assert [path.name for path in cache.iterdir()] == ["smollm2-135m"]


def test_a_damaged_base_in_the_cache_is_made_anew(cache):
    weights = cache / "smollm2-135m" / "model.safetensors"
    embedded.embedded_directory()
    weights.write_bytes(b"15 bit")
    embedded.embedded_directory()
    assert weights.read_bytes() == b"16 bit"
    assert [path.name for path in cache.iterdir()] == ["smollm2-135m"]
