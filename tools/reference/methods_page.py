"""The page about methods: every method with its docstring and its options."""

import dataclasses
import inspect
from typing import Any, get_type_hints

from lorary import folder

_CHAPTERS = (
    ("Builders", "BUILDERS", "`lorary build --method NAME:key=value,key=value`"),
    ("Backends", "BACKENDS", "`lorary build --backend NAME:key=value`; where the workers of a build run"),
    ("Clusterers", "CLUSTERERS", "`lorary cluster --method NAME:key=value`"),
    ("Routers", "ROUTERS", "`lorary ask --router NAME:key=value`, `lorary eval --router NAME:key=value`"),
    ("Metrics", "EVALUATORS", "`lorary eval --metric NAME:key=value`"),
    ("Studies", "STUDIES", "`lorary study NAME:key=value TASKS`"),
    ("Kinds", "KINDS", "The form of an adapter; only from Python"),
)


def methods_page() -> str:
    """Describe every method: its docstring, its options with types and defaults."""
    lines = ["# Methods", ""]
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
