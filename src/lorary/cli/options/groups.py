"""Options that belong together, declared once and handed to a command as one object."""

import functools
import inspect
import typing
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Group:
    """Base of dataclasses whose fields are options, annotated as a command's parameters are."""


def grouped(command: Callable[..., int | None]) -> Callable[..., int | None]:
    """Make a command whose parameters of a `Group` type are spread out into that group's options."""
    hints = typing.get_type_hints(command, include_extras=True)
    spread: dict[str, inspect.Parameter] = {}
    groups: dict[str, tuple[type[Group], tuple[str, ...]]] = {}
    for name, parameter in inspect.signature(command).parameters.items():
        if isinstance(hints[name], type) and issubclass(hints[name], Group):
            own = _parameters_of(hints[name])
            groups[name] = (hints[name], tuple(own))
            spread |= own
        else:
            spread[name] = parameter.replace(annotation=hints[name], kind=inspect.Parameter.KEYWORD_ONLY)

    @functools.wraps(command)
    def run(**given: object) -> int | None:
        made = {name: kind(**{key: given.pop(key) for key in keys}) for name, (kind, keys) in groups.items()}
        return command(**given, **made)

    run.__signature__ = inspect.Signature(list(spread.values()))  # type: ignore[attr-defined]
    run.__annotations__ = {name: parameter.annotation for name, parameter in spread.items()}
    return run


def _parameters_of(group: type[Group]) -> dict[str, inspect.Parameter]:
    hints = typing.get_type_hints(group, include_extras=True)
    keyword = inspect.Parameter.KEYWORD_ONLY
    found = inspect.signature(group).parameters
    return {name: p.replace(annotation=hints[name], kind=keyword) for name, p in found.items()}
