"""The tutorial runs from its first cell to its last, on the real base, and gives what it shows."""

import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from pages import ROOT

TUTORIAL = ROOT / "docs" / "tutorial.ipynb"
ROUTERS = ("uniform", "arrow", "compass", "oracle")


@pytest.mark.slow
def test_the_tutorial_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LORARY_CACHE", raising=False)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]))
    notebook = nbformat.read(TUTORIAL, as_version=4)
    resources = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=900, kernel_name="python3", resources=resources).execute()
    said = "".join(o.text for cell in notebook.cells for o in cell.get("outputs", ()) if o.output_type == "stream")
    losses = dict(line.split() for line in said.splitlines() if line.partition(" ")[0] in ROUTERS)
    assert float(losses["compass"]) < float(losses["arrow"]) < float(losses["uniform"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["libs", "out", "runs"]


def test_the_tutorial_shows_what_it_gave() -> None:
    notebook = nbformat.read(TUTORIAL, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell.outputs]
    assert all(output.output_type != "error" for output in outputs)
    assert str(ROOT) not in str(outputs) and "/tmp/" not in str(outputs)
