"""A base's config.json, judged before anything is made of it. No code that a base brings along is ever run."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from transformers import AutoConfig, PretrainedConfig

from lorary.disk.reading import read_capped
from lorary.errors import LibraryError, ModelError, quote

NO_CODE = {"trust_remote_code": False}
"""For everything of transformers that opens something: left out, it asks on the terminal, and "y" runs the code."""

MAX_BYTES = 10_000_000
MAX_PARTS = 4096
"""Of anything that a network has many of: layers, blocks, experts of a layer."""

_CONFIG = "config.json"
_COUNTS = re.compile(r"(n|num|number_of)_(\w+_)?(layers?|blocks?|experts?)|(\w+_)?(layers|depths?|n_layer)")
_LISTED = re.compile(r"(\w+_)?(types|layers|blocks|depths)")
_CODE_HINT = "Give a base whose architecture transformers has itself, saved without auto_map."


def read_config(source: str, what: str, *, local_files_only: bool = False) -> Any:
    """Read a base's config: a directory's, or a Hub repository's. `what` begins messages.

    Raises E-CODE for one that would need code of its own, E-LIMIT for one that claims more parts than any network has,
    before they are made, and whatever transformers raises.
    """
    own = Path(source) / _CONFIG
    if own.is_file() and not own.is_symlink():
        read_capped(own, MAX_BYTES, "E-LIMIT")
    fields, _ = PretrainedConfig.get_config_dict(source, local_files_only=local_files_only)
    _judge(fields, what)
    try:
        return AutoConfig.from_pretrained(source, local_files_only=local_files_only, **NO_CODE)
    except ValueError as error:
        raise (code_refused(what) if asks_for_code(error) else error) from error


def asks_for_code(error: BaseException) -> bool:
    """Tell whether transformers refused a base because it was not allowed to run the base's own code."""
    return "trust_remote_code" in str(error)


def code_refused(what: str) -> ModelError:
    """Make the error that says so."""
    return ModelError("E-CODE", f"{what} needs Python code that it brings along, which lorary never runs.", _CODE_HINT)


def _judge(fields: Mapping[str, Any], what: str) -> None:
    for path, value in _leaves(fields):
        key = path.rpartition(".")[2]
        if key.endswith("_implementation") and isinstance(value, str) and "/" in value:
            raise ModelError(
                "E-CODE", f"{what}: {path} is {quote(value)}, code from the Hub, which lorary never runs.", _CODE_HINT
            )
        n = len(value) if isinstance(value, list) and _LISTED.fullmatch(key) else value
        counts = _COUNTS.fullmatch(key) or isinstance(value, list)
        if counts and type(n) is int and n > MAX_PARTS:
            told = f"{_CONFIG} claims {json.dumps(n)[:40]} {path}, the limit is {MAX_PARTS:,}"
            raise LibraryError("E-LIMIT", f"{what}: {told}.", "It is damaged, or made to exhaust your machine.")


def _leaves(fields: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in fields.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{before}{key}.")
        else:
            yield f"{before}{key}", value
