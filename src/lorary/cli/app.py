"""All commands and what they share. Slow imports are left to the command that needs them."""

from collections.abc import Callable
from functools import cache
from typing import Annotated, Any

import typer
import typer.main

from lorary import __version__
from lorary.cli.application import Application
from lorary.cli.commands.add import add
from lorary.cli.commands.answer import answer
from lorary.cli.commands.ask import ask
from lorary.cli.commands.build import build
from lorary.cli.commands.chat import chat
from lorary.cli.commands.cluster import cluster
from lorary.cli.commands.compare import compare
from lorary.cli.commands.doctor import doctor
from lorary.cli.commands.eval import evaluate
from lorary.cli.commands.export import export
from lorary.cli.commands.finetune import finetune
from lorary.cli.commands.gc import gc
from lorary.cli.commands.pull import pull
from lorary.cli.commands.push import push
from lorary.cli.commands.quickstart import quickstart
from lorary.cli.commands.remove import remove
from lorary.cli.commands.report import report
from lorary.cli.commands.save import save
from lorary.cli.commands.serve import serve
from lorary.cli.commands.show import show
from lorary.cli.commands.status import status
from lorary.cli.commands.study import study
from lorary.cli.options.groups import grouped


@cache
def command_line() -> Any:
    """Give the application as what parses a line and runs it; made once, since that reads the types of all options."""
    return typer.main.get_command(make_app())


def make_app() -> typer.Typer:
    """Make the application with all its commands."""
    app = typer.Typer(
        cls=Application,
        no_args_is_help=True,
        context_settings={"help_option_names": ["-h", "--help"]},
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
        "push": push,
        "pull": pull,
        "gc": gc,
        "show": show,
        "ask": ask,
        "chat": chat,
        "answer": answer,
        "eval": evaluate,
        "serve": serve,
        "save": save,
        "export": export,
        "report": report,
        "compare": compare,
        "quickstart": quickstart,
        "study": study,
        "doctor": doctor,
    }
    for name, verb in verbs.items():
        app.command(name)(grouped(verb))
    return app


def _print_version(ctx: typer.Context, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        print(f"lorary {__version__}")
        raise typer.Exit


def _about(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version and exit.")
    ] = False,
) -> None:
    """Build and reuse a library of LoRA experts on one frozen language model."""
