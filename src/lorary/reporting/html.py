"""One self-contained page: no network, no files beside it, nothing that others wrote is ever run."""

import base64
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lorary.reporting.escape import escape
from lorary.reporting.figure import Picture
from lorary.reporting.palette import COLOURS, OTHER
from lorary.reporting.table import Table
from lorary.reporting.tokens import SCRIPT, TokenTrace

_STYLE = Path(__file__).with_name("page.css")
_COLOURS = "".join(f".e{number} {{ --e: {colour}; }}\n" for number, colour in enumerate((*COLOURS, OTHER)))
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src 'unsafe-inline'"


def write_report(
    into: str | Path,
    *,
    title: str,
    summary: Sequence[str] = (),
    tables: Sequence[Table] = (),
    pictures: Sequence[Picture] = (),
    traces: Sequence[TokenTrace] = (),
    provenance: Mapping[str, Any] | None = None,
    png_dir: str | Path | None = None,
) -> Path:
    """Write scores, figures and traces as one HTML file, whole or not at all; returns its path.

    `summary`: one sentence each, plain text. `provenance`: what was run on what; inner mappings are listed too.
    `png_dir`: also write each picture there, as `<name>.png`.
    """
    into = Path(into)
    page = _page(title, summary, tables, pictures, traces, provenance or {})
    for picture in pictures if png_dir is not None else ():
        _write(Path(png_dir or ".") / f"{picture.name}.png", picture.png)
    _write(into, page.encode())
    return into


def _page(
    title: str,
    summary: Sequence[str],
    tables: Sequence[Table],
    pictures: Sequence[Picture],
    traces: Sequence[TokenTrace],
    provenance: Mapping[str, Any],
) -> str:
    facts = "".join(f"<dt>{escape(key)}</dt><dd>{escape(value)}</dd>" for key, value in _flat(provenance))
    parts = [
        _section("Scores", "".join(map(_table, tables))),
        _section("Figures", "".join(map(_picture, pictures))),
        _section("Who spoke", "".join(trace.to_html() for trace in traces)),
        _section("Provenance", f"<dl>{facts}</dl>" if facts else ""),
    ]
    lines = "".join(f"<li>{escape(line)}</li>" for line in summary)
    script = f"<script>{SCRIPT.read_text(encoding='utf-8')}</script>" if traces else ""
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>{_STYLE.read_text(encoding="utf-8")}{_COLOURS}</style></head>
<body><header><h1>{escape(title)}</h1><ul class="summary">{lines}</ul></header>
<main>{"".join(parts)}</main>
<footer>Written by lorary. This file is whole: it loads nothing.</footer>
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


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.chmod(name, 0o644)  # mkstemp's 0600 would keep a web server from reading the page
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise
