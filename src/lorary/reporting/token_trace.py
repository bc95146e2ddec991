"""Who spoke at each token: a text whose tokens wear the colour of the expert with the largest weight."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lorary.errors import EvaluationError
from lorary.pages.escape import escape, escape_json
from lorary.pages.palette import COLOURS

_SHOWN = 4  # experts named at a token
SCRIPT = Path(__file__).with_name("tokens.js")


@dataclass(frozen=True, eq=False)
class TokenTrace:
    """One text with the routing weights of its tokens.

    `tokens`: T pieces of text, white space included. `names`: E experts. `weights` (T, E): averaged over sites.
    `by_site` (L, T, E), with the L names `sites`: the same for each site or layer; the page then offers a choice.
    Raises E-REPORT if the sizes don't agree, and for weights that aren't finite.
    """

    tokens: tuple[str, ...]
    names: tuple[str, ...]
    weights: NDArray[np.floating[Any]]
    title: str = ""
    sites: tuple[str, ...] = ()
    by_site: NDArray[np.floating[Any]] | None = None

    def __post_init__(self) -> None:
        """Look at sizes and numbers."""
        wanted: tuple[int, ...] = (len(self.tokens), len(self.names))
        if 0 in wanted or self.weights.shape != wanted:
            self._refuse("weights", self.weights.shape, wanted)
        if self.by_site is not None and self.by_site.shape != (len(self.sites), *wanted):
            self._refuse("by_site", self.by_site.shape, (len(self.sites), *wanted))
        for field in ("weights", "by_site"):
            if (given := getattr(self, field)) is not None and not np.isfinite(given).all():
                message = f"trace {self.title!r}: {field} holds NaN or infinity, expected finite numbers."
                raise EvaluationError("E-REPORT", message)

    def _refuse(self, field: str, found: tuple[int, ...], wanted: tuple[int, ...]) -> None:
        letters = "tokens, experts" if len(wanted) == 2 else "sites, tokens, experts"
        message = f"trace {self.title!r}: {field} has shape {found}, expected {wanted} ({letters})."
        raise EvaluationError("E-REPORT", message, "An empty text has no trace." if 0 in wanted else "")

    def to_html(self) -> str:
        """Write the text with its legend and, given `by_site`, a choice of site; works with `tokens.js`.

        The experts with the most weight on this text have a colour each, all others are grey.
        """
        colours = _colours(self.weights)
        spans = "".join(
            _span(token, _top(row), self.names, colours) for token, row in zip(self.tokens, self.weights, strict=True)
        )
        title = f"<h3>{escape(self.title)}</h3>" if self.title else ""
        return (
            f'<section class="trace">{title}{self._choice()}\n<p class="tokens">{spans}</p>\n'
            f'<p class="detail" aria-live="polite">Point at a token, or tap it, to see its experts.</p>\n'
            f"{_legend(self.names, self.weights, colours)}\n{self._data(colours)}</section>"
        )

    def _choice(self) -> str:
        if self.by_site is None:
            return ""
        options = "".join(f'<option value="{i}">{escape(site)}</option>' for i, site in enumerate(self.sites, start=1))
        return f'<label class="site">Site <select><option value="0">mean of all</option>{options}</select></label>'

    def _data(self, colours: list[int]) -> str:
        if self.by_site is None:
            return ""
        tops = [[_top(row) for row in site] for site in (self.weights, *self.by_site)]
        data = {"names": self.names, "colours": colours, "tops": tops}
        return f'<script type="application/json">{escape_json(data)}</script>'


def _colours(weights: NDArray[np.floating[Any]]) -> list[int]:
    """Number the colours of the experts, heaviest first; the number len(COLOURS) is grey."""
    order = np.argsort(-weights.sum(axis=0), kind="stable")
    colours = [len(COLOURS)] * weights.shape[1]
    for place, expert in enumerate(order[: len(COLOURS)]):
        colours[int(expert)] = place
    return colours


def _top(row: NDArray[np.floating[Any]]) -> list[list[int]]:
    """List the heaviest experts of one token as [expert, per cent]; the first always, the others from 1 % on."""
    order = np.argsort(-row, kind="stable")[:_SHOWN]
    top = [[int(expert), round(100 * float(row[expert]))] for expert in order]
    return [pair for place, pair in enumerate(top) if place == 0 or pair[1] > 0]


def _span(token: str, top: list[list[int]], names: tuple[str, ...], colours: list[int]) -> str:
    expert, percent = top[0]
    said = ", ".join(f"{names[i]} {weight} %" for i, weight in top)
    return (
        f'<span class="t e{colours[expert]}" style="--w:{min(max(percent, 0), 100)}" tabindex="0" '
        f'title="{escape(said)}">{_visible(token)}</span>'
    )


def _visible(token: str) -> str:
    """Show line ends, tabs and empty tokens by a sign; a line end also ends the line."""
    if not token:
        return "<i>∅</i>"
    text = escape(token.replace("\r\n", "\n").replace("\r", "\n"))
    return text.replace("\t", "<i>⇥</i>\t").replace("\n", "<i>↵</i>\n")


def _legend(names: tuple[str, ...], weights: NDArray[np.floating[Any]], colours: list[int]) -> str:
    shares = 100 * weights.mean(axis=0)
    coloured = sorted((i for i in range(len(names)) if colours[i] < len(COLOURS)), key=lambda i: colours[i])
    entries = [(colours[i], names[i], float(shares[i])) for i in coloured]
    others = [float(shares[i]) for i in range(len(names)) if colours[i] == len(COLOURS)]
    if others:
        entries.append((len(COLOURS), f"{len(others)} others", sum(others)))
    bar = "".join(f'<span class="e{c}" style="flex:{max(share, 0):.2f}"></span>' for c, _, share in entries)
    items = "".join(
        f'<li><span class="key e{c}"></span>{escape(name)} <small>{share:.0f} %</small></li>'
        for c, name, share in entries
    )
    return f'<div class="load" aria-hidden="true">{bar}</div><ul class="legend">{items}</ul>'
