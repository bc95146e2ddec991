"""The embedded base lies in the user's cache, for all who may come there."""

import os

import pytest

from lorary.errors import LibraryError
from lorary.hashing import hash_file
from lorary.model import embedded


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
