"""The examples run, in their order, on the pico base instead of the one they download or unpack."""

import contextlib
import io
import runpy
from pathlib import Path

import pytest
from pages import ROOT

EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


def test_an_example_is_short() -> None:
    assert {path.name: n for path in EXAMPLES if (n := len(path.read_text(encoding="utf-8").splitlines())) > 40} == {}


@pytest.mark.slow
def test_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lorary.testing.pico import pico_base

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("lorary.model.base.base_model.load_base", lambda *_, **__: pico_base())
    for path in EXAMPLES:
        monkeypatch.setattr("sys.argv", [str(path)])
        with contextlib.redirect_stdout(io.StringIO()) as told:
            runpy.run_path(str(path), run_name="__main__")
        assert told.getvalue().strip(), path.name


@pytest.mark.slow
def test_other_people_s_adapters_are_added_as_far_as_they_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from lorary.testing.pico import pico_base, random_library

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("lorary.model.base.base_model.load_base", lambda *_, **__: pico_base())
    pile = random_library(tmp_path / "lib", pico_base(), ["good", "nan"]).path / "experts"
    weights = pile / "nan" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\xff\xff\xff\x7f")
    (pile / "nan" / "expert.json").unlink()
    (pile / "good").rename(pile / "name with space")
    random_library(tmp_path / "more", pico_base(), ["fine"])["fine"].copy_to(pile / "fine")
    (pile / "a_file.txt").write_text("hi")
    monkeypatch.setattr("sys.argv", ["03", "pico", str(pile)])
    runpy.run_path(str(ROOT / "examples" / "03_other_peoples_adapters.py"), run_name="__main__")
    told = capsys.readouterr().out.splitlines()
    assert [line.partition(" left out: ")[0] for line in told[:2]] == ["name with space", "nan"]
    assert [path.name for path in (tmp_path / "libs" / "found" / "experts").iterdir()] == ["fine"]
