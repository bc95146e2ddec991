"""One self-contained page: no network, no other files, and no untrusted text is ever run."""

import base64
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lorary.disk.writing import ELSEWHERE, check_writable, disk_errors, write_whole
from lorary.errors import LibraryError
from lorary.reporting.canvas import is_ours
from lorary.reporting.escape import escape
from lorary.reporting.figure import Picture
from lorary.reporting.palette import COLOURS, OTHER
from lorary.reporting.table import Table
from lorary.reporting.token_trace import SCRIPT, TokenTrace

_STYLE = Path(__file__).with_name("page.css")
_COLOURS = "".join(f".e{number} {{ --e: {colour}; }}\n" for number, colour in enumerate((*COLOURS, OTHER)))
_START = "<!doctype html>"
_FOOTER = "<footer>Written by lorary."
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src 'unsafe-inline'"


def write_report(
    into: str | Path,
    *,
    title: str,
    summary: Sequence[str] = (),
    tables: Sequence[Table] = (),
    pictures: Sequence[Picture] = (),
    traces: Sequence[TokenTrace] = (),
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
        _write(Path(png_dir or ".") / f"{picture.name}.png", picture.png, is_ours)
    _write(into, page.encode(), _is_page)
    return into


def _page(
    title: str,
    summary: Sequence[str],
    tables: Sequence[Table],
    pictures: Sequence[Picture],
    traces: Sequence[TokenTrace],
    provenance: Mapping[str, Any],
) -> str:
    parts = {
        "Scores": "".join(map(_table, tables)),
        "Figures": "".join(map(_picture, pictures)),
        "Who spoke": "".join(trace.to_html() for trace in traces),
    }
    return _framed(
        title, summary, parts, provenance, f"<script>{SCRIPT.read_text(encoding='utf-8')}</script>" if traces else ""
    )


def write_page(
    into: Path, title: str, summary: Sequence[str], sections: Mapping[str, str], provenance: Mapping[str, object]
) -> Path:
    """Write a page of sections whose HTML is given, as `write_report` does. Raises E-EXISTS, E-DISK, E-PERM."""
    _write(into, _framed(title, summary, sections, provenance).encode(), _is_page)
    return into


def _framed(
    title: str, summary: Sequence[str], sections: Mapping[str, str], provenance: Mapping[str, Any], script: str = ""
) -> str:
    facts = "".join(f"<dt>{escape(key)}</dt><dd>{escape(value)}</dd>" for key, value in _flat(provenance))
    whole = {**sections, "Provenance": f"<dl>{facts}</dl>" if facts else ""}
    main = "".join(_section(escape(name), content) for name, content in whole.items())
    lines = "".join(f"<li>{escape(line)}</li>" for line in summary)
    return f"""{_START}
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>{_STYLE.read_text(encoding="utf-8")}{_COLOURS}</style></head>
<body><header><h1>{escape(title)}</h1><ul class="summary">{lines}</ul></header>
<main>{main}</main>
{_FOOTER} This page is self-contained: it loads nothing.</footer>
{script}</body></html>
"""


def _section(title: str, content: str) -> str:
    return f"<section><h2>{title}</h2>\n{content}</section>\n" if content else ""


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


def _is_page(data: bytes) -> bool:
    return data.startswith(_START.encode()) and _FOOTER.encode() in data


def check_page_place(into: Path) -> None:
    """Refuse a path where no page can be written, before any long work. Raises E-EXISTS, E-PATH, E-PERM."""
    with disk_errors(repr(str(into)), ELSEWHERE):
        _check_may_go(into, _is_page)
    check_writable(into)


def _check_may_go(path: Path, may_go: Callable[[bytes], bool]) -> None:
    if (path.exists() or path.is_symlink()) and not (path.is_file() and may_go(path.read_bytes())):
        message = f"{str(path)!r} exists and isn't a page or figure that lorary wrote."
        raise LibraryError("E-EXISTS", message, "Choose another path, or remove it.")


def _write(path: Path, data: bytes, may_go: Callable[[bytes], bool]) -> None:
    """Write a new file, or overwrite one whose bytes show that lorary wrote it."""
    with disk_errors(repr(str(path)), ELSEWHERE):
        _check_may_go(path, may_go)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, data)
