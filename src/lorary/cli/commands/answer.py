"""`lorary answer`: a file of prompts to a library."""

import sys
from typing import Annotated

import typer

from lorary.cli.answering import STREAM, answer_by_workers, answer_here, check_place
from lorary.cli.models import LibraryOrBase, choose
from lorary.cli.options.loading import Loading, Reading
from lorary.cli.options.parameters import (
    BaseOfLibrary,
    HowToMix,
    MaxShare,
    Router,
    StopTexts,
    TasksOfLibrary,
    count_option,
)
from lorary.cli.options.sampling import HowToSample
from lorary.cli.options.workers import Workers


def answer(
    library: LibraryOrBase,
    prompts: Annotated[
        str,
        typer.Argument(
            metavar="PROMPTS", help="File of rows with a prompt, messages, ..., or - for JSON lines on stdin."
        ),
    ],
    into: Annotated[
        str, typer.Option(metavar="FILE", help="Where the rows go with their answers (JSON lines); - is stdout.")
    ] = STREAM,
    field: Annotated[str, typer.Option(metavar="NAME", help="The field that answers go to.")] = "answer",
    router: Router = None,
    mix: HowToMix = None,
    max_share: MaxShare = None,
    base: BaseOfLibrary = None,
    tasks: TasksOfLibrary = None,
    chat: Annotated[
        bool, typer.Option("--chat", help="Send plain prompts as user turns, through the base's chat template.")
    ] = False,
    max_new_tokens: Annotated[int, count_option("Longest answer, in tokens.")] = 64,
    stop: StopTexts = None,
    *,
    sample: HowToSample,
    workers: Workers,
    how: Loading,
    reading: Reading,
) -> None:
    """Answer a file of prompts, row by row. Interrupted, the same command resumes and writes the same bytes.

    With --workers or --backend, processes share the rows.
    """
    sampling = sample.sampling(seed=0)
    from lorary.asking.answers import Wish, read_prompts

    check_place(into, workers)
    rows = read_prompts(sys.stdin.buffer if prompts == STREAM else prompts, field=field, chat=chat)
    choice = choose(library, reading, router=router, mix=mix, max_share=max_share, base=base, tasks=tasks)
    wish = Wish(max_new_tokens, tuple(stop or ()), sampling, field)
    if workers.is_given:
        return answer_by_workers(choice, rows, wish, into, how, workers)
    return answer_here(choice, rows, wish, into, how, chat=chat)
