import os
from pathlib import Path

import pytest
from library_pico import write_adapter

from lorary.errors import LibraryError, OptionError
from lorary.library import derived
from lorary.library.library import Library


def put(library, key, *, learned=False, text="x"):
    return derived.put(library, "arrow", key, "json", lambda path: path.write_text(text) and None, learned=learned)


def test_put_and_get(library):
    assert derived.get(library, "arrow", "0123", "json") is None
    path = put(library, "0123")
    assert path == library.path / "derived" / "arrow-0123.json"
    assert derived.get(library, "arrow", "0123", "json") == path
    assert [p.name for p in path.parent.iterdir()] == ["arrow-0123.json"]


def test_a_write_that_fails_leaves_nothing(library):
    def fail(path):
        path.write_text("half")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        derived.put(library, "arrow", "0123", "json", fail)
    assert list((library.path / "derived").iterdir()) == []


def test_gc_takes_derived_only(library):
    put(library, "old")
    put(library, "new")
    put(library, "wise", learned=True)
    stale = library.path / "derived" / ".arrow-dead.json"
    stale.write_text("x")
    os.utime(stale, (0, 0))
    (library.path / "derived" / ".arrow-busy.json").write_text("x")
    assert derived.gc(library, ["new"]) == [".arrow-dead.json", "arrow-old.json"]
    assert derived.get(library, "arrow", "wise", "json", learned=True) == library.path / "learned" / "arrow-wise.json"
    assert derived.get(library, "arrow", "new", "json") is not None


@pytest.mark.parametrize("key", ["../x", "", "a.b", "a/b", "a\n"])
def test_keys_stay_inside(library, key):
    with pytest.raises(OptionError, match=r"error\[E-NAME\] key "):
        put(library, key)


def test_links_do_not_count(library, tmp_path):
    (tmp_path / "outside").write_text("x")
    (library.path / "derived").mkdir()
    (library.path / "derived" / "arrow-0123.json").symlink_to(tmp_path / "outside")
    assert derived.get(library, "arrow", "0123", "json") is None


@pytest.mark.parametrize("folder", ["derived", "learned"])
def test_nothing_is_written_through_a_link(library, tmp_path, folder):
    (tmp_path / "outside").mkdir()
    (library.path / folder).symlink_to(tmp_path / "outside")
    with pytest.raises(LibraryError, match=r"error\[E-PATH\] .*' is a link, expected a directory of its own\."):
        put(library, "0123", learned=folder == "learned")
    assert not list((tmp_path / "outside").iterdir())


def test_read_only(tmp_path):
    write_adapter(tmp_path / "theirs" / "a")
    library = Library.open(tmp_path / "theirs")
    with pytest.raises(LibraryError) as caught:
        put(library, "0123")
    assert str(caught.value) == (
        "error[E-PERM] arrow-0123.json: 'theirs' has no library.json and is opened read-only. "
        "Create a library elsewhere and add its experts."
    )
    assert derived.gc(library, []) == []


def test_what_somebody_else_keeps_to_himself_is_made_again(library, someone_else):
    mine, learned = put(library, "0123"), put(library, "wise", learned=True)
    for path in (mine, learned):
        path.chmod(0o600)
    with someone_else():
        assert derived.get(library, "arrow", "0123", "json") is None
        assert derived.get(library, "arrow", "wise", "json", learned=True) == learned  # for its reader to complain of
    mine.parent.chmod(0o700)
    with someone_else():
        assert derived.get(library, "arrow", "0123", "json") is None


def test_what_is_collected_while_it_is_looked_for_is_not_there(library, monkeypatch):
    path, is_file = put(library, "0123"), Path.is_file

    def collected(self):
        found = is_file(self)
        self.unlink(missing_ok=True)
        return found

    monkeypatch.setattr(Path, "is_file", collected)
    assert derived.get(library, "arrow", "0123", "json") is None
    assert not path.exists()
