"""`lorary doctor` says what is wrong with an installation or a library, and what to do."""

import json
import os

import pytest

from lorary.cli.main import main
from lorary.disk import seal
from lorary.disk.processes import place
from lorary.testing.pico import random_library
from lorary.using import doctor


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as ended:
        main(["doctor", *map(str, arguments)])
    return ended.value.code or 0, capsys.readouterr().out


def checks(capsys, *arguments):
    code, out = run(capsys, *arguments, "--json")
    return code, json.loads(out)["checks"]


@pytest.fixture
def library(base, tmp_path):
    return random_library(tmp_path / "lib", base, 2)


def test_all_is_well(library, capsys, monkeypatch):
    monkeypatch.setattr(doctor, "named_base_of", lambda library: ("pico", "/somewhere"))
    code, found = checks(capsys, library.path)
    assert code == 0
    by_subject = {check["subject"]: check for check in found if not check["subject"].startswith("library")}
    assert by_subject["packages"]["state"] == by_subject["cache"]["state"] == by_subject["device"]["state"] == "ok"
    assert "cpu" in by_subject["device"]["found"] or "cuda" in by_subject["device"]["found"]
    assert [check["found"] for check in found if check["subject"] == "library lib"] == [
        "2 experts can be read", "its base 'pico' is on this machine",
    ]  # fmt: skip
    assert run(capsys, library.path)[1].splitlines()[0].startswith("ok")


def test_a_damaged_expert_leftovers_and_an_absent_base_are_told(library, capsys):
    (library.path / "experts" / "e0" / "adapter_config.json").write_text("{")
    dead = library.layout.staging / f"e9.{place()}-999999999-1.0123abcd"
    dead.mkdir(parents=True)
    code, found = checks(capsys, library.path, library.path.parent / "absent")
    assert code == 1
    about = [(check["state"], check["hint"]) for check in found if check["subject"] == "library lib"]
    assert [state for state, _ in about] == ["ok", "error", "warning", "warning"]
    assert f'lorary remove "{library.path}" "e0"' in about[1][1]
    assert "--base" in about[2][1]
    assert f'lorary gc "{library.path}"' in about[3][1]
    assert dead.is_dir(), "a look changes nothing"
    assert [check["state"] for check in found if check["subject"] == "library absent"] == ["error"]


def test_the_hints_are_right_when_followed(library, capsys):
    (library.path / "experts" / "e0" / "adapter_config.json").write_text("{")
    with pytest.raises(SystemExit) as ended:
        main(["remove", str(library.path), "e0"])
    assert not ended.value.code
    capsys.readouterr()
    code, found = checks(capsys, library.path)
    assert code == 0
    assert not [check for check in found if check["state"] == "error"]


def test_a_package_that_is_too_old_is_named_with_the_command(capsys, monkeypatch):
    needed = ["safetensors>=999", "torch>=2", 'pyarrow>=999; extra == "data"']
    monkeypatch.setattr(doctor.importlib.metadata, "requires", lambda name: needed)
    code, found = checks(capsys)
    assert code == 1
    (packages,) = [check for check in found if check["subject"] == "packages"]
    assert packages["state"] == "error"
    assert packages["hint"] == 'Run: pip install "safetensors>=999".'


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_cache_that_cannot_be_written_is_an_error(capsys, monkeypatch, tmp_path):
    (tmp_path / "closed").mkdir(mode=0o500)
    monkeypatch.setenv("LORARY_CACHE", str(tmp_path / "closed" / "cache"))
    code, found = checks(capsys)
    assert (code, [check["state"] for check in found if check["subject"] == "cache"]) == (1, ["error"])


def test_a_cache_in_the_place_of_a_file_is_an_error(capsys, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LORARY_CACHE", str(tmp_path / "file" / "cache"))
    code, found = checks(capsys)
    assert (code, [check["state"] for check in found if check["subject"] == "cache"]) == (1, ["error"])


def test_a_key_that_cannot_be_kept_is_a_warning(capsys, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(seal, "_places", lambda: (tmp_path / "file" / "key",))
    assert [c["state"] for c in checks(capsys)[1] if c["subject"] == "key"] == ["warning"]
    monkeypatch.setattr(seal, "_places", lambda: (tmp_path / "place" / "key",))
    assert [c["state"] for c in checks(capsys)[1] if c["subject"] == "key"] == ["ok"]
