"""`lorary ask`: one question to a library."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from lorary.cli.application import or_list
from lorary.cli.console import print_json, print_table, printable, say
from lorary.cli.models import BARE, LIBRARY, opened
from lorary.cli.parameters import BaseOfLibrary, Device, Dtype, HowToMix, Json, MaxShare

if TYPE_CHECKING:
    from lorary.model.trace import Trace


def ask(
    library: Annotated[str, typer.Argument(metavar="LIBRARY", help=LIBRARY)],
    question: Annotated[str, typer.Argument(metavar="QUESTION", help="The prompt, as the model gets it.")],
    router: Annotated[
        str | None,
        typer.Option(metavar="SPEC", is_eager=True, callback=or_list("ROUTERS"), help="As arrow:top_k=4; or: list."),
    ] = None,
    mix: HowToMix = None,
    max_share: MaxShare = None,
    base: BaseOfLibrary = None,
    tasks: Annotated[
        str | None, typer.Option(metavar="DIR", help="What the library was built from, for routers that need it.")
    ] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Also tell which expert spoke at each token.")] = False,
    chat: Annotated[
        bool, typer.Option("--chat", help="Ask as a user's turn, through the base's chat template.")
    ] = False,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.")] = 64,
    device: Device = "auto",
    dtype: Dtype = "auto",
    json: Json = False,
) -> None:
    """Ask a library one question. The router is compass unless you say otherwise."""
    if explain and library == BARE:
        raise typer.BadParameter("the bare base has no experts.", param_hint="--explain")

    from lorary.tasks.example import Example, Message

    asked = Example(question, "", messages=(Message("user", question),) if chat else ())
    with opened(
        library, router=router, mix=mix, max_share=max_share, base=base, tasks=tasks, device=device, dtype=dtype
    ) as model:
        answer = model.generate_text([asked], max_new_tokens=max_new_tokens)[0]
        trace = model.explain(asked, max_new_tokens=max_new_tokens) if explain else None
    if not answer:
        hint = "" if chat else " A base that was made for chat may want --chat."
        say(f"the answer is empty: the model ended it at once.{hint}")
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
