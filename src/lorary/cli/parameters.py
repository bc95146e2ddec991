"""Options that several commands share, each said once."""

from enum import StrEnum
from typing import Annotated

import typer

EMBEDDED = "smollm2-135m"
"""The base that needs no network; stands here too because its own home imports torch."""


class Mix(StrEnum):
    """How weighted experts combine."""

    FACTORS = "factors"
    OUTPUTS = "outputs"


_BASE = f"Base model: {EMBEDDED!r} (embedded), a directory, or a Hub id."

BaseToBuildOn = Annotated[str, typer.Option("--base", metavar="NAME", help=_BASE)]
BaseOfLibrary = Annotated[
    str | None,
    typer.Option("--base", metavar="NAME", help=f"{_BASE} By default the one its experts name.", show_default=False),
]
Device = Annotated[str, typer.Option("--device", help="Where to compute: auto, cpu, cuda, cuda:1, mps.")]
Dtype = Annotated[str, typer.Option("--dtype", help="auto, float32, bfloat16 or float16.")]
HowToMix = Annotated[
    Mix | None,
    typer.Option(
        "--mix", help="How experts combine: factors, (sum w B)(sum w A) h, the default; or outputs, sum w B A h."
    ),
]
MaxShare = Annotated[
    float | None,
    typer.Option(
        "--max-share",
        min=0.01,
        max=1.0,
        help="Leave out experts that take more than this of a text about nothing in particular, as 0.5.",
        show_default=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def names(text: str) -> tuple[str, ...]:
    """Split at commas."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def numbers(text: str) -> tuple[int, ...]:
    """Read numbers separated by commas."""
    try:
        return tuple(int(part) for part in names(text))
    except ValueError:
        raise typer.BadParameter(f"{text!r} are no numbers separated by commas") from None
