"""A seal that only this user can set, whatever stands where the key is kept."""

import os
import subprocess
import sys

import pytest

from lorary.disk import seal as seals
from lorary.disk.seal import is_sealed, seal, sealer


@pytest.fixture
def homes(tmp_path, monkeypatch):
    """Be a user who never had a key; the places where one may be, the best first."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("LORARY_CACHE", str(tmp_path / "cache"))
    seals._key.cache_clear()
    yield seals._places()
    seals._key.cache_clear()


def test_what_is_sealed_is_known_again_and_nothing_else(homes):
    told = seal("arrow", "key", "content")
    seals._key.cache_clear()
    assert is_sealed(told, "arrow", "key", "content")
    for other in (("arrow", "key", "other"), ("arrow", "key"), ("arrowkey", "content")):
        assert not is_sealed(told, *other)
    assert not is_sealed(None, "arrow", "key", "content") and not is_sealed("", "x") and not is_sealed("é", "x")
    assert homes[0].stat().st_mode & 0o777 == 0o600 and homes[0].stat().st_size == 32
    assert sealer() not in homes[0].read_bytes().hex()


def test_a_lost_key_is_another_user(homes):
    told, name = seal("x"), sealer()
    homes[0].unlink()
    seals._key.cache_clear()
    assert not is_sealed(told, "x") and sealer() != name


def _open_to_all(place):
    place.write_bytes(b"k" * 32)
    place.chmod(0o644)


def _a_link(place):
    (place.parent / "real").write_bytes(b"k" * 32)
    (place.parent / "real").chmod(0o600)
    place.symlink_to(place.parent / "real")


NO_KEYS = {
    "short": lambda place: (place.write_bytes(b"k" * 31), place.chmod(0o600)),
    "open to all": _open_to_all,
    "a link": _a_link,
    "a pipe": lambda place: os.mkfifo(place, 0o600),
    "a directory": lambda place: place.mkdir(),
}


@pytest.mark.parametrize("what", NO_KEYS)
def test_what_is_no_private_key_is_not_used(what, homes):
    """Anybody may have read, or written, what others can: another key comes in its place, or stands elsewhere."""
    homes[0].parent.mkdir(parents=True)
    NO_KEYS[what](homes[0])
    told = seal("x")
    seals._key.cache_clear()
    assert is_sealed(told, "x")
    found = [place for place in homes if place.is_file() and not place.is_symlink()]
    assert found and all(place.stat().st_mode & 0o077 == 0 and b"kkk" not in place.read_bytes() for place in found)


def test_where_none_can_be_kept_the_process_has_its_own(tmp_path, homes):
    (tmp_path / "config").write_text("no directory")
    (tmp_path / "cache").write_text("no directory")
    told = seal("x")
    assert is_sealed(told, "x")
    seals._key.cache_clear()
    assert not is_sealed(told, "x")


def test_somebody_else_s_key_is_none(homes, someone_else):
    seal("x")
    homes[0].chmod(0o666)
    with someone_else():
        assert seals._read(homes[0]) is None


def test_processes_that_come_at_once_agree(homes):
    code = "from lorary.disk.seal import sealer; print(sealer())"
    running = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(6)]
    assert len({process.communicate()[0] for process in running}) == 1
    assert [path.name for path in homes[0].parent.iterdir()] == ["key"]
