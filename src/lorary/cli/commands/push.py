"""`lorary push`: a library -> a repository on the Hub."""

from typing import Annotated

import typer

from lorary.cli.application import resumable
from lorary.cli.options.parameters import Json
from lorary.cli.printing.console import print_json, print_table, printable, say


def push(
    library: Annotated[str, typer.Argument(metavar="LIBRARY", help="The library.")],
    to: Annotated[str, typer.Argument(metavar="PLACE", help="Where to: hf://user/repo[/folder][@branch].")],
    scores: Annotated[
        list[str] | None,
        typer.Option(metavar="RUN", help="Scores of this library for its card, as `eval` writes them; repeatable."),
    ] = None,
    private: Annotated[
        bool | None, typer.Option("--private/--public", help="Visibility of a new repository; by default the Hub's.")
    ] = None,
    prune: Annotated[
        bool, typer.Option("--prune", help="Delete experts on the Hub that the library doesn't have.")
    ] = False,
    message: Annotated[str, typer.Option(metavar="TEXT", help="Commit message.")] = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Stay offline: list the files with their sizes, and show the card.")
    ] = False,
    json: Json = False,
) -> None:
    """Put a library on the Hub, in one commit. Log in with `hf auth login` or HF_TOKEN.

    Experts go as plain PEFT adapters, with library.json and a card; derived/, learned/ and metrics.jsonl stay. Paths of
    this machine and secrets are left out. Run again after an interruption, it sends the rest.
    """
    from lorary.evaluation.scores import read_scores
    from lorary.using.hub import push as run

    results = [read_scores(path) for path in scores or ()]
    with resumable():
        done = run(
            library, to, scores=results, private=private, prune=prune, message=message, dry_run=dry_run, tell=say
        )
    if json:
        return print_json(done.plain())
    if dry_run:
        print_table([(name, f"{size:,}") for name, size in done.files])
        print(printable(done.card))
    print(done)
    return None
