"""What all commands share: how errors become one message and an exit code, and how methods are listed."""

import re
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import typer
from typer.core import TyperGroup

from lorary.cli.exit_codes import FAILED, INTERRUPTED, PARTLY, READER_GONE
from lorary.cli.printing.console import print_json, print_table, say
from lorary.errors import LoraryError

_JSON = "lorary.json"
_WORDS = (
    (r"^Value error, ", ""),
    (r"^Input should be a valid integer\b.*", "expected a whole number"),
    (r"^Input should be a valid number\b.*", "expected a number"),
    (r"^Input should be greater than or equal to (\S+)$", r"expected \1 or more"),
    (r"^Input should be ", "expected "),
)


class PartlyDone(Exception):  # noqa: N818 - no error of its own: its cause is
    """Some jobs failed, the rest are done and kept; raised from the error that stopped them."""


@contextmanager
def resumable() -> Iterator[None]:
    """Tell a user who interrupts the work inside that nothing is lost."""
    try:
        yield
    except KeyboardInterrupt as stop:
        stop.add_note("Run the same command again: it resumes.")
        raise


class Application(TyperGroup):
    """All commands. One returns its exit code, or None for 0; an error becomes one message on stderr."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse, knowing from the start whether --json is among the arguments: `--method list` answers early."""
        ctx.meta[_JSON] = "--json" in args
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> None:
        """Run the command and leave with its exit code."""
        try:
            code = super().invoke(ctx)
            if sys.stdout is not None:  # somebody may have closed it
                sys.stdout.flush()
        except typer.BadParameter as error:
            error.message = _reworded(error.message)
            raise
        except BrokenPipeError:
            code = READER_GONE
        except KeyboardInterrupt as stop:
            if ctx.params.get("debug"):
                traceback.print_exc()
            raise _past_typer(stop) from None
        except (LoraryError, PartlyDone, OSError) as error:
            if ctx.params.get("debug"):
                traceback.print_exc()
            code = _explain(error)
        if code:
            raise typer.Exit(code)


def _reworded(message: str) -> str:
    """Reword what pydantic says about an option's value."""
    for pattern, words in _WORDS:
        message = re.sub(pattern, words, message)
    return message


def _past_typer(stop: KeyboardInterrupt) -> SystemExit:
    """Make of it what typer lets pass, notes included; `main` tells it."""
    end = SystemExit(INTERRUPTED)
    for note in getattr(stop, "__notes__", []):
        end.add_note(note)
    return end


def _explain(error: BaseException) -> int:
    """Say on stderr what happened; give the exit code."""
    if isinstance(error, PartlyDone):
        say(str(error.__cause__))
        say(str(error))
        return PARTLY
    if isinstance(error, OSError):
        from lorary.disk.writing import code_of

        where = f"{str(error.filename)!r}: " if error.filename is not None else ""
        say(f"error[{code_of(error) or 'E-FILE'}] {where}{error.strerror or error}.")
        return FAILED
    say(str(error))
    return FAILED


def or_list(registry: str) -> Callable[[typer.Context, Any], Any]:
    """Make the callback of an option that takes a method, or several: "list" prints all and exits. Imports no method.

    `registry`: the name in `lorary.folder`.
    """

    def answer(ctx: typer.Context, value: Any) -> Any:
        given = [value] if isinstance(value, str) else value or ()
        if "list" not in given or ctx.resilient_parsing:  # which is how a shell looks for completions
            return value
        from lorary import folder

        methods = getattr(folder, registry)
        rows = [(name, methods.sentence(name)) for name in methods.names()]
        print_json(dict(rows)) if ctx.meta.get(_JSON) else print_table(rows)
        raise typer.Exit

    return answer
