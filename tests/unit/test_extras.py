"""What an optional package is missing for is told in one line, with the command that brings it."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from lorary import extras
from lorary.errors import OptionError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def versions(monkeypatch):
    """Say which version of a package is installed."""
    found: dict[str, str | None] = {}
    monkeypatch.setattr(extras, "version_of", found.get)
    return found


def test_the_bounds_are_those_of_the_project():
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for extra, needs in extras.EXTRAS.items():
        assert set(needs) <= set(declared[extra])
    assert set(extras.EXTRAS["demo"]) == set(declared["demo"])


def test_everything_that_is_missing_or_too_old_is_named_at_once(monkeypatch, versions):
    monkeypatch.setattr(extras, "EXTRAS", {"x": ("json>=2", "csv>=1.5", "no_such_package>=3", "abc>=1", "ast")})
    versions |= {"json": "1.9", "csv": "1.5", "abc": "2.0rc1"}
    with pytest.raises(OptionError) as caught:
        extras.require_extra("x", "this")
    assert str(caught.value) == (
        "error[E-EXTRA] this needs json>=2, found 1.9 and no_such_package>=3, found none. "
        'Run: pip install "json>=2" "no_such_package>=3".'
    )


def test_what_an_extra_of_a_package_asks_for_is_looked_for_too(monkeypatch, versions):
    asked = ['numpy>=1; extra == "all"', 'nothing_such; extra == "all"', 'windows; extra == "other"', "always"]
    monkeypatch.setattr(extras.importlib.metadata, "requires", {"json": asked}.get)
    monkeypatch.setattr(extras, "EXTRAS", {"x": ("json[all]>=2",)})
    versions |= {"json": "2.1", "numpy": "2.0"}
    with pytest.raises(OptionError, match=r"json\[all\]>=2, found 2.1 without nothing_such"):
        extras.require_extra("x", "this")
    versions |= {"nothing_such": "1.0"}
    assert extras.missing("x") == []


def test_a_package_that_was_removed_beneath_its_name_is_missing(monkeypatch, versions):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert extras.missing("data") == [extras.EXTRAS["data"][0]]


def test_looking_imports_nothing():
    before = set(sys.modules)
    for extra in extras.EXTRAS:
        extras.missing(extra)
    assert {name.partition(".")[0] for name in set(sys.modules) - before}.isdisjoint({"ray", "nevergrad", "pyarrow"})


def test_no_hint_names_us_as_a_package_of_an_index():
    pages = [*ROOT.glob("src/**/*.py"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("*.md"), *ROOT.glob("recipes/*")]
    asks = re.compile(r"lorary\[|pip install [^`\n]*['\"]?\blorary\b(?!/)")
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in pages
        if path.name != "CHANGELOG.md"
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if asks.search(line)
    ]
    assert not found, "\n".join(["an index holds no lorary; name the packages themselves:", *found])


def test_everything_the_project_asks_for_has_one_lowest_version():
    tool = [sys.executable, str(ROOT / "tools" / "lowest_versions.py"), "dev", "quantised", "--except", "torch"]
    done = subprocess.run(tool, capture_output=True, text=True, check=True)
    pinned = dict(line.split("==") for line in done.stdout.splitlines())
    assert {"typer", "huggingface-hub", "gguf", "pytest", "ruff", "torchao"} <= set(pinned)
    assert "torch" not in pinned
