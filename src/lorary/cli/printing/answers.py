"""Answers as they are made, and which experts made them."""

import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from lorary.cli.printing.console import print_table, printable, say

if TYPE_CHECKING:
    from lorary.model.routed.routed_model import RoutedModel
    from lorary.model.routed.trace import Trace


def print_stream(pieces: Iterable[str], *, is_stopped: Callable[[], bool] = lambda: False) -> str:
    """Write pieces to stdout as they come, till they end or it is stopped, and then a line's end; give the text."""
    said = []
    for piece in pieces:
        said.append(piece)
        print(printable(piece), end="", flush=True)
        if is_stopped():
            break
    print(flush=True)
    return "".join(said)


def print_trace(trace: "Trace") -> None:
    """Write each expert's share of a text, and who was loudest at each token."""
    print()
    print_table([(name, f"{share:.2f}") for name, share in trace.total().items()])
    print()
    shares = trace.shares.amax(1).tolist()
    print_table([(repr(t), e, f"{s:.2f}") for t, e, s in zip(trace.tokens, trace.loudest, shares, strict=True)])
    sys.stdout.flush()


def plain(trace: "Trace") -> dict[str, object]:
    """Give a trace as JSON."""
    shares = [[round(share, 4) for share in row] for row in trace.shares.tolist()]
    return {"tokens": trace.tokens, "experts": trace.names, "shares": shares, "total": trace.total()}


def tell_empty(text: str, *, chat: bool) -> None:
    """Say so if an answer is empty, and why that may be."""
    if not text:
        hint = "" if chat else " A chat model may need --chat."
        say(f"the answer is empty: the model stopped at once.{hint}")


def check_page(into: Path | None) -> None:
    """Refuse a place where no page can be written, before anything is loaded; None: no page is wanted."""
    if into is not None:
        from lorary.pages.files import check_page_place

        check_page_place(into)


def write_page(model: "RoutedModel", trace: "Trace | None", into: Path | None) -> None:
    """Write an answer's trace as a page, if one is wanted."""
    if into is not None and trace is not None:
        from lorary.asking.inspection import inspect

        inspect(model, trace, into=into)
        say(f"page written to {into}")
