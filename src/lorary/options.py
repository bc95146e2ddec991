"""Options <-> "arrow:top_k=4": one grammar for every method, on the command line and in files."""

import dataclasses
import json
import math
import numbers
import re
import reprlib
import types
import typing
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from pydantic import TypeAdapter, ValidationError

from lorary.errors import OptionError, known_names
from lorary.hashing import default_of, hashed_fields

T = TypeVar("T")

_PLAIN = re.compile(r"""[^\s,"'()\[\]{}]([^,"'()\[\]{}]*[^\s,"'()\[\]{}])?""")
"""A text that a spec holds as it is; others stand in double quotes, as JSON has them."""
_PIECES = re.compile(r'"(?:\\.|[^"\\])*"|.', re.DOTALL)
_HUGE = 1 << 63
"""What neither torch nor numpy takes for a whole number."""
MAX_SEED = 2**32 - 1
"""The largest that all who draw by lot take."""


@dataclasses.dataclass(frozen=True)
class Options:
    """What every method is: options of their declared types, whoever gives them, and no number without meaning.

    A `__post_init__` of its own begins with `super().__post_init__()`.
    """

    def __post_init__(self) -> None:
        """Take lists for tuples, one text for a tuple of it, and refuse other types. Raises E-OPTION."""
        hints = _hints(self)
        for name, value in vars(self).copy().items():
            if isinstance(value, list):
                object.__setattr__(self, name, tuple(value))
            elif isinstance(value, str) and hints.get(name) == tuple[str, ...]:
                object.__setattr__(self, name, (value,))
        check_types(self)


def split_spec(spec: str) -> tuple[str, dict[str, str]]:
    """Split "name:key=value,key=value" into the name and its texts.

    Commas inside brackets or double quotes belong to the value. Raises E-OPTION for a part without "=" and for a key
    given twice.
    """
    name, _, rest = spec.partition(":")
    values: dict[str, str] = {}
    for part in _split_commas(rest):
        key, equals, value = part.partition("=")
        key = key.strip()
        if not equals or not key:
            raise OptionError("E-OPTION", f"{spec!r}: {part!r} is not key=value.", "Write name:key=value,key=value.")
        if key in values:
            raise OptionError("E-OPTION", f"{spec!r}: {key!r} is given twice.")
        values[key] = value.strip()
    return name.strip(), values


def _split_commas(text: str) -> list[str]:
    parts, depth, current = [], 0, ""
    for piece in _PIECES.findall(text):
        depth += (piece in "([{") - (piece in ")]}")
        if piece == "," and depth == 0:
            parts.append(current)
            current = ""
        else:
            current += piece
    return [part for part in [*parts, current] if part.strip()]


