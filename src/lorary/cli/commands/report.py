"""`lorary report`: runs -> one page."""

from pathlib import Path
from typing import Annotated

import typer

from lorary.cli.options.parameters import Json
from lorary.cli.printing.console import print_json


def report(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN|DIR", help="What `lorary eval` wrote: files, or directories of them.")
    ],
    into: Annotated[Path, typer.Option(metavar="FILE", help="The HTML file; self-contained.")],
    title: Annotated[str, typer.Option(metavar="TEXT", help="Heading of the page.")] = "Scores",
    png_dir: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Also write the figures to this directory, as PNG.")
    ] = None,
    json: Json = False,
) -> None:
    """Write a page with tables and figures of runs."""
    from lorary.evaluation.scores import find_runs, read_scores
    from lorary.reporting.report import report as run

    files = find_runs(runs)
    path = run([read_scores(file) for file in files], into, title=title, png_dir=png_dir)
    print_json({"report": str(path), "runs": [str(file) for file in files]}) if json else print(path)
