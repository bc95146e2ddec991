"""The page about the command line: every command with its arguments and options."""

import inspect
from collections.abc import Iterator
from typing import Any

from lorary.cli.app import command_line


def commands_page() -> str:
    """Describe every command: what it does, its arguments and options."""
    app: Any = command_line()
    lines = ["# Commands", "", str(app.help), "", str(app.epilog), ""]
    lines += [*_parameters(app), ""]
    for name, command in app.commands.items():
        usage = " ".join(["lorary", name, *_needed(command)])
        lines += [f"## {name}", "", f"`{usage}`", "", inspect.cleandoc(command.help or ""), ""]
        lines += [*_parameters(command), ""]
    return "\n".join(lines).rstrip() + "\n"


def _needed(command: Any) -> Iterator[str]:
    for parameter in command.params:
        if parameter.required:
            value = parameter.metavar or parameter.name.upper()
            yield value if parameter.param_type_name == "argument" else f"{parameter.opts[0]} {value}"


def _parameters(command: Any) -> list[str]:
    rows = []
    for parameter in command.params:
        name = parameter.metavar if parameter.param_type_name == "argument" else parameter.opts[0]
        default = "" if parameter.default in (None, False, ()) else f" Default: `{parameter.default}`."
        need = " Needed." if parameter.required else ""
        rows.append(f"| `{name}` | {(parameter.help or '').replace('|', chr(92) + '|')}{default}{need} |")
    return ["| | |", "| :-- | :-- |", *rows]
