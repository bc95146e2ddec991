"""The inspector: answers whose tokens wear the colour of their leading expert, and open to show their layers.

As a page of a server it asks that server, as any client does; as a file it holds the answers that were given.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from lorary.pages.escape import escape_json
from lorary.pages.render import allow, render, script, style

_STYLES = ("page.css", "answer.css", "inspector.css")
_ANSWERS = ("reading.js", "answer.js", "panel.js")
_SHARED = (*_ANSWERS, "map.js")
_SERVED = (*_SHARED, "stream.js", "chat.js")
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""What the server's page may load and do: what comes from the server, and nothing that stands in the page."""


@dataclass(frozen=True, eq=False)
class Told:
    """One text and its routing. told: experts, sites, tokens, weights and left_out, as a server's `trace`.

    n_prompt: how many of the tokens, from the first, are the prompt's.
    """

    title: str
    told: Mapping[str, Any]
    n_prompt: int = 0


@dataclass(frozen=True, eq=False)
class MapOfExperts:
    """How alike experts are: their names in the order of a tree, and the cosines between them, row by row."""

    experts: Sequence[str]
    cosines: Sequence[Sequence[float]]

    def to_json(self) -> dict[str, object]:
        """Give it as JSON."""
        return {"experts": list(self.experts), "cosines": [[round(value, 4) for value in row] for row in self.cosines]}


def answer_page(title: str, answers: Sequence[Told], experts: MapOfExperts | None = None) -> str:
    """Make a page of answers that were given; it loads nothing."""
    return render(
        "answers.html", title=title, style=style(*_STYLES), script=script(*_SHARED, "saved.js"), allow=allow,
        data=_data(answers, experts), has_map=experts is not None,
    )  # fmt: skip


def answers_part(answers: Sequence[Told]) -> tuple[Markup, Markup, Markup]:
    """Make the part of a page that shows answers, once in a page; its style and its script come with it."""
    part = Markup(render("told.html", data=_data(answers, None), has_map=False))
    return part, style("answer.css"), script(*_ANSWERS, "saved.js")


def _data(answers: Sequence[Told], experts: MapOfExperts | None) -> Markup:
    data = {
        "answers": [{"title": one.title, "told": one.told, "n_prompt": one.n_prompt} for one in answers],
        "map": experts.to_json() if experts is not None else None,
    }
    return Markup(escape_json(data))


def in_notebook(title: str, page: str) -> str:
    """Put a page into a frame of its own, for a cell of a notebook: neither can touch the other."""
    return render("notebook.html", title=title, page=page)


def chat_page() -> str:
    """Make the page of a server, which stands at its root; what it needs lies beside it in `inspector/`."""
    return render("inspector.html", title="lorary inspector", scripts=_SERVED)


def chat_asset(name: str) -> tuple[str, str] | None:
    """Give what `chat_page` needs by name, as text and media type."""
    if name == "inspector.css":
        return style(*_STYLES), "text/css"
    return (script(name), "text/javascript") if name in _SERVED else None
