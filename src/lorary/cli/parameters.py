"""Options that several commands share, each said once."""

from enum import StrEnum
from typing import Annotated, Any

import typer

EMBEDDED = "smollm2-135m"
"""The base that needs no network; stands here too, so that the help imports nothing of its own home."""


TASKS = "Directory, glob or file of tasks (.jsonl, .json, .csv, .parquet), or hf://datasets/USER/NAME."
"""Where tasks are read from, for the help."""


class Answers(StrEnum):
    """Which answers of a conversation make examples."""

    LAST = "last"
    ALL = "all"


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
Ignore = Annotated[
    list[str] | None,
    typer.Option(
        "--ignore", metavar="FIELD", help="Leave out this field of all rows; may be repeated. *: all unknown."
    ),
]
WhichAnswers = Annotated[
    Answers | None,
    typer.Option("--answers", help="Of a conversation, the last answer is an example (the default), or all are."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def reading(ignore: list[str] | None, answers: Answers | None) -> dict[str, Any]:
    """Say how tasks are read, as `read_tasks` is told it."""
    return {"ignore": tuple(ignore or ()), "answers": (answers or Answers.LAST).value}


def names(text: str) -> tuple[str, ...]:
    """Split at commas."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def numbers(text: str) -> tuple[int, ...]:
    """Read numbers separated by commas."""
    try:
        return tuple(int(part) for part in names(text))
    except ValueError:
        raise typer.BadParameter(f"{text!r} are no numbers separated by commas") from None
