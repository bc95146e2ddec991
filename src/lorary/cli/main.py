"""The entry point `lorary`. Whatever is slow to import is imported by the command that needs it."""

import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

import typer

from lorary import __version__
from lorary.cli.application import FAILED, READER_GONE, Application
from lorary.cli.commands.add import add
from lorary.cli.commands.ask import ask
from lorary.cli.commands.build import build
from lorary.cli.commands.cluster import cluster
from lorary.cli.commands.eval import evaluate
from lorary.cli.commands.export import export
from lorary.cli.commands.finetune import finetune
from lorary.cli.commands.quickstart import quickstart
from lorary.cli.commands.remove import remove
from lorary.cli.commands.report import report
from lorary.cli.commands.save import save
from lorary.cli.commands.show import show
from lorary.cli.commands.status import status
from lorary.cli.commands.study import study

_QUIET = {
    "DO_NOT_TRACK": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",
}
"""What keeps our parents from talking; read when they are imported."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and exit with its code: 0 done, 1 error, 2 usage, 3 partial, 130 interrupted."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a terminal without UTF-8 is no reason to fail
    with _stoppable(), _unheard():
        make_app()(_debug_first(list(sys.argv[1:] if arguments is None else arguments)), prog_name="lorary")


def make_app() -> typer.Typer:
    """Make the application with all its commands."""
    app = typer.Typer(
        cls=Application,
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        epilog="Exit codes: 0 done, 1 error, 2 usage, 3 partly done, 130 interrupted.",
    )
    app.callback()(_about)
    verbs: dict[str, Callable[..., int | None]] = {
        "build": build,
        "status": status,
        "finetune": finetune,
        "cluster": cluster,
        "add": add,
        "remove": remove,
        "show": show,
        "ask": ask,
        "eval": evaluate,
        "save": save,
        "export": export,
        "report": report,
        "quickstart": quickstart,
        "study": study,
    }
    for name, verb in verbs.items():
        app.command(name)(verb)
    return app


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"lorary {__version__}")
        raise typer.Exit


def _about(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version and exit.")
    ] = False,
) -> None:
    """Build and reuse a library of LoRA experts on one frozen language model."""


def _debug_first(arguments: list[str]) -> list[str]:
    """Let --debug stand anywhere before "--", although it belongs to all commands."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    if "--debug" not in arguments[:end]:
        return arguments
    return ["--debug", *(a for a in arguments[:end] if a != "--debug"), *arguments[end:]]


@contextmanager
def _unheard() -> Iterator[None]:
    """End without noise when stdout can't be written: its reader has gone, as `| head` does, or the disk is full."""
    try:
        yield
    finally:
        try:
            if sys.stdout is not None:
                sys.stdout.flush()
        except OSError as error:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter's own flush complains
            sys.exit(READER_GONE if isinstance(error, BrokenPipeError) else FAILED)


@contextmanager
def _stoppable() -> Iterator[None]:
    """Make SIGTERM behave as Ctrl-C, and the second of either end the process at once."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.getsignal(number) for number in numbers}

    def stop(_number: int, _frame: Any) -> None:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)
        raise KeyboardInterrupt

    try:
        for number in numbers:
            signal.signal(number, stop)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


if __name__ == "__main__":
    main()
