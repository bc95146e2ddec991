"""Whatever a stranger's files hold, a library opens, shows and lets go of it, and nothing outside is touched."""

import json
import os

import pytest
from library_pico import write_adapter

from lorary.cli.main import main
from lorary.disk.strict_json import parse_object
from lorary.errors import LibraryError
from lorary.library import sync
from lorary.library.hub.names import parse_uri
from lorary.library.library import Library

HUGE = "1" + "0" * 400


@pytest.fixture
def library(tmp_path):
    library = Library.create(tmp_path / "lib")
    for name in ("good", "poems"):
        library.add(write_adapter(tmp_path / name), name)
    return library


def rewrite(path, **fields):
    """Write fields into a JSON file; HUGE as the number that it is."""
    text = json.dumps({**(json.loads(path.read_text()) if path.exists() else {}), **fields})
    path.write_text(text.replace(f'"{HUGE}"', HUGE).replace('"-' + HUGE + '"', "-" + HUGE))


def _long_name(library):
    (library.path / "experts" / "poems").rename(library.path / "experts" / ("p" * 250))
    return "p" * 250


DAMAGES = {
    "alpha": lambda d: rewrite(d / "adapter_config.json", lora_alpha=HUGE),
    "negative alpha": lambda d: rewrite(d / "adapter_config.json", lora_alpha="-" + HUGE),
    "alpha by pattern": lambda d: rewrite(d / "adapter_config.json", alpha_pattern={"q_proj": HUGE}),
    "rank": lambda d: rewrite(d / "adapter_config.json", r=HUGE),
    "layers": lambda d: rewrite(d / "adapter_config.json", layers_to_transform=[HUGE]),
    "metrics": lambda d: rewrite(d / "expert.json", metrics={"valid_loss": HUGE}),
    "steps": lambda d: rewrite(d / "expert.json", steps=HUGE),
    "what another version wrote": lambda d: rewrite(d / "expert.json", later={"x": [HUGE]}),
    "no directory inside": lambda d: ((d / "adapter_config.json").unlink(), (d / "adapter_config.json").mkdir()),
    "a pipe": lambda d: ((d / "expert.json").unlink(), os.mkfifo(d / "expert.json")),
    "nothing left": lambda d: [path.unlink() for path in d.iterdir()],
}


@pytest.mark.parametrize("what", DAMAGES)
def test_after_any_damage_the_expert_can_be_shown_and_taken_out(what, library, capsys):
    DAMAGES[what](library.path / "experts" / "poems")
    opened = Library.open(library.path, skip_bad=True)
    assert list(opened) == ["good"] and opened.bad["poems"].startswith("error[E-")
    for command, code in ((["show", str(library.path)], 3), (["show", str(library.path), "--json"], 3)):
        with pytest.raises(SystemExit) as ended:
            main(command)
        assert ended.value.code == code
    with pytest.raises(SystemExit) as ended:
        main(["remove", str(library.path), "poems"])
    assert not ended.value.code
    assert list(Library.open(library.path)) == ["good"]


@pytest.mark.parametrize("name", ["p" * 250, "ä b", "..x", "a.b.c.d", "\x1b[31m"])
def test_what_has_no_expert_s_name_can_be_taken_out(name, library):
    (library.path / "experts" / "poems").rename(library.path / "experts" / name)
    opened = Library.open(library.path, skip_bad=True)
    if not name.startswith("."):  # hidden ones are nobody's
        opened.remove(name)
        assert [path.name for path in (library.path / "experts").iterdir()] == ["good"]
    assert list(Library.open(library.path)) == ["good"]


@pytest.mark.parametrize("what", ["alpha", "metrics", "rank"])
def test_such_an_adapter_is_refused_with_a_code(what, library, tmp_path):
    DAMAGES[what](write_adapter(tmp_path / "new"))
    with pytest.raises(LibraryError, match=r"^error\[E-CONFIG\] expert 'new': .*a number of 401 digits is too large"):
        library.add(tmp_path / "new", "new")


def test_numbers_that_a_float_holds_are_read():
    assert parse_object(b'{"a": %d, "b": -7}' % 10**300, "x", "E-X") == {"a": 10**300, "b": -7}


def test_experts_that_lead_elsewhere_are_not_read(library, tmp_path):
    (library.path / "experts").rename(tmp_path / "elsewhere")
    (library.path / "experts").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(LibraryError, match=r"^error\[E-PATH\] '.*experts' is a link, expected a directory of its own"):
        Library.open(library.path, skip_bad=True)


@pytest.mark.parametrize(
    "uri",
    [
        "hf://a/b//etc", "hf://a/b//", "hf://a/b/c//d", "hf://a/b@../../x", "hf://a/b@/etc", "hf://a/b@x/../y",
        "hf://a/b@x//y", "hf://a/b@.", "hf://a/b/c:d", "hf://a/b/c\nd", "hf://a/b/c\0d", "hf://a/b/./c@main",
    ],
)  # fmt: skip
def test_names_that_lead_out_of_a_repository_are_refused(uri):
    with pytest.raises(LibraryError, match=r"^error\[E-HUB\] .* can't be read\."):
        parse_uri(uri)


def test_a_folder_of_a_repository_that_is_a_link_is_not_followed(tmp_path, monkeypatch):
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "config.json").write_text("{}")
    (tmp_path / "snapshot").mkdir()
    (tmp_path / "snapshot" / "lib").symlink_to(tmp_path / "secret")
    monkeypatch.setattr(sync, "_snapshot", lambda *_: tmp_path / "snapshot")
    with pytest.raises(LibraryError, match="leads out of the repository"):
        sync.pull("hf://a/b/lib", tmp_path / "here")
    assert not (tmp_path / "here").exists()


def test_a_copy_leaves_out_what_adding_leaves_out(tmp_path):
    """A folder of adapters opens as it is; what is copied out of it, by itself or in a saved model, imports nothing."""
    write_adapter(tmp_path / "pile" / "poems", auto_mapping={"parent_library": "evil"}, megatron_config={"a": 1})
    copied = Library.open(tmp_path / "pile")["poems"].copy_to(tmp_path / "copy")
    config = json.loads((copied / "adapter_config.json").read_text())
    assert (config["auto_mapping"], config["megatron_config"]) == (None, None)
    assert json.loads((tmp_path / "pile" / "poems" / "adapter_config.json").read_text())["megatron_config"] == {"a": 1}


def test_json_for_machines_steers_no_terminal(capsys):
    from lorary.cli.printing.console import print_json

    told = {"a\u202eb": "\x1b[31m\x9b\u2066\u200f\U000e0001 \u00e9\u4eca"}
    print_json(told)
    out = capsys.readouterr().out
    assert json.loads(out) == told
    assert all(letter.isprintable() or letter == "\n" for letter in out) and "\u00e9\u4eca" in out
