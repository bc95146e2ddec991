"""`lorary ask`: one question to a library."""

from contextlib import nullcontext
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lorary.cli.models import BARE, LibraryOrBase, choose, opened, through_template
from lorary.cli.options.loading import Loading, Reading
from lorary.cli.options.parameters import BaseOfLibrary, HowToMix, Json, MaxShare, Router, TasksOfLibrary, count_option
from lorary.cli.printing.console import print_json, print_table, printable, say

if TYPE_CHECKING:
    from lorary.model.routed.trace import Trace


def ask(
    library: LibraryOrBase,
    question: Annotated[str, typer.Argument(metavar="QUESTION", help="The prompt, passed to the model as is.")],
    router: Router = None,
    mix: HowToMix = None,
    max_share: MaxShare = None,
    base: BaseOfLibrary = None,
    tasks: TasksOfLibrary = None,
    explain: Annotated[bool, typer.Option("--explain", help="Also show which expert spoke at each token.")] = False,
    chat: Annotated[
        bool, typer.Option("--chat", help="Send the question as a user turn, through the base's chat template.")
    ] = False,
    max_new_tokens: Annotated[int, count_option("Longest answer, in tokens.")] = 64,
    stop: Annotated[
        list[str] | None, typer.Option(metavar="TEXT", help="End the answer before this text; repeatable.")
    ] = None,
    *,
    how: Loading,
    reading: Reading,
    json: Json = False,
) -> None:
    """Ask a library one question and print the answer."""
    if explain and library == BARE:
        raise typer.BadParameter("the bare base has no experts.", param_hint="--explain")

    from lorary.tasks.example import Example, Message

    asked = Example(question, "", messages=(Message("user", question),) if chat else ())
    choice = choose(library, reading, router=router, mix=mix, max_share=max_share, base=base, tasks=tasks)
    with opened(choice, how) as model:
        with through_template(model) if chat else nullcontext():
            answer = model.generate_text([asked], max_new_tokens=max_new_tokens, stop=stop or ())[0]
        trace = model.explain(asked, max_new_tokens=max_new_tokens) if explain else None
    if not answer:
        hint = "" if chat else " A chat model may need --chat."
        say(f"the answer is empty: the model stopped at once.{hint}")
    if json:
        return print_json({"question": question, "answer": answer, **({"trace": _plain(trace)} if trace else {})})
    print(printable(answer))
    if trace:
        print()
        print_table([(name, f"{share:.2f}") for name, share in trace.total().items()])
        print()
        shares = trace.shares.amax(1).tolist()
        print_table([(repr(t), e, f"{s:.2f}") for t, e, s in zip(trace.tokens, trace.loudest, shares, strict=True)])
    return None


def _plain(trace: "Trace") -> dict[str, Any]:
    shares = [[round(share, 4) for share in row] for row in trace.shares.tolist()]
    return {"tokens": trace.tokens, "experts": trace.names, "shares": shares, "total": trace.total()}
