"""Options that several commands share, each said once."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from lorary.cli.application import or_list
from lorary.cli.options.completion import offer_methods, offer_word_or_file, offer_words

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


def method_option(flag: str, registry: str, about: str) -> Any:
    """Make an option that takes a method's spec, or "list" to print all methods. `registry`: see `lorary.folder`."""
    return typer.Option(
        flag, metavar="SPEC", is_eager=True, callback=or_list(registry), autocompletion=offer_methods(registry),
        help=about,
    )  # fmt: skip


def count_option(about: str) -> Any:
    """Make an option that takes a whole number from 1."""
    return typer.Option(min=1, metavar="N", help=about)


def base_option(about: str) -> Any:
    """Make the option --base."""
    return typer.Option("--base", metavar="NAME", help=about, autocompletion=offer_word_or_file(EMBEDDED))


_BASE = f"Base model: {EMBEDDED!r} (embedded), a directory, or a Hub id."
_DEVICES = offer_words("auto", "cpu", "cuda", "mps")
_DTYPES = offer_words("auto", "float32", "bfloat16", "float16")
_DEVICE_HELP, _DTYPE_HELP = "Where to compute: auto, cpu, cuda, cuda:1, mps.", "auto, float32, bfloat16 or float16."

BaseToBuildOn = Annotated[str, base_option(_BASE)]
BaseOfLibrary = Annotated[str | None, base_option(f"{_BASE} By default the one its experts name.")]
Device = Annotated[str, typer.Option("--device", metavar="DEVICE", help=_DEVICE_HELP, autocompletion=_DEVICES)]
Dtype = Annotated[str, typer.Option("--dtype", metavar="DTYPE", help=_DTYPE_HELP, autocompletion=_DTYPES)]
DeviceOrRecipe = Annotated[
    str | None,
    typer.Option("--device", metavar="DEVICE", help=f"{_DEVICE_HELP} Default: auto.", autocompletion=_DEVICES),
]
DtypeOrRecipe = Annotated[
    str | None,
    typer.Option("--dtype", metavar="DTYPE", help=f"{_DTYPE_HELP} Default: auto.", autocompletion=_DTYPES),
]
OnlyTasks = Annotated[list[str] | None, typer.Option("--only", metavar="NAME", help="Use only this task; repeatable.")]
TrainShare = Annotated[
    float | None,
    typer.Option(metavar="SHARE", help="Share of each task's training examples to use, drawn at random, e.g. 0.1."),
]
Router = Annotated[
    str | None,
    method_option("--router", "ROUTERS", "How to route, e.g. arrow:top_k=4 (`list` shows all); compass by default."),
]
TasksOfLibrary = Annotated[
    str | None,
    typer.Option("--tasks", metavar="TASKS", help="The tasks that the library was built from; some methods need them."),
]
HowToMix = Annotated[
    Mix | None,
    typer.Option(
        "--mix",
        help="How experts combine: factors, (sum w B)(sum w A) h, the default; or outputs, sum w B A h.",
    ),
]
Ignore = Annotated[
    list[str] | None,
    typer.Option(
        "--ignore", metavar="FIELD", help="Don't read this field of the rows; repeatable. *: all unknown fields."
    ),
]
WhichAnswers = Annotated[
    Answers | None,
    typer.Option("--answers", help="Which answers of a conversation to use: the last (default) or all."),
]
MaxShare = Annotated[
    float | None,
    typer.Option(
        "--max-share",
        min=0.01,
        max=1.0,
        metavar="X",
        help="Leave out experts that take more than this share of neutral text, e.g. 0.5.",
    ),
]
StopTexts = Annotated[
    list[str] | None,
    typer.Option("--stop", metavar="TEXT", help="End the answer before this text; repeatable."),
]
AnswerPage = Annotated[
    Path | None,
    typer.Option("--html", metavar="FILE", help="Also write a page that shows the experts of each token and layer."),
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
