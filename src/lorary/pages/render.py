"""Templates filled in: whatever is put into one is text, unless we say that it is markup."""

import base64
import hashlib
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from lorary.pages.escape import visible
from lorary.pages.palette import COLOURS, OTHER

_HERE = Path(__file__).parent
_COLOURS = "".join(f".e{number} {{ --e: {colour}; }}\n" for number, colour in enumerate((*COLOURS, OTHER)))


def render(template: str, **values: Any) -> str:
    """Fill in a template. Texts are escaped, and control characters become their visible symbols; `Markup` stays."""
    return _templates().get_template(template).render(values)


@cache
def _templates() -> Environment:
    return Environment(
        loader=FileSystemLoader(_HERE / "templates"), autoescape=True, undefined=StrictUndefined, finalize=_shown,
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip


def _shown(value: Any) -> Any:
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


@cache
def style(*names: str) -> Markup:
    """Give style sheets of ours as one, the colours of experts among them."""
    return Markup("".join(map(_asset, names)) + _COLOURS)


@cache
def script(*names: str) -> Markup:
    """Give scripts of ours as one, in this order."""
    return Markup("".join(map(_asset, names)))


def _asset(name: str) -> str:
    return (_HERE / "assets" / name).read_text(encoding="utf-8")


def allow(text: str) -> str:
    """Name a script or style in a content security policy, so that a page runs it and no other."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
