"""Write docs/paper.md from what `lorary study paper` left: python tools/paper_page.py RUN [WHAT], or --claims.

Every number of ours comes from RUN/paper.json; WHAT says in a sentence how that was made. A claim of a study that
wasn't run is listed as such, and with --claims every claim is.
"""

import json
import sys
from pathlib import Path

from lorary.reporting.overview import Line, to_markdown
from lorary.studies.contract import Results
from lorary.studies.paper import ORDER, parts_of

PAGE = Path(__file__).parents[1] / "docs" / "paper.md"
_HEAD = (
    "Made by `python tools/paper_page.py RUN` from the files of `lorary study paper`; "
    "[how to run it](how_to/studies.md)."
)
_FACTS = ("lorary", "base", "scale", "tasks", "tasks held out", "benchmarks")


def claims() -> list[Line]:
    """List the claims of all studies, of which nothing was run."""
    return [
        Line(part.name, one.claim, one.paper, "", "not run yet", one.meaning)
        for part in parts_of("paper")
        for one in part.study.judge(Results({}))
    ]


def page(content: dict | None, what: str = "") -> str:
    """Make the page of a run's facts, with a sentence about it; None: nothing was run."""
    lines = [Line(**line) for line in content["lines"]] if content else []
    run = {line.study for line in lines}
    lines += [line for line in claims() if line.study not in run]
    lines.sort(key=lambda line: ORDER.index(line.study))
    facts = {name: content[name] for name in _FACTS} if content else {}
    title, _, rest = to_markdown(lines, facts).partition("\n")
    return "\n\n".join(part.strip("\n") for part in (title, _HEAD, what, rest) if part) + "\n"


if __name__ == "__main__":
    where, *said = sys.argv[1:]
    found = None if where == "--claims" else json.loads((Path(where) / "paper.json").read_text(encoding="utf-8"))
    PAGE.write_text(page(found, *said), encoding="utf-8")
