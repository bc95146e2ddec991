"""The price of an extension: one source file, and no edit anywhere, for every point of extension."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lorary.folder import FOLDERS, Folder

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow  # processes of their own; `make check` runs it
PROBE = """
import runpy, sys
import lorary
from lorary.folder import FOLDERS
stub = runpy.run_path({stub!r})["stub"]()
for folder in FOLDERS:
    name = "new_" + folder.kind
    cls = folder.load(name)
    assert cls.__module__ == folder.package + "." + name
    assert getattr(lorary, cls.__name__) is cls and cls.__name__ in dir(lorary)
    assert f" {{cls.__name__}} as {{cls.__name__}}" in stub
"""


def class_of(folder: Folder) -> str:
    return f"New{folder.kind.title()}"


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the source with one more method in each folder: its first one, by another name."""
    source = Path(shutil.copytree(ROOT / "src", tmp_path_factory.mktemp("extended") / "src"))
    for folder in FOLDERS:
        old, name = next(iter(folder.own_classes().items()))
        place = source.joinpath(*folder.package.split("."))
        text = re.sub(rf"\b{old}\b", class_of(folder), (place / f"{name}.py").read_text(encoding="utf-8"))
        (place / f"new_{folder.kind}.py").write_text(text, encoding="utf-8")
    return source


def run(source: Path, *arguments: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(source), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_one_file_is_all_it_takes(extended: Path, capsys: pytest.CaptureFixture[str]) -> None:
    new = {f"{folder.package.replace('.', '/')}/new_{folder.kind}.py" for folder in FOLDERS}
    files = {p.relative_to(extended).as_posix(): p.read_bytes() for p in extended.rglob("*.py")}
    before = {p.relative_to(ROOT / "src").as_posix(): p.read_bytes() for p in (ROOT / "src").rglob("*.py")}
    assert {name for name in files if files[name] != before.get(name)} == new
    run(extended, "-c", PROBE.format(stub=str(ROOT / "tools" / "front_door.py")))
    page = run(extended, "tools/reference", "methods")
    assert [f.kind for f in FOLDERS if f"\n### new_{f.kind}\n" not in page] == []
    found = run(extended, "-m", "pytest", "tests/contracts", "--collect-only", "-p", "no:cacheprovider")
    suites = {
        f.kind: re.findall(rf"^\S+_contract\.py::\S+\[(?:\S+-)?new_{f.kind}\]$", found, re.MULTILINE) for f in FOLDERS
    }
    assert [kind for kind, tests in suites.items() if len(tests) < 5] == []
    with capsys.disabled():
        print("".join(f"\n{folder.kind}: 1 source file" for folder in FOLDERS), end="")
