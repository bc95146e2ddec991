"""`lorary ask`: one question to a library."""

from contextlib import nullcontext
from typing import Annotated

import typer

from lorary.cli.models import BARE, LibraryOrBase, choose, opened, through_template
from lorary.cli.options.loading import Loading, Reading
from lorary.cli.options.parameters import (
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
from lorary.cli.printing.answers import plain, print_stream, print_trace
from lorary.cli.printing.console import print_json, printable, say


def ask(
    library: LibraryOrBase,
    question: Annotated[str, typer.Argument(metavar="QUESTION", help="The prompt, passed to the model as is.")],
    router: Router = None,
    mix: HowToMix = None,
    max_share: MaxShare = None,
    base: BaseOfLibrary = None,
    tasks: TasksOfLibrary = None,
    explained: Annotated[bool, typer.Option("--explain", help="Also show which expert spoke at each token.")] = False,
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
    if explained and library == BARE:
        raise typer.BadParameter("the bare base has no experts.", param_hint="--explain")
    if streamed and json:
        raise typer.BadParameter("JSON is printed whole: leave out --stream or --json.", param_hint="--stream")

    sampling = sample.sampling()
    choice = choose(library, reading, router=router, mix=mix, max_share=max_share, base=base, tasks=tasks)
    from lorary.asking.stream import as_turn, explain, stream
    from lorary.tasks.example import Example

    asked = as_turn(Example(question, "")) if chat else Example(question, "")
    with opened(choice, how) as model:
        answer = stream(model, asked, max_new_tokens=max_new_tokens, stop=stop or (), sampling=sampling)
        with through_template(model) if chat else nullcontext():
            text = print_stream(answer) if streamed else "".join(answer)
        trace = explain(model, answer) if explained else None
    if not text:
        hint = "" if chat else " A chat model may need --chat."
        say(f"the answer is empty: the model stopped at once.{hint}")
    if json:
        return print_json({"question": question, "answer": text, **({"trace": plain(trace)} if trace else {})})
    if not streamed:
        print(printable(text))
    if trace:
        print_trace(trace)
    return None
