"""The chat template that an adapter was trained with, if it comes with one. It is read, never run."""

import os
from pathlib import Path
from typing import Any

from lorary.disk.reading import read_capped
from lorary.disk.strict_json import parse_object
from lorary.errors import LoraryError, ModelError, quote
from lorary.library.adapter.findings import Finding, warning

TEMPLATE = "chat_template.jinja"
_TOKENIZER = "tokenizer_config.json"
_MAX_BYTES = 1_000_000


def read_template(directory: Path) -> str | None:
    """Read the chat template that an adapter's directory brings, as transformers finds it; None if it brings none.

    Raises E-CHAT for one that can't be read, E-PATH for what is no regular file.
    """
    if os.path.lexists(directory / TEMPLATE):
        try:
            return read_capped(directory / TEMPLATE, _MAX_BYTES, "E-CHAT").decode() or None
        except UnicodeDecodeError:
            raise ModelError("E-CHAT", f"{TEMPLATE} is not UTF-8.") from None
    if not os.path.lexists(directory / _TOKENIZER):
        return None
    return _default(parse_object(read_capped(directory / _TOKENIZER, _MAX_BYTES, "E-CHAT"), _TOKENIZER, "E-CHAT"))


def _default(config: dict[str, Any]) -> str | None:
    """Take the template of a tokenizer's config: a text, or that called "default" of several."""
    found = config.get("chat_template")
    if isinstance(found, list):
        named = [entry for entry in found if isinstance(entry, dict) and entry.get("name") == "default"]
        found = named[0].get("template") if named else None
    return found if isinstance(found, str) and found else None


def judge_template(template: str | LoraryError | None, expert: Path, own: str | None) -> list[Finding]:
    """Tell of a chat template that an adapter brings, or that can't be read, and its base doesn't have (W-CHAT).

    expert: where the adapter was put. own: the template of the base, None: it has none, or isn't known.
    """
    if isinstance(template, LoraryError):
        return [warning("W-CHAT", f"the chat template that it brings is ignored: {template.message}", template.hint)]
    if template is None or template == own:
        return []
    message = (
        "it brings a chat template, which isn't used by default: turns are written with the base's, if it has one."
    )
    hint = f"To use it, give --chat-template {quote(str(expert / TEMPLATE), 500)}."
    return [warning("W-CHAT", message, hint)]
