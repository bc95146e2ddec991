"""`lorary answer`: a file of prompts to a library."""

import sys
from contextlib import nullcontext
from typing import Annotated

import typer

from lorary.cli.models import LibraryOrBase, choose, opened, through_template
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
from lorary.cli.printing.console import progress

STREAM = "-"


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
    how: Loading,
    reading: Reading,
) -> None:
    """Answer a file of prompts, row by row. Interrupted, the same command resumes and writes the same bytes."""
    sampling = sample.sampling(seed=0)
    from lorary.asking.answers import Wish, answer_prompts, answered, check_answers, read_prompts, to_line

    if into != STREAM:
        check_answers(into)
    rows = read_prompts(sys.stdin.buffer if prompts == STREAM else prompts, field=field, chat=chat)
    choice = choose(library, reading, router=router, mix=mix, max_share=max_share, base=base, tasks=tasks)
    wish = Wish(max_new_tokens, tuple(stop or ()), sampling, field)
    with (
        opened(choice, how) as model,
        through_template(model) if chat else nullcontext(),
        progress("answering") as bar,
    ):
        if into != STREAM:
            return answer_prompts(model, rows, into=into, wish=wish, progress=bar)
        n = 0
        for group in answered(model, rows, wish):
            sys.stdout.buffer.write(b"".join(map(to_line, group)))
            sys.stdout.buffer.flush()
            n += len(group)
            bar(n, len(rows))
    return None
