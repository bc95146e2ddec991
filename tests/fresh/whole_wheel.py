"""A wheel holds every file of src/lorary, and nothing else: data of tasks, C++ sources, styles. Run: ... FILE.whl."""

import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]


def main(wheel: str) -> None:
    """Compare with what git knows below src."""
    listed = subprocess.run(["git", "ls-files", "src/lorary"], cwd=ROOT, capture_output=True, text=True, check=True)
    expected = {line.removeprefix("src/") for line in listed.stdout.splitlines()}
    names = zipfile.ZipFile(wheel).namelist()
    found = {name for name in names if not name.partition("/")[0].endswith(".dist-info")}
    assert expected, "git lists no sources"
    assert found == expected, f"missing: {sorted(expected - found)}; strange: {sorted(found - expected)}"
    assert any(name.endswith("licenses/LICENSE") for name in names), "the licence is missing"
    print(f"{Path(wheel).name} holds all {len(found)} files of src/lorary")


if __name__ == "__main__":
    main(sys.argv[1])
