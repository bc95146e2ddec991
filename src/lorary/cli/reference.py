"""Pages made from the code: `python -m lorary.cli.reference` writes docs/reference; with a name, prints that one."""

import ast
import dataclasses
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_type_hints

import typer.main

from lorary import folder
from lorary.cli.app import make_app
from lorary.cli.python_reference import python_page

_NOTICE = "<!-- Generated from the code by `make docs`. -->"
_CHAPTERS = (
    ("Builders", "BUILDERS", "`lorary build --method NAME:key=value,key=value`"),
    ("Backends", "BACKENDS", "`lorary build --backend NAME:key=value`; where the workers of a build run"),
    ("Clusterers", "CLUSTERERS", "`lorary cluster --method NAME:key=value`"),
    ("Routers", "ROUTERS", "`lorary ask --router NAME:key=value`, `lorary eval --router NAME:key=value`"),
    ("Metrics", "EVALUATORS", "`lorary eval --metric NAME:key=value`"),
    ("Kinds", "KINDS", "The form of an adapter; only from Python"),
)


# ---- methods ------------------------------------------------------------------------------------


def methods_page() -> str:
    """Describe every method: its docstring, its options with types and defaults."""
    lines = [_NOTICE, "", "# Methods", ""]
    for title, registry, usage in _CHAPTERS:
        methods = getattr(folder, registry)
        loaded = {name: methods.load(name) for name in methods.names()}
        lines += [f"## {title}", "", f"{usage}.", ""]
        for parent in _parents(loaded.values()):
            heirs = ", ".join(f"`{name}`" for name, cls in loaded.items() if issubclass(cls, parent))
            lines += [f"Options that {heirs} share:", "", *_text(parent), "", *_options(parent)]
        for name, cls in loaded.items():
            lines += [f"### {name}", "", *_text(cls), "", *_options(cls)]
    return "\n".join(lines).rstrip() + "\n"


def _parents(methods: Any) -> list[type]:
    """List the classes between methods and their contract that bring options along, so as to describe them once."""
    found = {parent for cls in methods for parent in cls.__mro__[1:] if _own_fields(parent)}
    return sorted(found, key=lambda cls: cls.__name__)


def _text(cls: type) -> list[str]:
    return ["```text", *(inspect.getdoc(cls) or "").splitlines(), "```"]


def _own_fields(cls: type) -> list[str]:
    inherited = {name for parent in cls.__mro__[1:] for name in inspect.get_annotations(parent)}
    fields = dataclasses.fields(cls) if dataclasses.is_dataclass(cls) else ()
    return [f.name for f in fields if f.name in inspect.get_annotations(cls) and f.name not in inherited]


def _options(cls: Any) -> list[str]:
    """Make a table of a class's own options; nothing if it has none."""
    own, hints = _own_fields(cls), get_type_hints(cls)
    rows = [
        f"| `{f.name}` | {_type(hints[f.name])} | {_default(f)} |" for f in dataclasses.fields(cls) if f.name in own
    ]
    return ["| option | type | default |", "| :-- | :-- | :-- |", *rows, ""] if rows else []


def _type(hint: Any) -> str:
    name = hint.__name__ if isinstance(hint, type) and not hasattr(hint, "__args__") else str(hint)
    return "`" + name.replace("typing.", "").replace("NoneType", "None").replace("|", "\\|") + "`"


def _default(field: "dataclasses.Field[Any]") -> str:
    return "needed" if field.default is dataclasses.MISSING else f"`{field.default!r}`"


# ---- commands -----------------------------------------------------------------------------------


def commands_page() -> str:
    """Describe every command: what it does, its arguments and options."""
    app: Any = typer.main.get_command(make_app())
    lines = [_NOTICE, "", "# Commands", "", str(app.help), "", str(app.epilog), ""]
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
        need = " Required." if parameter.required else ""
        rows.append(f"| `{name}` | {(parameter.help or '').replace('|', chr(92) + '|')}{default}{need} |")
    return ["| | |", "| :-- | :-- |", *rows]


# ---- file map -----------------------------------------------------------------------------------


def file_map() -> str:
    """List the folders and top-level modules of the source with the first sentence of their docstrings."""
    root = Path(__file__).parents[1]
    paths = [root / "__init__.py", *root.glob("[!_]*.py"), *root.glob("*/__init__.py")]
    named = {path: str(path.parent.name + "/" if path.parent != root else path.name) for path in paths}
    ordered = sorted(paths, key=lambda path: (path.parent != root, named[path]))
    width = max(map(len, named.values()))
    return "".join(f"src/lorary/{named[path]:<{width}}  {_first_line(path)}\n" for path in ordered)


def _first_line(path: Path) -> str:
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return text.partition("\n")[0].removesuffix(".")


def _python_page() -> str:
    return "\n".join([_NOTICE, "", *python_page()]).rstrip() + "\n"


PAGES = {"methods": methods_page, "commands": commands_page, "python": _python_page}

if __name__ == "__main__":
    if len(sys.argv) > 1:
        sys.stdout.write({**PAGES, "map": file_map}[sys.argv[1]]())
    else:
        for name, page in PAGES.items():
            Path("docs", "reference", f"{name}.md").write_text(page(), encoding="utf-8")
