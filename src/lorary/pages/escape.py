"""Untrusted text, made harmless in HTML and JSON-in-HTML."""

import html
import json

_VISIBLE = {code: 0x2400 + code for code in range(32) if chr(code) not in "\t\n\r"} | {127: 0x2421}
_VISIBLE |= dict.fromkeys((0xFFFE, 0xFFFF), 0xFFFD)  # XML, and so SVG, has none of them


def escape(text: object) -> str:
    """Escape a text for element content and quoted attributes; control characters become their visible symbols."""
    return html.escape(visible(str(text)))


def escape_json(value: object) -> str:
    """Write a value as JSON that can stand inside a `<script>` element."""
    text = json.dumps(value, separators=(",", ":"))  # ASCII only
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def visible(text: str) -> str:
    """Show control characters by their symbols and what is no character as a question mark.

    Lone surrogates, as in file names that aren't UTF-8, can't be written to a file at all.
    """
    return text.translate(_VISIBLE).encode("utf-8", "replace").decode("utf-8")
