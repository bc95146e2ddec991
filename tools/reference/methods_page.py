"""The page about methods: every method with its docstring and all of its options in one table."""

import dataclasses
import inspect
import types
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from option_lines import option_lines

from lorary import folder
from lorary.options import Options, to_spec

CHAPTERS = (
    ("Builders", "BUILDERS", "`lorary build --method NAME:key=value,key=value`"),
    ("Backends", "BACKENDS", "`lorary build --backend NAME:key=value`; where the workers of a build run"),
    ("Clusterers", "CLUSTERERS", "`lorary cluster --method NAME:key=value`"),
    ("Routers", "ROUTERS", "`lorary ask --router NAME:key=value`, `lorary eval --router NAME:key=value`"),
    ("Metrics", "EVALUATORS", "`lorary eval --metric NAME:key=value`"),
    ("Benchmarks", "BENCHMARKS", "`lorary eval --benchmark NAME:key=value`"),
    ("Trackers", "TRACKERS", "`lorary build --log NAME:key=value`; where trainings are shown"),
    ("Studies", "STUDIES", "`lorary study NAME:key=value TASKS`"),
)

_MANY = 1 / 3  # of a chapter's methods: what is said of so many stands once, above them


def methods_page() -> str:
    """Describe every method: its docstring, its options with types, defaults and a line on each."""
    lines = ["# Methods", ""]
    for title, registry, usage in CHAPTERS:
        methods = getattr(folder, registry)
        loaded = {name: methods.load(name) for name in methods.names()}
        heirs = _heirs(loaded)
        common = [body for body, names in heirs.items() if len(names) > len(loaded) * _MANY]
        lines += [f"## {title}", "", f"{usage}.", ""]
        for body in reversed(common):
            lines += [f"What holds for {_listed(heirs[body])}:", "", *_block(body)]
        for name, cls in loaded.items():
            notes = [body for body, names in heirs.items() if name in names and body not in common]
            lines += [f"### {name}", "", *_block(inspect.cleandoc(cls.__doc__ or ""), *notes), *_options(cls)]
    return "\n".join(lines).rstrip() + "\n"


def _block(*parts: str) -> list[str]:
    return ["```text", *"\n\n".join(parts).splitlines(), "```", ""]


def _listed(names: Sequence[str]) -> str:
    *first, last = (f"`{name}`" for name in names)
    return f"{', '.join(first)} and {last}" if first else last


def _heirs(methods: Mapping[str, type]) -> dict[str, list[str]]:
    """Map what a class above methods says of all of them, its first line left out, to their names; nearest first."""
    found: dict[str, list[str]] = {}
    for name, cls in methods.items():
        for parent in cls.__mro__[1:]:
            body = inspect.cleandoc(parent.__doc__ or "").partition("\n")[2].strip()
            if body and _has_options(parent):
                found.setdefault(body, []).append(name)
    return found


def _has_options(cls: type) -> bool:
    return dataclasses.is_dataclass(cls) and any(
        f.name in inspect.get_annotations(cls) for f in dataclasses.fields(cls)
    )


def _options(cls: Any) -> list[str]:
    """Make a table of all options of a method; nothing if it has none."""
    fields, hints = {field.name: field for field in dataclasses.fields(cls)}, get_type_hints(cls)
    rows = [
        f"| `{name}` | `{_type(hints[name])}` | {_default(fields[name])} | {_cell(line)} |"
        for name, line in option_lines(cls).items()
    ]
    return ["| option | type | default | |", "| :-- | :-- | :-- | :-- |", *rows, ""] if rows else []


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


def _type(hint: Any) -> str:
    """Write a type as in a signature, choices as their values."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Literal:
        return " \\| ".join(map(repr, inner))
    if origin in (Union, types.UnionType):
        return " \\| ".join(map(_type, inner))
    if inner or not isinstance(hint, type):
        return str(hint)
    return "None" if hint is types.NoneType else hint.__name__


def _default(field: "dataclasses.Field[Any]") -> str:
    if isinstance(field.default, Options):
        return f"`{to_spec(field.default)}`"
    return "needed" if field.default is dataclasses.MISSING else f"`{field.default!r}`"