def make(cls: type[T], values: Mapping[str, object], *, called: str = "") -> T:
    """Make an options object from texts or TOML values, typed by the fields of `cls`.

    A field whose type has `from_option` reads its own text (Clusters reads a file, a router another's spec), and one
    whose type has `from_dict` what `as_dict` made of it.
    Raises E-OPTION with the known names for an unknown key, and with the type for a wrong value.
    """
    called = called or cls.__name__
    hints = typing.get_type_hints(cls)
    fields = {f.name: hints[f.name] for f in dataclasses.fields(cls) if f.init}  # type: ignore[arg-type]
    for key in values:
        if key not in fields:
            raise OptionError("E-OPTION", f"{called}: unknown option {key!r}.", known_names(key, sorted(fields)))
    typed = {key: _typed(fields[key], value, f"{called}: {key}={value!r}") for key, value in values.items()}
    missing = [
        f.name
        for f in dataclasses.fields(cls)  # type: ignore[arg-type]
        if f.init
        and f.name not in typed
        and f.default is dataclasses.MISSING
        and f.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise OptionError("E-OPTION", f"{called}: option {missing[0]!r} is needed.", f"Write {called}:{missing[0]}=...")
    return cls(**typed)


def _typed(hint: Any, value: Any, where: str) -> Any:
    for candidate in (hint, *typing.get_args(hint)):
        if isinstance(value, str) and hasattr(candidate, "from_option"):
            return candidate.from_option(value)
        if isinstance(value, Mapping) and hasattr(candidate, "from_dict"):
            return candidate.from_dict(value, where)
    if isinstance(value, str) and typing.get_origin(hint) is tuple:
        value = [_unquoted(part.strip()) for part in _split_commas(value.strip("()[]"))]
    elif isinstance(value, str):
        if value.lower() == "none" and type(None) in typing.get_args(hint):
            return None
        value = _unquoted(value)
    return _validated(hint, value, where)


def _unquoted(text: str) -> str:
    if len(text) < 2 or text[0] != text[-1] or text[0] not in "\"'":
        return text
    try:
        return str(json.loads(text))
    except ValueError:
        return text[1:-1]


@cache
def _adapter(hint: Any) -> TypeAdapter[Any]:
    return TypeAdapter(hint)


def _validated(hint: Any, value: Any, where: str, *, strict: bool = False) -> Any:
    try:
        return _adapter(hint).validate_python(value, strict=strict)
    except ValidationError:
        raise OptionError("E-OPTION", f"{where}, expected {in_words(hint)}.") from None


_WORDS = {
    int: "a whole number", float: "a number", bool: "true or false", str: "a text", Path: "a path", type(None): "none",
}  # fmt: skip


def in_words(hint: Any) -> str:
    """Say what a type takes, for those who write its text: int | None is "a whole number or none"."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return " or ".join(map(str, inner))
    if origin in (typing.Union, types.UnionType):
        return " or ".join(map(in_words, inner))
    if origin is tuple:
        return f"a list, [..., ...], each {in_words(inner[0])}"
    return _WORDS.get(hint) or getattr(hint, "in_words", None) or getattr(hint, "__name__", None) or str(hint)


def name_of(options: object) -> str:
    """Name the method that an options object is of: its file."""
    return type(options).__module__.rpartition(".")[2]


def to_spec(options: Any) -> str:
    """Write an options object as its spec, defaults left out, None as none: Arrow(top_k=2) -> "arrow:top_k=2".

    What is written is read again, save for options that are read from a file.
    """
    name = name_of(options)
    changed = {f.name: getattr(options, f.name) for f in dataclasses.fields(options) if not _is_default(f, options)}
    hints = _hints(options)
    parts = [f"{key}={_written(value, type(None) in typing.get_args(hints[key]))}" for key, value in changed.items()]
    return name + (":" + ",".join(parts) if parts else "")


def _written(value: Any, may_be_none: bool = False) -> str:
    if value is None:
        return "none"
    if isinstance(value, tuple):
        return f"({','.join(map(_written, value))})"
    if isinstance(value, Options):
        spec = to_spec(value)
        return spec if _PLAIN.fullmatch(spec) else f"({spec})"
    if isinstance(value, str) and ((may_be_none and value.lower() == "none") or not _PLAIN.fullmatch(value)):
        return json.dumps(value, ensure_ascii=False)
    return str(value)


def _is_default(field: "dataclasses.Field[Any]", options: Any) -> bool:
    return bool(getattr(options, field.name) == default_of(field))


def as_dict(options: Any) -> dict[str, object]:
    """List the method's name and all its options, defaults included: the form that is hashed and stored.

    Save for options that came later, at their defaults (`SKIP_DEFAULT`).
    """
    kept = hashed_fields(options)
    known = {f.name: kept[f.name] for f in dataclasses.fields(options) if f.name in kept}
    return {
        "name": name_of(options),
        **{name: as_dict(value) if isinstance(value, Options) else value for name, value in known.items()},
    }


# ---- what callers pass ------------------------------------------------------------------------------


def check_types(options: Any) -> None:
    """Refuse an options object whose fields aren't of their declared types, or no numbers. Raises E-OPTION."""
    called, hints = name_of(options), _hints(options)
    for name in (f.name for f in dataclasses.fields(options)):
        value = getattr(options, name)
        where = f"{called}: {name}={reprlib.repr(value)}"
        _validated(hints[name], value, where, strict=True)
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, float) and not math.isfinite(number):
                raise OptionError("E-OPTION", f"{where}, expected a finite number.")
            if isinstance(number, int) and name == "seed" and not 0 <= number <= MAX_SEED:
                raise OptionError("E-OPTION", f"{where}, expected a whole number from 0 to {MAX_SEED}.")
            if isinstance(number, int) and not -_HUGE <= number < _HUGE:
                raise OptionError("E-OPTION", f"{where}, expected a whole number below 2**63.")


def check_positive(options: object, *names: str) -> None:
    """Refuse options that aren't above zero; None passes. Raises E-OPTION."""
    for name in names:
        value = getattr(options, name)
        if value is not None and not value > 0:
            refuse_value(options, name, "more than 0")


def refuse_value(options: object, name: str, expected: str) -> NoReturn:
    """Raise E-OPTION for the value of one option, saying what was expected."""
    value = reprlib.repr(getattr(options, name))
    raise OptionError("E-OPTION", f"{name_of(options)}: {name}={value}, expected {expected}.")


def _hints(options: Any) -> dict[str, Any]:
    return typing.get_type_hints(type(options))


def require(what: str, value: object, kinds: type | tuple[type, ...], expected: str, hint: str = "") -> None:
    """Refuse an argument of another type. Raises E-OPTION, saying what was expected."""
    if not isinstance(value, kinds):
        raise OptionError("E-OPTION", f"{what} is {_show(value)}, expected {expected}.", hint)


def require_each(what: str, values: object, kinds: type | tuple[type, ...], expected: str, hint: str = "") -> None:
    """Refuse what is no sequence of some types; a text isn't a sequence of its letters. Raises E-OPTION."""
    if isinstance(values, str | bytes) or not isinstance(values, Sequence):
        raise OptionError("E-OPTION", f"{what} is {_show(values)}, expected a list of {expected}.", hint)
    for index, value in enumerate(values):
        require(f"{what}[{index}]", value, kinds, f"a list of {expected}", hint)


def require_count(what: str, value: object, *, least: int = 1) -> None:
    """Refuse what is no whole number, or too small. Raises E-OPTION."""
    if not isinstance(value, numbers.Integral) or isinstance(value, bool):
        raise OptionError("E-OPTION", f"{what}={_show(value)}, expected a whole number.")
    if value < least:
        raise OptionError("E-OPTION", f"{what}={value}, expected {least} or more.")


def _show(value: object) -> str:
    return f"the class {value.__name__}" if isinstance(value, type) else reprlib.repr(value)
