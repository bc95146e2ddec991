"""The package of docs/how_to/write_your_own.md: it is what the page shows, and works when it is installed."""

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from pages import ROOT, blocks

PACKAGE = ROOT / "tests" / "plugin_package"
PAGE = ROOT / "docs" / "how_to" / "write_your_own.md"
SHOWN = ("pyproject.toml", "lorary_by_size/by_size.py", "lorary_by_size/contains.py", "tests/test_methods.py")


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """The package where pip would put it, with the entry points of its pyproject.toml, and its tests beside."""
    place = tmp_path_factory.mktemp("site")
    for name in ("lorary_by_size", "tests"):
        shutil.copytree(PACKAGE / name, place / name, ignore=shutil.ignore_patterns("__pycache__"))
    project = tomllib.loads((PACKAGE / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    info = place / "lorary_by_size-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    groups = project["entry-points"].items()
    lines = [line for group, points in groups for line in (f"[{group}]", *(f"{k} = {v}" for k, v in points.items()))]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
    return place


def run(place: Path, *arguments: str) -> str:
    source = os.environ.get("PYTHONPATH", "")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(place), source]))}
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("path", SHOWN)
def test_the_page_shows_the_package(path: str) -> None:
    assert (PACKAGE / path).read_text(encoding="utf-8") in [block.text for block in blocks(PAGE)]


@pytest.mark.slow
def test_it_keeps_the_contracts(installed: Path) -> None:
    said = run(installed, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests")
    assert "failed" not in said
    assert int(said.split(" passed")[0].split()[-1]) > 20


@pytest.mark.slow
def test_it_is_there_by_name(installed: Path) -> None:
    code = (
        "import lorary as lo; from lorary.folder import EVALUATORS, ROUTERS;"
        "assert {'BySize', 'Contains'} <= set(dir(lo));"
        "print(lo.BySize(power=2.0) == ROUTERS.parse('by_size:power=2'), EVALUATORS.parse('contains'))"
    )
    assert run(installed, "-c", code) == "True Contains(max_new_tokens=64)\n"


@pytest.mark.slow
def test_the_command_line_takes_it(installed: Path) -> None:
    listed = run(installed, "-m", "lorary.cli.entry", "eval", "--metric", "list")
    assert "contains" in listed
    assert "by_size" in run(installed, "-m", "lorary.cli.entry", "ask", "--router", "list")


def test_a_library_is_routed_by_it(installed: Path, base, toy_library, monkeypatch) -> None:
    import lorary as lo

    monkeypatch.syspath_prepend(installed)
    with lo.route(base, toy_library, "by_size:power=2") as model:
        assert type(model.router).__name__ == "BySize"
        assert model.identity["router"] == "by_size:power=2.0"
        assert model.generate_text([lo.Example("a", "b")], max_new_tokens=2)
