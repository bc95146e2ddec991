"""Write docs/paper.md from what `lorary study paper` left: python tools/paper_page.py RUN, or --claims RUN.

Every number of ours comes from RUN/paper.json. With --claims only the claims are taken: a page that says that nothing
was run yet.
"""

import json
import sys
from dataclasses import replace
from pathlib import Path

from lorary.reporting.overview import Line, to_markdown

PAGE = Path(__file__).parents[1] / "docs" / "paper.md"
_HEAD = (
    "Made by `python tools/paper_page.py RUN` from the files of `lorary study paper`; "
    "[how to run it](how_to/studies.md)."
)
_FACTS = ("lorary", "base", "scale", "tasks", "tasks held out", "benchmarks")


def page(content: dict, *, claims_only: bool) -> str:
    """Make the page of a run's facts."""
    lines = [Line(**line) for line in content["lines"]]
    if claims_only:
        lines = [replace(line, ours="", verdict="not run yet", details="") for line in lines]
    facts = {} if claims_only else {name: content[name] for name in _FACTS}
    title, _, rest = to_markdown(lines, facts).partition("\n")
    return f"{title}\n\n{_HEAD}\n{rest}"


if __name__ == "__main__":
    run = Path(sys.argv[-1])
    found = json.loads((run / "paper.json").read_text(encoding="utf-8"))
    PAGE.write_text(page(found, claims_only="--claims" in sys.argv), encoding="utf-8")
