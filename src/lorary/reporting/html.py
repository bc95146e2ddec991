"""One self-contained page: no network, no other files, and no untrusted text is ever run."""

import base64
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from lorary.pages.escape import escape
from lorary.pages.files import write_over, write_page_file
from lorary.pages.inspector import Told, answers_part
from lorary.pages.render import render, style
from lorary.reporting.canvas import is_ours
from lorary.reporting.figure import Picture
from lorary.reporting.table import Table


def write_report(
    into: str | Path,
    *,
    title: str,
    summary: Sequence[str] = (),
    tables: Sequence[Table] = (),
    pictures: Sequence[Picture] = (),
    traces: Sequence[Told] = (),
    provenance: Mapping[str, object] | None = None,
    png_dir: str | Path | None = None,
) -> Path:
    """Write scores, figures and traces as one HTML file, whole or not at all; returns its path.

    An earlier page or figure that lorary wrote is overwritten. Raises E-EXISTS for any other file, E-DISK, E-PERM.

    `summary`: one sentence each, plain text. `provenance`: what was run on what; inner mappings are listed too.
    `png_dir`: also write each picture there, as `<name>.png`.
    """
    into = Path(into)
    page = _page(title, summary, tables, pictures, traces, provenance or {})
    for picture in pictures if png_dir is not None else ():
        write_over(Path(png_dir or ".") / f"{picture.name}.png", picture.png, is_ours)
    write_page_file(into, page)
    return into


def _page(
    title: str,
    summary: Sequence[str],
    tables: Sequence[Table],
    pictures: Sequence[Picture],
    traces: Sequence[Told],
    provenance: Mapping[str, Any],
) -> str:
    spoken, more_style, script = answers_part(traces) if traces else ("", "", "")
    parts = {
        "Scores": "".join(map(_table, tables)), "Figures": "".join(map(_picture, pictures)), "Who spoke": spoken
    }  # fmt: skip
    return _framed(title, summary, parts, provenance, more_style, script)


def write_page(
    into: Path, title: str, summary: Sequence[str], sections: Mapping[str, str], provenance: Mapping[str, object]
) -> Path:
    """Write a page of sections whose HTML is given, as `write_report` does. Raises E-EXISTS, E-DISK, E-PERM."""
    write_page_file(into, _framed(title, summary, sections, provenance))
    return into


def _framed(
    title: str, summary: Sequence[str], sections: Mapping[str, str], provenance: Mapping[str, Any],
    more_style: str = "", script: str = "",
) -> str:  # fmt: skip
    return render(
        "report.html", title=title, style=style("page.css") + Markup(more_style), summary=summary,
        script=Markup(script),
        sections={name: Markup(content) for name, content in sections.items()}, facts=list(_flat(provenance)),
    )  # fmt: skip


def _table(table: Table) -> str:
    return f'<div class="scroll">{table.to_html()}</div><p class="note">{escape(table.note)}</p>'


def _picture(picture: Picture) -> str:
    data = base64.b64encode(picture.svg).decode()
    return (
        f'<figure><h3>{escape(picture.title)}</h3><div class="scroll"><img alt="{escape(picture.alt)}" '
        f'src="data:image/svg+xml;base64,{data}"></div><figcaption>{escape(picture.caption)}</figcaption></figure>\n'
    )


def _flat(facts: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in facts.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        elif isinstance(value, (list, tuple)):
            yield prefix + str(key), ", ".join(map(str, value))
        else:
            yield prefix + str(key), str(value)
