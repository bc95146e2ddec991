"""`lorary ask`: one question to a library."""

from contextlib import nullcontext
from typing import Annotated

import typer

from lorary.cli.models import BARE, LibraryOrBase, choose, opened, through_template
from lorary.cli.options.loading import Loading, Reading
from lorary.cli.options.parameters import (
    AnswerPage,
    BaseOfLibrary,
    HowToMix,
    Json,
    MaxShare,
    Router,
    StopTexts,
    TasksOfLibrary,
    count_option,
)
from lorary.cli.options.sampling import HowToSample
from lorary.cli.printing.answers import check_page, plain, print_stream, print_trace, tell_empty, write_page
from lorary.cli.printing.console import print_json, printable


def ask(
    library: LibraryOrBase,
    question: Annotated[str, typer.Argument(metavar="QUESTION", help="The prompt, passed to the model as is.")],
    router: Router = None,
    mix: HowToMix = None,
    max_share: MaxShare = None,
    base: BaseOfLibrary = None,
    tasks: TasksOfLibrary = None,
    explained: Annotated[bool, typer.Option("--explain", help="Also show which expert spoke at each token.")] = False,
    html: AnswerPage = None,
    chat: Annotated[
        bool, typer.Option("--chat", help="Send the question as a user turn, through the base's chat template.")
    ] = False,
    streamed: Annotated[bool, typer.Option("--stream", help="Print the answer as it is made.")] = False,
    max_new_tokens: Annotated[int, count_option("Longest answer, in tokens.")] = 64,
    stop: StopTexts = None,
    *,
    sample: HowToSample,
    how: Loading,
    reading: Reading,
    json: Json = False,
) -> None:
    """Ask a library one question and print the answer."""
    if (explained or html) and library == BARE:
        raise typer.BadParameter("the bare base has no experts.", param_hint="--explain" if explained else "--html")
    if streamed and json:
        raise typer.BadParameter("JSON is printed whole: leave out --stream or --json.", param_hint="--stream")

    sampling = sample.sampling()
    choice = choose(library, reading, router=router, mix=mix, max_share=max_share, base=base, tasks=tasks)
    check_page(html)
    from lorary.asking.stream import as_turn, explain, stream
    from lorary.tasks.example import Example

    asked = as_turn(Example(question, "")) if chat else Example(question, "")
    with opened(choice, how) as model:
        answer = stream(model, asked, max_new_tokens=max_new_tokens, stop=stop or (), sampling=sampling)
        with through_template(model) if chat else nullcontext():
            text = print_stream(answer) if streamed else "".join(answer)
        trace = explain(model, answer) if explained or html else None
        told = trace if explained else None
        tell_empty(text, chat=chat)
        if json:
            print_json({"question": question, "answer": text, **({"trace": plain(told)} if told else {})})
        elif not streamed:
            print(printable(text))
        if told and not json:
            print_trace(told)
        write_page(model, trace, html)
