"""One page of many studies: a line for each claim, with what a paper found, what was found here, and what it means."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lorary.disk.writing import ELSEWHERE, disk_errors, write_whole
from lorary.pages.escape import escape
from lorary.reporting.html import write_page

HEADS = ("claim", "the paper", "here", "verdict", "if it holds")
WORDS = (
    "Here: the difference, more is better, with its 95 % interval (paired bootstrap over examples); of a ratio that "
    "from 1, of a share that from what is asked for, and a correlation as it is. holds: clear over examples, and over "
    "tasks where there are six or more; holds in sign: clear on these tasks, not for others of their kind; "
    "fails: clearly the other way round; can't tell: neither."
)


@dataclass(frozen=True)
class Line:
    """One claim. study: whose it is; ours: the difference with its interval; details: all numbers."""

    study: str
    claim: str
    paper: str
    ours: str
    verdict: str
    meaning: str
    details: str = ""

    @property
    def cells(self) -> tuple[str, ...]:
        """What its columns hold."""
        return self.claim, self.paper or "–", self.ours or "–", self.verdict, self.meaning or "–"


def write_overview(into: Path, lines: Sequence[Line], facts: Mapping[str, object], markdown: str) -> Path:
    """Write the page report.html and the same as Markdown; gives the page's path. Raises E-EXISTS, E-DISK, E-PERM."""
    with disk_errors(repr(str(into / markdown)), ELSEWHERE):
        write_whole(into / markdown, to_markdown(lines, facts).encode())
    sections = {study: _table([line for line in lines if line.study == study]) for study in _studies(lines)}
    counts = {word: sum(line.verdict == word for line in lines) for word in dict.fromkeys(x.verdict for x in lines)}
    summary = [", ".join(f"{n} {word}" for word, n in counts.items()) or "No study was run.", WORDS]
    return write_page(into / "report.html", "The paper's claims", summary, sections, facts)


def to_markdown(lines: Sequence[Line], facts: Mapping[str, object]) -> str:
    """Write the lines as a table for each study, below what was run on what."""
    said = [f"- {key}: {_shown(value)}" for key, value in facts.items() if not isinstance(value, Mapping)]
    parts = ["# The paper's claims", "", WORDS, "", *said]
    for study in _studies(lines):
        parts += ["", f"## {study}", "", _row(HEADS), _row([":--"] * len(HEADS))]
        parts += [_row(line.cells) for line in lines if line.study == study]
    return "\n".join(parts) + "\n"


def _studies(lines: Sequence[Line]) -> list[str]:
    return list(dict.fromkeys(line.study for line in lines))


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ") for cell in cells) + " |"


def _shown(value: Any) -> str:
    return (", ".join(map(str, value)) or "none") if isinstance(value, list | tuple) else str(value)


def _table(lines: Sequence[Line]) -> str:
    heads = "".join(f'<th scope="col">{escape(head)}</th>' for head in HEADS)
    body = "\n".join(_html_row(line) for line in lines)
    place = escape(f"{lines[0].study}/report.html")
    link = f'<p class="note"><a href="{place}">Tables, figures and rows of this study</a></p>'
    table = f'<table class="claims"><thead><tr>{heads}</tr></thead>\n<tbody>\n{body}\n</tbody></table>'
    return f'<div class="scroll">{table}</div>{link}'


def _html_row(line: Line) -> str:
    first, *rest = line.cells
    cells = "".join(f"<td>{escape(cell)}</td>" for cell in rest)
    return f'<tr title="{escape(line.details)}"><th scope="row">{escape(first)}</th>{cells}</tr>'
