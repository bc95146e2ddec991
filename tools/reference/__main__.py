"""Pages made from the code: `python tools/reference` writes docs/reference; with a name, prints that one."""

import sys
from pathlib import Path

from file_map import file_map
from reference_pages import PAGES

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"

if __name__ == "__main__":
    if len(sys.argv) > 1:
        sys.stdout.write({**PAGES, "map": file_map}[sys.argv[1]]())
    else:
        for name, page in PAGES.items():
            (REFERENCE / f"{name}.md").write_text(page(), encoding="utf-8")
