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
    monkeypatch.setattr("lorary.model.base_model.load_base", lambda *_, **__: pico_base())
    for path in EXAMPLES:
        monkeypatch.setattr("sys.argv", [str(path)])
        with contextlib.redirect_stdout(io.StringIO()) as told:
            runpy.run_path(str(path), run_name="__main__")
        assert told.getvalue().strip(), path.name
